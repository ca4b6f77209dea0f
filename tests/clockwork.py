"""An event loop whose clock goes on only when nothing is left to do: timers and races without waiting or luck."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Jumping(selectors.SelectSelector):
    """Instead of waiting it moves the clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("nothing will ever happen again")
        self.now += max(timeout, 0.0)
        return super().select(0)


class FakeLoop(asyncio.SelectorEventLoop):
    """A loop on a clock of its own, which begins at 0."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._jumping.now


class SlowExecutor:
    """Computes on the loop's own thread, each task so many seconds after it was given, and one at a time."""

    def __init__(self, loop: FakeLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self.given = 0

    def give(self, task: Callable[[], None]) -> None:
        self.given += 1
        self._loop.call_later(self._seconds, task)


def run(main: Callable[[FakeLoop], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on a loop of its own."""
    loop = FakeLoop()
    try:
        return loop.run_until_complete(main(loop))
    finally:
        loop.close()
