"""Batches: calls that wait for a model are scored together, and each gets its own rows back.

A call that finds the model free is scored at once; when the model frees, all that waits and may be scored together is.
The queue is bounded, and what nobody waits for any more leaves it before anything is computed.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

import msgspec

from mainspring.declare.batching import Batching
from mainspring.lazy import lazy
from mainspring.serving.calls import Array, Reason, Rejected
from mainspring.serving.native_thread import Executor

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["Batcher", "Compute", "Meter", "Scored", "level_of"]

Compute = Callable[[Array, Hashable], Array]
"""A matrix (rows, ..) and the group of its call to one score a row; it is called in another thread."""

_DEFAULT_LEVEL = 2
_COMPACT = 64
"""So many calls that have left the queue, and more than those that wait, are taken out of its order at once."""


def level_of(priority: int) -> int:
    """The place of a priority in the queue: 1 is the highest; 0 is the default, which stands with 2."""
    return priority or _DEFAULT_LEVEL


class Scored(msgspec.Struct, frozen=True):
    """What a call was answered.

    Attributes:
        scores: one a row of the call, in its order.
        queue_ns: how long it waited, in nanoseconds.
        compute_ns: how long the batch that it was in was computed.
        rows: the rows of that batch.
    """

    scores: Array
    queue_ns: int
    compute_ns: int
    rows: int


class Meter:
    """Told what happens in a queue; this one forgets it."""

    def executed(self, rows: int, calls: int, input_ns: int, infer_ns: int, output_ns: int) -> None:
        """A batch was computed: its rows and calls, and how long bringing together, computing and parting took."""

    def waited(self, seconds: float, protocol: str) -> None:
        """A call that came by a wire waited that long."""

    def refused(self) -> None:
        """A call was refused: the queue is full."""

    def expired(self) -> None:
        """A call's deadline was over before its answer was there."""

    def left(self) -> None:
        """A caller has left before its answer was there."""


class _Work:
    """A call that waits."""

    __slots__ = ("arrived", "future", "group", "level", "matrix", "protocol", "rows", "size", "taken", "timer")

    def __init__(
        self, matrix: Array, group: Hashable, level: int, future: asyncio.Future[Scored], arrived: float, protocol: str
    ) -> None:
        self.protocol = protocol
        self.matrix: Array | None = matrix
        self.rows = len(matrix)
        self.size = matrix.nbytes
        self.group = group
        self.level = level
        self.future = future
        self.arrived = arrived
        self.taken = False
        self.timer: asyncio.TimerHandle | None = None


_Order = list[tuple[int, int, _Work]]


class Batcher:
    """The queue of one model version. It belongs to one event loop, and every method is called there.

    Args:
        compute: scores a matrix.
        limits: how much is scored together, and how much may wait.
        executor: where it is computed; one batch at a time.
        meter: told what happens.
        clock: seconds that only grow, on which deadlines are given.
    """

    def __init__(
        self,
        compute: Compute,
        limits: Batching,
        executor: Executor,
        meter: Meter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._compute = compute
        self._limits = limits
        self._executor = executor
        self._meter = meter or Meter()
        self._clock = clock
        self._numbers = itertools.count()
        self._order: _Order = []
        self._groups: dict[Hashable, _Order] = {}
        self._left = 0
        self._busy = False
        self._due: asyncio.TimerHandle | None = None
        self._second_per_row = 0.0
        self.waiting_calls = 0
        self.waiting_rows = 0
        self.waiting_bytes = 0

    @property
    def limits(self) -> Batching:
        """How much is scored together, and how much may wait."""
        return self._limits

    @property
    def meter(self) -> Meter:
        """Told what happens."""
        return self._meter

    @property
    def busy(self) -> bool:
        """Whether a batch is being computed."""
        return self._busy

    async def submit(
        self,
        matrix: Array,
        *,
        group: Hashable = None,
        deadline: float | None = None,
        priority: int = 0,
        protocol: str = "",
    ) -> Scored:
        """Score a matrix, with others that wait.

        A caller that is cancelled leaves the queue; what is computed for it already is thrown away.

        Args:
            matrix: (rows, ..); only those of one dtype and trailing shape are brought together.
            group: what else must be equal for that: the parameters of the call.
            deadline: the clock's moment after which nobody waits.
            priority: 1 is the highest, 0 the default, which is between 1 and 3.
            protocol: the wire that it came by, for its counts.

        Raises:
            Rejected: BUSY, the queue is full; EXPIRED, the deadline is over.
            Exception: what the model raises for these rows.
        """
        now = self._clock()
        if deadline is not None and now >= deadline:
            self._meter.expired()
            raise _expired()
        self._admit(matrix)
        loop = asyncio.get_running_loop()
        key = (group, matrix.dtype.str, matrix.shape[1:])
        work = _Work(matrix, key, level_of(priority), loop.create_future(), now, protocol)
        if deadline is not None:
            work.timer = loop.call_later(deadline - now, self._over, work)
        if self._busy or self.waiting_calls or self._limits.delay_us:
            self._enter(work)
            if not self._busy:
                self._next()
        else:  # the model is free, and nobody is before this call or beside it: there is no queue to go through
            work.taken = True
            self._begin([work], loop, now)
        try:
            return await work.future
        except asyncio.CancelledError:
            self._meter.left()
            raise
        finally:
            self._leave(work)

    # -- the queue ----------------------------------------------------------------------------------------------

    def _admit(self, matrix: Array) -> None:
        """Refuse what does not fit into the queue; a call alone is let in whatever its size."""
        full = (
            self.waiting_rows + len(matrix) > self._limits.queue_rows
            or self.waiting_bytes + matrix.nbytes > self._limits.queue_bytes
        )
        if full and self.waiting_calls:
            self._meter.refused()
            later = math.ceil(self.waiting_rows * self._second_per_row) or 1
            raise Rejected(Reason.BUSY, "too many rows wait for the model", retry_after=later)

    def _enter(self, work: _Work) -> None:
        entry = (work.level, next(self._numbers), work)
        heapq.heappush(self._order, entry)
        heapq.heappush(self._groups.setdefault(work.group, []), entry)
        self.waiting_calls += 1
        self.waiting_rows += work.rows
        self.waiting_bytes += work.size

    def _take(self, work: _Work) -> None:
        work.taken = True
        self._left += 1
        self.waiting_calls -= 1
        self.waiting_rows -= work.rows
        self.waiting_bytes -= work.size

    def _leave(self, work: _Work) -> None:
        """A call that has its answer, or wants none any more, is forgotten."""
        if work.timer is not None:
            work.timer.cancel()
        work.matrix = None
        if not work.taken:
            self._take(work)
            self._compact()

    def _compact(self) -> None:
        """Forget the places of calls that have left, when there are many of them."""
        if self._left <= max(_COMPACT, self.waiting_calls):
            return
        self._left = 0
        self._order = [entry for entry in self._order if not entry[2].taken]
        heapq.heapify(self._order)
        groups: dict[Hashable, _Order] = {}
        for entry in self._order:
            groups.setdefault(entry[2].group, []).append(entry)
        for order in groups.values():
            heapq.heapify(order)
        self._groups = groups

    def _over(self, work: _Work) -> None:
        """A deadline has come."""
        if not work.future.done():
            self._meter.expired()
            work.future.set_exception(_expired())

    # -- batches ------------------------------------------------------------------------------------------------

    def _next(self) -> None:
        """Compute what is first in the queue, with all that may be scored together with it."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._busy:
            return
        head = self._head()
        if head is None or self._waits(head):
            return
        self._begin(self._together(head.group), asyncio.get_running_loop(), self._clock())

    def _begin(self, works: Sequence[_Work], loop: asyncio.AbstractEventLoop, now: float) -> None:
        """Hand calls that have left the queue to where they are computed."""
        self._busy = True
        for work in works:
            self._meter.waited(now - work.arrived, work.protocol)
        self._executor.give(_Batch(self._compute, works, loop, now, self._done).carry_out)

    def _head(self) -> _Work | None:
        """The first call of the queue that somebody waits for."""
        while self._order and (self._order[0][2].taken or self._order[0][2].future.done()):
            work = heapq.heappop(self._order)[2]
            if not work.taken:
                self._take(work)  # its caller is about to leave
            self._left -= 1
            self._forget(work.group)
        return self._order[0][2] if self._order else None

    def _forget(self, key: Hashable) -> None:
        """Take calls that have left from the head of a group, and the group when nothing is left of it."""
        order = self._groups.get(key)
        while order and order[0][2].taken:
            heapq.heappop(order)
        if order is not None and not order:
            del self._groups[key]

    def _waits(self, head: _Work) -> bool:
        """Whether the first call still waits for others; looks again when its time is over."""
        if not self._limits.delay_us:
            return False
        left = head.arrived + self._limits.delay_us / 1e6 - self._clock()
        if left <= 0 or self._rows_beside(head.group) >= self._limits.rows:
            return False
        self._due = asyncio.get_running_loop().call_later(left, self._next)
        return True

    def _rows_beside(self, group: Hashable) -> int:
        return sum(work.rows for _, _, work in self._groups[group] if not work.taken and not work.future.done())

    def _together(self, group: Hashable) -> list[_Work]:
        """The calls of a group in their order, as many as are scored together: at least one."""
        order = self._groups[group]
        works: list[_Work] = []
        rows = 0
        while order:
            work = order[0][2]
            if work.taken or work.future.done():
                heapq.heappop(order)
                if not work.taken:
                    self._take(work)
                continue
            if works and rows + work.rows > self._limits.rows:
                break
            heapq.heappop(order)
            self._take(work)
            works.append(work)
            rows += work.rows
        if not order:
            del self._groups[group]
        self._compact()
        return works

    def _done(self, batch: _Batch) -> None:
        """Back on the loop: each call gets its own, and the model is free."""
        self._busy = False
        for work, outcome in zip(batch.works, batch.outcomes, strict=True):
            if work.future.done():
                continue
            if isinstance(outcome, BaseException):
                work.future.set_exception(outcome)
            elif outcome is None:
                self._over(work)
            else:
                waited = round((batch.began - work.arrived) * 1e9)
                work.future.set_result(Scored(outcome, waited, batch.infer_ns, batch.rows))
        if batch.rows:
            self._second_per_row = batch.infer_ns / 1e9 / batch.rows
            self._meter.executed(batch.rows, batch.calls, batch.input_ns, batch.infer_ns, batch.output_ns)
        if self.waiting_calls:
            self._next()


class _Batch:
    """Calls that are scored together; `carry_out` runs in another thread."""

    __slots__ = (
        "_compute",
        "_done",
        "_loop",
        "began",
        "calls",
        "infer_ns",
        "input_ns",
        "outcomes",
        "output_ns",
        "rows",
        "works",
    )

    def __init__(
        self,
        compute: Compute,
        works: Sequence[_Work],
        loop: asyncio.AbstractEventLoop,
        began: float,
        done: Callable[[_Batch], None],
    ) -> None:
        self._compute = compute
        self._loop = loop
        self._done = done
        self.works = works
        self.began = began
        self.calls = self.rows = self.input_ns = self.infer_ns = self.output_ns = 0
        self.outcomes: list[Array | BaseException | None] = [None] * len(works)

    def carry_out(self) -> None:
        """Score the calls that somebody still waits for, together; when that fails, each alone."""
        live = [(place, matrix) for place, work in enumerate(self.works) if (matrix := self._wanted(work)) is not None]
        if live:
            try:
                self._score(live)
            except BaseException as error:  # the user's model may raise anything, and the thread goes on
                if len(live) == 1:
                    self.outcomes[live[0][0]] = _plain(error)
                else:
                    self._score_alone(live)
        try:
            self._loop.call_soon_threadsafe(self._done, self)
        except RuntimeError:  # the loop is closed: nobody waits any more
            return

    def _wanted(self, work: _Work) -> Array | None:
        return None if work.future.done() else work.matrix

    def _score(self, live: Sequence[tuple[int, Array]]) -> None:
        begun = time.perf_counter_ns()
        matrices = [matrix for _, matrix in live]
        whole = matrices[0] if len(matrices) == 1 else np.concatenate(matrices)
        merged = time.perf_counter_ns()
        scores = self._computed(whole, self.works[live[0][0]].group)
        computed = time.perf_counter_ns()
        at = 0
        for place, matrix in live:
            self.outcomes[place] = scores[at : at + len(matrix)]
            at += len(matrix)
        self.calls, self.rows = len(live), len(whole)
        self.input_ns, self.infer_ns = merged - begun, computed - merged
        self.output_ns = time.perf_counter_ns() - computed

    def _score_alone(self, live: Sequence[tuple[int, Array]]) -> None:
        """One bad caller fails alone."""
        begun = time.perf_counter_ns()
        for place, matrix in live:
            if self._wanted(self.works[place]) is None:
                continue
            try:
                self.outcomes[place] = self._computed(matrix, self.works[place].group)
                self.rows += len(matrix)
                self.calls += 1
            except BaseException as error:
                self.outcomes[place] = _plain(error)
        self.infer_ns = time.perf_counter_ns() - begun

    def _computed(self, matrix: Array, key: Hashable) -> Array:
        group = key[0]  # type: ignore[index]
        scores = self._compute(matrix, group)
        if len(scores) != len(matrix):
            raise RuntimeError(f"the model gave {len(scores)} scores for {len(matrix)} rows")
        return scores


def _plain(error: BaseException) -> BaseException:
    """An error that may go through a future: what would end the process or the task is the model's fault here."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return RuntimeError(f"the model raised {type(error).__name__}")


def _expired() -> Rejected:
    return Rejected(Reason.EXPIRED, "the deadline of the call is over")
