"""From an answer's bytes to events: one loop for every engine that streams over HTTP, which never raises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Protocol

import msgspec

from mainspring.ports.llm import Error, Event
from mainspring.upstream.faults import BrokenError, error_of, late
from mainspring.upstream.generations import Ticket
from mainspring.upstream.reply import Reply, body_of
from mainspring.upstream.sse import EventData

__all__ = ["Decoder", "Waits", "events_of", "refuse"]

_MOST_ERROR = 256 << 10
_MOST_PLAIN = 64 << 20


class Waits(msgspec.Struct, frozen=True):
    """How long an engine may take, in seconds.

    Attributes:
        first_token: until the first piece of the answer.
        inter_token: between two pieces.
        total: for everything.
    """

    first_token: float = 60.0
    inter_token: float = 30.0
    total: float = 600.0


class Decoder(Protocol):
    """Turns the payloads of one wire into events.

    Attributes:
        begun: whether a piece of the answer has come.
        done: whether the wire says that all is said.
    """

    begun: bool
    done: bool

    def feed(self, data: bytes) -> Iterable[Event]:
        """The events of one payload, `Start` before all others.

        Raises:
            BrokenError: it is garbage, or an error of the upstream's.
        """

    def plain(self, body: bytes) -> Iterable[Event]:
        """The events of an answer that came whole, because the upstream does not stream."""

    def end(self) -> Iterable[Event]:
        """The last events, `End` the very last.

        Raises:
            BrokenError: the answer is not whole.
        """

    def cancelled(self) -> Iterable[Event]:
        """The last events of an answer that was cancelled."""


class _Clock:
    """How long the next piece may take, by what the answer has come to."""

    __slots__ = ("_begun", "_last", "_loop", "_start", "_waits")

    def __init__(self, waits: Waits) -> None:
        self._loop = asyncio.get_running_loop()
        self._start = self._last = self._loop.time()
        self._waits = waits
        self._begun = False

    def token(self) -> None:
        self._begun = True
        self._last = self._loop.time()

    def left(self) -> tuple[float, str]:
        now, waits = self._loop.time(), self._waits
        limit, what = (waits.inter_token, "the next token") if self._begun else (waits.first_token, "the first token")
        left, whole = self._last + limit - now, self._start + waits.total - now
        if whole < left:
            limit, what, left = waits.total, "the whole answer", whole
        if left <= 0:
            raise late(what, limit)
        return left, what


async def refuse(reply: Reply, secret: str = "", seconds: float = 10.0) -> Error:
    """The event for an answer whose status is no success; its body is read as far as it helps."""
    try:
        body = await body_of(reply, seconds, _MOST_ERROR)
    except BrokenError:
        body = b""
    return error_of(reply.status, reply.headers, body, secret)


async def events_of(
    reply: Reply, decoder: Decoder, ticket: Ticket, waits: Waits, secret: str = ""
) -> AsyncIterator[Event]:
    """The events of an answer; one `End` or `Error` is the last, and the connection is closed with the iterator.

    Args:
        reply: the answer, not yet waited for.
        decoder: of its wire.
        ticket: of the request; cancelling it closes the reply.
        waits: how long it may take.
        secret: a text that no error may tell.
    """
    ticket.stop = reply.close
    if ticket.cancelled:
        reply.close()
    try:
        async for event in _payloads(reply, decoder, waits, secret):
            yield event
        for event in decoder.end():
            yield event
        reply.release()
    except BrokenError as broken:
        if ticket.cancelled:
            for event in decoder.cancelled():
                yield event
        else:
            yield broken.event
    finally:
        ticket.stop = None
        if not decoder.done:
            reply.close()


async def _payloads(reply: Reply, decoder: Decoder, waits: Waits, secret: str) -> AsyncIterator[Event]:
    clock = _Clock(waits)
    await reply.head(clock.left()[0])
    if reply.status != 200:
        raise BrokenError(await refuse(reply, secret))
    if "json" in reply.headers.get("content-type", ""):
        for event in decoder.plain(await body_of(reply, clock.left()[0], _MOST_PLAIN)):
            yield event
        return
    lines = EventData()
    while not decoder.done:
        left, what = clock.left()
        piece = await reply.piece(left, what)
        payloads = lines.feed(piece) if piece else lines.finish()
        for data in payloads:
            for event in decoder.feed(data):
                yield event
        if payloads and decoder.begun:
            clock.token()
        if not piece:
            return
