"""The answer to one HTTP request, as its bytes come: with deadlines, backpressure, and an end at any moment."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from mainspring.ports.llm import Error
from mainspring.upstream.faults import BrokenError, late

__all__ = ["Exchange", "PlainReply", "Reply", "body_of"]

HIGH = 256 << 10
LOW = 64 << 10


class Reply(Protocol):
    """An answer: `head` first, then `piece` until it is empty, and `close` in any case."""

    status: int
    headers: dict[str, str]

    async def head(self, seconds: float) -> None:
        """Wait for the status and the headers, `seconds` at most.

        Raises:
            BrokenError: no connection, it was lost, or it took too long.
        """

    async def piece(self, seconds: float, what: str = "") -> bytes:
        """The next bytes of the body, empty at its end; `what` says for what it waits.

        Raises:
            BrokenError: as `head`.
        """

    def release(self) -> None:
        """What is left is of no interest: read it for a second, so that the connection serves again, else close it."""

    def close(self) -> None:
        """Be done with it: unless it is whole, the connection is closed at once, and who waits is told."""


class Exchange(Protocol):
    """What a reply needs of its connection."""

    def pause(self, paused: bool) -> None:
        """Stop reading, or go on."""

    def abort(self) -> None:
        """Close at once."""


class PlainReply:
    """An answer over a connection of our own.

    Attributes:
        status: 0 until the headers are there.
        headers: by lower-case name; of one that comes twice the last.
        fresh: whether nothing of it has come yet, so that the request may be sent anew.
    """

    __slots__ = (
        "_done",
        "_error",
        "_exchange",
        "_held",
        "_linger",
        "_on_close",
        "_paused",
        "_pieces",
        "_waiter",
        "fresh",
        "head_done",
        "headers",
        "status",
    )

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.fresh = True
        self.head_done = False
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self._linger: asyncio.TimerHandle | None = None
        self._paused = False
        self._done = False
        self._error: BrokenError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._exchange: Exchange | None = None
        self._on_close: Callable[[], None] | None = None

    # -- what the connection tells ----------------------------------------------------------------------------------

    def attach(self, exchange: Exchange) -> None:
        """It is sent over that connection now."""
        self._exchange = exchange

    def on_close(self, act: Callable[[], None]) -> None:
        """What `close` does while there is no connection yet."""
        self._on_close = act

    @property
    def closed(self) -> bool:
        """Whether nobody waits for anything any more."""
        return self._error is not None

    def take(self, piece: bytes) -> None:
        """A part of the body has come."""
        if self._linger is not None:
            return
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held > HIGH and not self._paused and self._exchange is not None:
            self._paused = True
            self._exchange.pause(True)
        self._wake()

    def headed(self) -> None:
        """Status and headers are there."""
        self.head_done = True
        self._wake()

    def finish(self) -> None:
        """The body is whole; the connection is another's from now."""
        self._done = True
        self._exchange = None
        if self._linger is not None:
            self._linger.cancel()
        self._wake()

    def fail(self, error: BrokenError) -> None:
        """Nothing more will come."""
        if self._error is None and not self._done:
            self._error = error
            self._exchange = None
            self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # -- what the reader asks ---------------------------------------------------------------------------------------

    async def head(self, seconds: float) -> None:
        """Wait for the status and the headers."""
        while not self.head_done:
            if self._error is not None:
                raise self._error
            await self._wait(seconds, "the upstream's answer")

    async def piece(self, seconds: float, what: str = "") -> bytes:
        """The next bytes of the body, all that are there; empty at its end."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._done:
                return b""
            await self._wait(seconds, what or "the upstream's next bytes")
        piece = self._pieces.popleft() if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        if self._paused and self._exchange is not None:
            self._paused = False
            self._exchange.pause(False)
        return piece

    async def _wait(self, seconds: float, what: str) -> None:
        loop = asyncio.get_running_loop()
        waiter = self._waiter = loop.create_future()
        timer = loop.call_later(seconds, self._late, what, seconds)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _late(self, what: str, seconds: float) -> None:
        self._give_up(late(what, seconds))

    def close(self) -> None:
        """Close the connection unless the answer is whole."""
        if self._linger is not None:
            self._linger.cancel()
        self._give_up(BrokenError(Error("upstream", "the request was closed", retryable=False)))

    def release(self) -> None:
        """Read what is left for a second, and close the connection if it is not whole then."""
        if not self._done and self._error is None and self._linger is None:
            self._linger = asyncio.get_running_loop().call_later(1.0, self.close)
            if self._paused and self._exchange is not None:
                self._exchange.pause(False)

    def _give_up(self, error: BrokenError) -> None:
        exchange, on_close = self._exchange, self._on_close
        self.fail(error)
        self._on_close = None
        if exchange is not None:
            exchange.abort()
        elif on_close is not None:
            on_close()


async def body_of(reply: Reply, seconds: float, most: int) -> bytes:
    """The whole body.

    Raises:
        BrokenError: as `Reply.piece`, or it is larger than `most` bytes.
    """
    pieces, size = [], 0
    while piece := await reply.piece(seconds):
        size += len(piece)
        if size > most:
            reply.close()
            raise BrokenError(Error("upstream", f"the upstream's answer is larger than {most} bytes"))
        pieces.append(piece)
    return b"".join(pieces)
