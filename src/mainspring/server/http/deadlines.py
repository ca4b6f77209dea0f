"""Time limits of requests, with one timer for all of them: most are answered before anybody has to look."""

from __future__ import annotations

import asyncio
from typing import Any

__all__ = ["Deadline", "Deadlines"]

_TICK_S = 0.25


class Deadline:
    """Cancels the task that makes it when its time is over."""

    __slots__ = ("_among", "_expired", "_task", "at")

    def __init__(self, at: float, task: asyncio.Task[Any] | None, among: dict[Deadline, None]) -> None:
        self.at = at
        self._task = task
        self._among = among
        self._expired = False
        among[self] = None

    def expire(self) -> None:
        """The time is over."""
        self._among.pop(self, None)
        self._expired = True
        if self._task is not None:
            self._task.cancel()

    def passed(self) -> bool:
        """Whether a cancellation that was just caught came from here, and nowhere else; takes it back if so."""
        return self._expired and self._task is not None and self._task.uncancel() == 0

    def end(self) -> None:
        """It was in time; later calls do nothing."""
        self._among.pop(self, None)


class Deadlines:
    """The time limits of one listener; one timer looks after them, and runs while there are any.

    A limit is kept to within a quarter of a second, or a tenth of itself where that is less.
    """

    __slots__ = ("_loop", "_running", "_tick_s", "_ticking")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: dict[Deadline, None] = {}
        self._ticking = False
        self._tick_s = _TICK_S

    def begin(self, seconds: float, task: asyncio.Task[Any] | None = None) -> Deadline:
        """Limit the time of the task that calls this.

        Args:
            seconds: how long it may take from now on.
            task: this task, where it is at hand.
        """
        loop = asyncio.get_running_loop()
        if not self._ticking or self._loop is not loop:
            self._loop, self._ticking = loop, True
            self._tick_s = min(_TICK_S, seconds / 10)
            loop.call_later(self._tick_s, self._tick)
        return Deadline(loop.time() + seconds, task or asyncio.current_task(loop), self._running)

    def _tick(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        for deadline in [deadline for deadline in self._running if deadline.at <= now]:
            deadline.expire()
        self._ticking = bool(self._running)
        if self._ticking:
            self._loop.call_later(self._tick_s, self._tick)
