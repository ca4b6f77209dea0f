"""HTTP/1.1 connections that send the head of a response together with the beginning of its body."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Connection"]


_CHUNKS = 65_536
"""The most chunks of a request's body."""


class Connection(HttpToolsProtocol):
    """uvicorn's connection, on a transport that writes once where uvicorn writes twice; bodies have so many chunks."""

    _chunks = 0

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._chunks = 0
        super().on_message_begin()

    def on_chunk_header(self) -> None:
        """Count a chunk; too many are refused with 400, and the connection is closed."""
        self._chunks += 1
        if self._chunks > _CHUNKS:
            raise ValueError("too many chunks")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin."""
        super().connection_made(cast(asyncio.Transport, _Joining(transport, self.loop)))


class _Joining:
    """A transport that keeps a response's head until its body's first part is there, at most to the loop's next turn.

    Each write is a system call, and wakes the client up.
    """

    __slots__ = ("_head", "_loop", "_transport", "is_closing")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Send bytes, or keep them when they are a head."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/1.1 "):
            self._head = data
            self._loop.call_soon(self._let_go)
            return
        self._transport.write(data)

    def close(self) -> None:
        """Close when everything is sent."""
        self._let_go()
        self._transport.close()

    def _let_go(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
