"""Waiting with limits: silence on a stream, and turns at a busy target."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["NEVER", "Gate", "Silence", "Sweep"]


_TICK_S = 0.05


class Sweep:
    """One timer for all waits of a gateway, so that none costs a timer of its own; it runs while there are any."""

    __slots__ = ("_handle", "_loop", "waits")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._handle: asyncio.TimerHandle | None = None
        self.waits: dict[Silence, None] = {}

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """There is a wait: look after it."""
        if self._handle is None or self._loop is not loop:
            self._loop = loop
            self._handle = loop.call_later(_TICK_S, self._look)

    def _look(self) -> None:
        assert self._loop is not None
        now = self._loop.time()
        for wait in [wait for wait in self.waits if wait.deadline <= now]:
            wait.expire()
        self._handle = self._loop.call_later(_TICK_S, self._look) if self.waits else None


NEVER = float("inf")
"""When nothing is waited for."""


class Silence:
    """Cancels the wait for a stream's next event when it takes too long, to within a twentieth of a second.

    Only waits for the engine count: a consumer may take its time.

    Args:
        total_s: seconds for all waits together.
        sweep: looks after the waits.

    Attributes:
        deadline: when the wait is too long, on the loop's clock; never, when nothing is waited for.
        expired: whether the wait was cancelled from here; whoever catches the cancellation asks for it.
    """

    __slots__ = ("_loop", "_now", "_sweep", "_task", "_until", "deadline", "expired")

    def __init__(self, total_s: float, sweep: Sweep) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._now = loop.time
        self._until = self._now() + total_s
        self._task: asyncio.Task[object] | None = None
        self._sweep = sweep
        self.deadline = NEVER
        self.expired = False

    def here(self) -> None:
        """From now on the running task is the one that waits."""
        self._task = asyncio.current_task(self._loop)
        self._sweep.waits[self] = None
        self._sweep.begin(self._loop)

    def begin(self, seconds: float) -> None:
        """The wait begins; it may take so long, and no longer than is left in all."""
        deadline = self._now() + seconds
        self.deadline = deadline if deadline < self._until else self._until

    def expire(self) -> None:
        """The wait is too long: cancel it."""
        self.deadline = NEVER
        self.expired = True
        if self._task is not None:
            self._task.cancel()

    def caught(self) -> bool:
        """Whether a cancellation that was just caught came from here; takes it back if so."""
        if self.expired and self._task is not None:
            self.expired = False
            self._task.uncancel()
            return True
        return False

    def stop(self) -> None:
        """No more waits."""
        self.deadline = NEVER
        self._sweep.waits.pop(self, None)


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
