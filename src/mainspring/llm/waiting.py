"""Waiting with limits: silence on a stream, and turns at a busy target."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Gate", "Silence"]


class Silence:
    """Cancels the wait for a stream's next event when it takes too long; one timer a stream, not one an event.

    Attributes:
        expired: whether the wait was cancelled from here; whoever catches the cancellation asks for it.
    """

    __slots__ = ("_deadline", "_handle", "_loop", "_planned", "_task", "_until", "_waiting", "expired")

    def __init__(self, total_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + total_s
        self._deadline = 0.0
        self._planned = 0.0
        self._waiting = False
        self._task: asyncio.Task[object] | None = None
        self._handle: asyncio.TimerHandle | None = None
        self.expired = False

    def begin(self, seconds: float) -> None:
        """The wait begins; it may take so long, and no longer than is left in all."""
        deadline = self._loop.time() + seconds
        self._deadline = deadline if deadline < self._until else self._until
        self._waiting = True
        if self._handle is None or self._deadline < self._planned:
            self._plan(self._deadline)

    def _plan(self, at: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._planned = at
        self._handle = self._loop.call_at(at, self._look)

    def here(self) -> None:
        """From now on the running task is the one that waits."""
        self._task = asyncio.current_task()

    def end(self) -> None:
        """The event is there."""
        self._waiting = False

    def _look(self) -> None:
        if self._waiting and self._loop.time() >= self._deadline:
            self._handle = None
            self.expired = True
            if self._task is not None:
                self._task.cancel()
            return
        # Not waiting: the consumer is slow, which is no fault of the engine's. Look again later.
        again = self._deadline if self._waiting else max(self._deadline, self._loop.time() + 1.0)
        self._plan(again)

    def caught(self) -> bool:
        """Whether a cancellation that was just caught came from here; takes it back if so."""
        if self.expired and self._task is not None:
            self.expired = False
            self._task.uncancel()
            return True
        return False

    def stop(self) -> None:
        """No more waits."""
        self._waiting = False
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None


class Gate:
    """So many at once; the others wait in the order in which they came, up to a number.

    Args:
        most: requests at once.
        queue: requests that may wait.
    """

    __slots__ = ("_most", "_queue", "_waiting", "inside")

    def __init__(self, most: int, queue: int) -> None:
        self._most = most
        self._queue = queue
        self._waiting: deque[asyncio.Future[None]] = deque()
        self.inside = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    async def enter(self) -> bool:
        """Come in when there is room; False at once when too many wait already."""
        if self.inside < self._most:
            self.inside += 1
            return True
        if len(self._waiting) >= self._queue:
            return False
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn  # who leaves hands the place over, so that `inside` stays as it is
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            else:
                self._waiting.remove(turn)
            raise
        return True

    def leave(self) -> None:
        """Go, and let the next one in."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.inside -= 1
