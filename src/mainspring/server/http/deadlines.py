"""Time limits of requests, with one timer for all of them: most are answered before anybody has to look."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

__all__ = ["Deadlines", "TimeIsUp"]

T = TypeVar("T")

_TICK_S = 0.25


class TimeIsUp(Exception):  # noqa: N818 - an outcome
    """It took too long, and was cancelled."""


class _Deadline:
    """Cancels the task that makes it when its time is over."""

    __slots__ = ("at", "expired", "task")

    def __init__(self, at: float, task: asyncio.Task[Any] | None) -> None:
        self.at = at
        self.task = task
        self.expired = False


class Deadlines:
    """The time limits of one listener; one timer looks after them, and runs while there are any.

    A limit is kept to within a quarter of a second, or a tenth of itself where that is less.
    """

    __slots__ = ("_loop", "_running", "_tick_s", "_ticking")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: dict[_Deadline, None] = {}
        self._ticking = False
        self._tick_s = _TICK_S

    async def within(self, seconds: float, work: Awaitable[T]) -> T:
        """What somebody gives, if it gives it in time.

        Args:
            seconds: how long it may take.
            work: what it waits for.

        Raises:
            TimeIsUp: it took longer, and was cancelled.
        """
        loop = asyncio.get_running_loop()
        deadline = _Deadline(loop.time() + seconds, asyncio.current_task(loop))
        self._running[deadline] = None
        if not self._ticking or self._loop is not loop:
            self._loop, self._ticking = loop, True
            self._tick_s = min(_TICK_S, seconds / 10)
            loop.call_later(self._tick_s, self._tick)
        try:
            return await work
        except asyncio.CancelledError:
            if deadline.expired and deadline.task is not None and deadline.task.uncancel() == 0:
                raise TimeIsUp from None
            raise
        finally:
            self._running.pop(deadline, None)

    def _tick(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        for deadline in [deadline for deadline in self._running if deadline.at <= now]:
            del self._running[deadline]
            deadline.expired = True
            if deadline.task is not None:
                deadline.task.cancel()
        self._ticking = bool(self._running)
        if self._ticking:
            self._loop.call_later(self._tick_s, self._tick)
