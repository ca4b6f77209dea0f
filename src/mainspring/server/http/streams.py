"""Answers that take their time: sent part by part as fast as the client reads, and given up when it leaves."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from mainspring.protocols.http import Response
from mainspring.server.http.exchange import Exchange
from mainspring.server.http.messages import Messages, Receive, Send

__all__ = ["Leaving", "Leavings", "leaving_of", "send_stream"]

_UNWATCHED_S = 0.02
"""A request is watched from the second tick of this length on: most are answered by then, and cost no task."""


class Leavings:
    """The clients of the requests under way at one listener, so that their leaving is noticed.

    One timer for all of them; it runs while there are any.
    """

    __slots__ = ("_loop", "_new", "_old", "_ticking")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._new: set[_Received] = set()
        self._old: set[_Received] = set()
        self._ticking = False

    def watch(self, receive: Receive) -> Leaving:
        """Watch the client of the task that calls this; the request's body is read already."""
        leaving = _Received(receive, self._new)
        if not self._ticking or self._loop is not leaving.loop:
            self._loop = leaving.loop
            self._ticking = True
            self._loop.call_later(_UNWATCHED_S, self._tick)
        return leaving

    def _tick(self) -> None:
        assert self._loop is not None
        for leaving in self._old:
            leaving.begin()
        self._old, self._new = self._new, set()
        self._ticking = bool(self._old)
        if self._ticking:
            self._loop.call_later(_UNWATCHED_S, self._tick)


class Leaving:
    """Cancels the task that makes it when its client closes the connection.

    Args:
        task: it, where it is at hand.

    Attributes:
        happened: whether the client has left.
    """

    __slots__ = ("_task", "happened")

    def __init__(self, task: asyncio.Task[Any] | None = None) -> None:
        self._task = task or asyncio.current_task()
        self.happened = False

    def now(self) -> None:
        """The client has left."""
        if self._task is not None:
            self.happened = True
            self._task.cancel()

    def forget(self) -> None:
        """Stop watching, and take back the cancellation that a client's leaving was."""
        if self.happened and self._task is not None:
            self._task.uncancel()
        self._task = None


def leaving_of(exchange: Exchange) -> Leaving:
    """Watch the client of the task that calls this, by a connection that tells when it leaves."""
    leaving = Leaving(exchange.task)
    exchange.left = leaving.now
    if exchange.disconnected:
        leaving.now()
    return leaving


class _Received(Leaving):
    """The same by ASGI's messages, of which the next one after the body is that the client has left.

    Args:
        receive: of the ASGI connection.
        among: those that may have to be watched; it is one of them until it is forgotten.

    Attributes:
        loop: the running loop.
    """

    __slots__ = ("_among", "_receive", "_watcher", "loop")

    def __init__(self, receive: Receive, among: set[_Received]) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()
        self._receive = receive
        self._among = among
        among.add(self)
        self._watcher: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Watch from now on, unless the request is over."""
        if self._task is not None:
            self._watcher = self.loop.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.now()

    def forget(self) -> None:
        """Stop watching."""
        self._among.discard(self)
        if self._watcher is not None:
            self._watcher.cancel()
        super().forget()


class _Heart:
    """Sends a beat when nothing else was sent for a while."""

    __slots__ = ("_beat", "_handle", "_loop", "_seconds", "_send", "_sending", "busy", "last")

    def __init__(self, seconds: float, beat: bytes, send: Send) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._beat = beat
        self._send = send
        self._sending: asyncio.Task[None] | None = None
        self.busy = False
        self.last = self._loop.time()
        self._handle = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if now - self.last >= self._seconds:
            self.last = now
            if not self.busy and (self._sending is None or self._sending.done()):
                self._sending = self._loop.create_task(self._one())
        self._handle = self._loop.call_at(self.last + self._seconds, self._look)

    async def _one(self) -> None:
        await self._send({"type": "http.response.body", "body": self._beat, "more_body": True})

    def stop(self) -> None:
        """No beat after this."""
        self._handle.cancel()
        if self._sending is not None:
            self._sending.cancel()


async def send_stream(response: Response, start: MutableMapping[str, Any], exchange: Exchange | Messages) -> None:
    """Send the head of a response, then its parts.

    The next part is asked for when the one before is with the host, and the host takes none while the client's
    connection is full: a slow reader slows whatever the parts come from, and nothing piles up here.
    """
    assert response.stream is not None
    head, send = exchange.method == "HEAD", exchange.send
    heart = None if response.heartbeat is None or head else _Heart(*response.heartbeat, send)
    try:
        await send(start)
        if not head:
            await _parts(response, exchange, heart)
        await send({"type": "http.response.body", "body": b""})
    finally:
        if heart is not None:
            heart.stop()
        aclose = getattr(response.stream, "aclose", None)
        try:
            if aclose is not None:
                await aclose()
        finally:
            if response.closed is not None:
                await response.closed()


async def _parts(response: Response, exchange: Exchange | Messages, heart: _Heart | None) -> None:
    assert response.stream is not None
    now, part_of = asyncio.get_running_loop().time, exchange.part
    async for part in response.stream:
        if not part_of(part):
            if heart is not None:
                heart.busy = True
            await exchange.send({"type": "http.response.body", "body": part, "more_body": True})
        if heart is not None:
            heart.busy = False
            heart.last = now()
    if heart is not None:
        heart.stop()
