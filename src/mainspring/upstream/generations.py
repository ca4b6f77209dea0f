"""What an engine has under way: so that it can be counted, cancelled and drained."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType

from mainspring.ports.llm import Error

__all__ = ["Generations", "Ticket"]


class Ticket:
    """One request under way; a context manager that ends with it.

    Attributes:
        cancelled: whether it has been told to stop.
        stop: called once when it is.
    """

    __slots__ = ("_end", "cancelled", "id", "stop")

    def __init__(self, id: str, end: Callable[[Ticket], None]) -> None:
        self.id = id
        self.cancelled = False
        self.stop: Callable[[], None] | None = None
        self._end = end

    def cancel(self) -> None:
        """Stop; once."""
        if not self.cancelled:
            self.cancelled = True
            if self.stop is not None:
                self.stop()

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end(self)


class Generations:
    """The requests of an engine that are under way, `most` at once.

    Attributes:
        draining: whether nothing new is taken.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[str, list[Ticket]] = {}
        self._count = 0
        self._empty: asyncio.Event | None = None
        self.draining = False

    def __len__(self) -> int:
        return self._count

    def refusal(self) -> Error | None:
        """Why nothing more is taken now, or None."""
        if self.draining:
            return Error("overloaded", "the engine is stopping", retryable=True)
        if self._count >= self._most:
            return Error("overloaded", f"{self._most} requests are under way", retryable=True, retry_after=1.0)
        return None

    def begin(self, id: str) -> Ticket:
        """A ticket for a request; use it as a context manager."""
        ticket = Ticket(id, self._end)
        self._open.setdefault(id, []).append(ticket)
        self._count += 1
        return ticket

    def _end(self, ticket: Ticket) -> None:
        mine = self._open.get(ticket.id, [])
        if ticket in mine:
            mine.remove(ticket)
            self._count -= 1
        if not mine:
            self._open.pop(ticket.id, None)
        if not self._count and self._empty is not None:
            self._empty.set()

    def cancel(self, id: str) -> None:
        """Stop the requests of that id; nothing when there are none."""
        for ticket in list(self._open.get(id, ())):
            ticket.cancel()

    def cancel_all(self) -> None:
        """Stop everything."""
        for id in list(self._open):
            self.cancel(id)

    async def drain(self, deadline: float) -> None:
        """Take nothing new; wait `deadline` seconds for what is under way, then cancel it and wait for its end."""
        self.draining = True
        if not self._count:
            return
        self._empty = asyncio.Event()
        try:
            await asyncio.wait_for(self._empty.wait(), max(0.0, deadline))
        except TimeoutError:
            self.cancel_all()
            # A reader that has gone away without closing its iterator is not waited for.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), 1.0)
