"""A request and its answer on a connection: uvicorn's cycle, with a short way for bodies and answers that are whole."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

__all__ = ["Exchange", "Joining", "Signal"]

_LOGGER = logging.getLogger("uvicorn.error")
_SMALL = 16_384
"""Bodies up to this size are copied behind their head; longer ones are handed to the transport beside it."""
_BODILESS = frozenset({204, 304})
_STARTS: dict[tuple[int, bytes], bytes] = {}
"""The first lines of answers by status and content type, up to the length."""
_MOST_STARTS = 256


class Joining:
    """A transport that keeps a response's head until its body's first part is there, at most to the loop's next turn.

    Each write is a system call, and wakes the client up.

    Args:
        transport: of the connection.
        loop: the running loop.
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
            self._loop.call_soon(self.let_go)
            return
        self._transport.write(data)

    def write_now(self, data: bytes, body: bytes = b"") -> None:
        """Send bytes, and a long body behind them that is not copied; nothing is kept."""
        if self._head:
            data, self._head = self._head + data, b""
        if body:
            self._transport.writelines((data, body))
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Close when everything is sent."""
        self.let_go()
        self._transport.close()

    def let_go(self) -> None:
        """Send what is kept."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Signal:
    """What `asyncio.Event` is, for one that is seldom waited for: it makes its event when somebody does."""

    __slots__ = ("_event", "_set")

    def __init__(self) -> None:
        self._set = False
        self._event: asyncio.Event | None = None

    def set(self) -> None:
        """Let everybody go on."""
        self._set = True
        if self._event is not None:
            self._event.set()

    def clear(self) -> None:
        """Let those who come from now on wait."""
        self._set = False
        if self._event is not None:
            self._event.clear()

    async def wait(self) -> None:
        """Wait until it is set."""
        if self._set:
            return
        if self._event is None:
            self._event = asyncio.Event()
        await self._event.wait()


class Exchange(RequestResponseCycle):
    """One request and its answer.

    The listener finds it in the scope under `Exchange.KEY`, and may then take a body that has come whole and give an
    answer that is whole without a message and a turn of the loop for each. Everything else goes by ASGI's messages.

    Args:
        scope: of ASGI.
        transport: where answers are written.
        flow: whether the client takes more.
        keep_alive: whether the client may ask again.
        expects: whether it waits for ``100 Continue`` before it sends its body.
        on_response: called when the answer is whole.
        linger: closes a connection whose client may still be sending.

    Attributes:
        left: called when the client closes the connection before its answer is whole; None where nobody wants to know.
        taken: whether somebody answers it.
        patient: whether it is answered although the client has closed its side.
    """

    KEY = "mainspring.exchange"

    logger = _LOGGER
    access_logger = _LOGGER
    access_log = False
    default_headers: list[tuple[bytes, bytes]] = []  # noqa: RUF012 - uvicorn's own, and never changed
    disconnected = False
    more_body = True
    response_started = False
    response_complete = False
    chunked_encoding: bool | None = None
    expected_content_length = 0
    left: Callable[[], None] | None = None
    taken = False
    patient = False
    _open_ended = False

    def __init__(
        self,
        scope: MutableMapping[str, Any],
        transport: Joining,
        flow: FlowControl,
        *,
        keep_alive: bool,
        expects: bool,
        on_response: Callable[[], None],
        linger: Callable[[], None],
    ) -> None:
        self.scope = scope  # type: ignore[assignment]
        self.transport = transport  # type: ignore[assignment]
        self._wire = transport
        self.flow = flow
        self.message_event = Signal()  # type: ignore[assignment]
        self.on_response = on_response
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = expects
        self.body = bytearray()
        self.linger = linger

    def whole_body(self) -> bytes | None:
        """The body, where all of it has come; None where it has to be waited for."""
        if self.more_body or self.disconnected:
            return None
        body, self.body = bytes(self.body), bytearray()
        self.message_event.clear()
        return body

    def answer(
        self,
        status: int,
        content_type: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        body: bytes,
        *,
        close: bool = False,
        head: bool = False,
    ) -> bool:
        """Send a whole answer at once; False where the client takes no more now, and it has to be sent in messages.

        Args:
            status: of HTTP.
            content_type: of the body.
            headers: further ones; ``content-length`` and ``connection`` are not among them.
            body: all of it.
            close: whether the connection is closed behind it.
            head: whether the request wanted the head alone.

        Raises:
            RuntimeError: a header would end its line, or there is an answer already.
        """
        if self.response_started:
            raise RuntimeError("there is an answer already")
        if self.disconnected:
            return True
        if self.flow.write_paused:
            return False
        if status in _BODILESS:
            written = b"".join((STATUS_LINE[status], _lines(headers)))
            body = b""
        else:
            start = _STARTS.get((status, content_type)) or _start(status, content_type)
            written = b"%s%d\r\n%s" % (start, len(body), _lines(headers))
        unread = self.more_body
        if close or unread:
            self.keep_alive = False
        end = b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n"
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        if head or not body:
            self._wire.write_now(written + end)
        elif len(body) <= _SMALL:
            self._wire.write_now(b"".join((written, end, body)))
        else:
            self._wire.write_now(written + end, body)
        self.message_event.set()
        if not self.keep_alive:
            if unread:
                self.linger()
            else:
                self.transport.close()
        self.on_response()
        return True

    async def send(self, message: Any) -> None:
        """Send one of ASGI's messages; to a client of HTTP/1.0 a body without length ends with the connection."""
        if self.response_started and not self._open_ended:
            await super().send(message)
            return
        if self.scope["http_version"] != "1.0" or (
            not self._open_ended and any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
        ):
            await super().send(message)
            return
        await self._send_until_close(message)

    async def _send_until_close(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected or self.response_complete:
            return
        if not self.response_started:
            self.response_started = self._open_ended = True
            self.waiting_for_100_continue = self.keep_alive = False
            headers = [header for header in message.get("headers", ()) if header[0].lower() != b"connection"]
            self._wire.write_now(STATUS_LINE[message["status"]] + _lines(headers) + b"connection: close\r\n\r\n")
            return
        if message.get("body") and self.scope["method"] != "HEAD":
            self._wire.write_now(message["body"])
        if not message.get("more_body", False):
            self.response_complete = True
            self.message_event.set()
            self.transport.close()
            self.on_response()


def _start(status: int, content_type: bytes) -> bytes:
    found = STATUS_LINE[status] + _lines(((b"content-type", content_type),)) + b"content-length: "
    if len(_STARTS) < _MOST_STARTS:
        _STARTS[status, content_type] = found
    return found


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Headers as they are written, each one on a line of its own."""
    written = [b"%s: %s\r\n" % header for header in headers]
    found = b"".join(written)
    if found.count(b"\n") != len(written) or found.count(b"\r") != len(written) or b"\0" in found:
        raise RuntimeError("a header would end its line")
    return found
