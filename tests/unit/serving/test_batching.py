"""Batches: every caller gets its own, whoever waited beside it, left, or sent what the model does not take."""

from __future__ import annotations

import asyncio
import concurrent.futures
import random
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clockwork import FakeLoop, SlowExecutor, run
from mainspring.declare.batching import Batching
from mainspring.serving.batching import Batcher, Meter, Scored
from mainspring.serving.calls import Array, Reason, Rejected
from mainspring.serving.native_thread import NativeThread

BAD = -1.0
"""A value that the model refuses."""


class Counts(Meter):
    """Remembers what happened."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, int]] = []
        self.said: list[str] = []

    def executed(self, rows: int, calls: int, input_ns: int, infer_ns: int, output_ns: int) -> None:
        self.batches.append((rows, calls))

    def refused(self) -> None:
        self.said.append("refused")

    def expired(self) -> None:
        self.said.append("expired")

    def left(self) -> None:
        self.said.append("left")


@dataclass
class Model:
    """Adds a row up; what it was asked is remembered."""

    asked: list[tuple[int, Hashable, str, tuple[int, ...]]] = field(default_factory=list)

    def __call__(self, matrix: Array, group: Hashable) -> Array:
        self.asked.append((len(matrix), group, matrix.dtype.str, matrix.shape[1:]))
        flat = matrix.reshape(len(matrix), -1)
        if (flat == BAD).any():
            raise ValueError("the model does not take this")
        return score(flat, group)


def score(flat: Array, group: Hashable) -> Array:
    return flat.sum(axis=1, dtype=np.float64) + float(hash(group) % 97)


@dataclass(frozen=True)
class Caller:
    """What one caller sends, and when; moments in milliseconds."""

    rows: int
    shape: tuple[int, ...]
    dtype: str
    group: str
    arrives: int
    patience: int | None
    leaves: int | None
    priority: int
    bad: bool

    def matrix(self, number: int) -> Array:
        values = np.full((self.rows, *self.shape), 1, self.dtype)
        values.reshape(self.rows, -1)[:, 0] = [100 * number + row for row in range(self.rows)]
        if self.bad:
            values.reshape(self.rows, -1)[-1, -1] = BAD
        return values


callers = st.builds(
    Caller,
    rows=st.integers(1, 5),
    shape=st.sampled_from([(2,), (3,), (2, 2)]),
    dtype=st.sampled_from(["f4", "f8", "i4"]),
    group=st.sampled_from(["", "a", "b"]),
    arrives=st.integers(0, 20),
    patience=st.none() | st.integers(1, 25),
    leaves=st.none() | st.integers(1, 25),
    priority=st.integers(0, 4),
    bad=st.sampled_from([False] * 7 + [True]),
)


@given(st.lists(callers, min_size=1, max_size=64), st.integers(1, 12), st.integers(0, 3), st.integers(0, 2**32))
def test_each_caller_gets_its_own(sent: list[Caller], most: int, delay_ms: int, seed: int) -> None:
    """Against what each would have got alone; shapes, dtypes, parameters, deadlines, leavings and faults are random."""
    model, counts = Model(), Counts()
    limits = Batching(most, delay=f"{delay_ms}ms" if delay_ms else None)
    order = random.Random(seed).sample(range(len(sent)), len(sent))

    async def main(loop: FakeLoop) -> list[Any]:
        batcher = Batcher(model, limits, SlowExecutor(loop, 0.004), counts, loop.time)

        async def call(number: int) -> Scored:
            one = sent[number]
            await asyncio.sleep(one.arrives / 1e3)
            deadline = None if one.patience is None else loop.time() + one.patience / 1e3
            answer = await batcher.submit(one.matrix(number), group=one.group, deadline=deadline, priority=one.priority)
            assert one.patience is None or loop.time() <= deadline + 1e-9
            return answer

        tasks = {number: loop.create_task(call(number)) for number in order}
        for number, task in tasks.items():
            if (leaves := sent[number].leaves) is not None:
                loop.call_later((sent[number].arrives + leaves) / 1e3, task.cancel)
        found = await asyncio.gather(*(tasks[number] for number in range(len(sent))), return_exceptions=True)
        assert (batcher.waiting_calls, batcher.waiting_rows, batcher.waiting_bytes) == (0, 0, 0)
        await asyncio.sleep(1)
        assert not batcher.busy
        return found

    for number, (one, answer) in enumerate(zip(sent, run(main), strict=True)):
        if isinstance(answer, asyncio.CancelledError):
            assert one.leaves is not None
        elif isinstance(answer, Rejected):
            assert answer.reason is Reason.EXPIRED
            assert one.patience is not None
        elif isinstance(answer, ValueError):
            assert one.bad
        else:
            assert not one.bad
            flat = one.matrix(number).reshape(one.rows, -1)
            assert answer.scores.tolist() == score(flat, one.group).tolist()
    assert all(rows <= most or calls == 1 for rows, calls in counts.batches)


@given(st.lists(st.integers(1, 40), min_size=2, max_size=60), st.integers(4, 64), st.integers(1, 5))
def test_the_queue_is_bounded_and_refusals_say_when(sizes: list[int], most_rows: int, width: int) -> None:
    counts = Counts()
    limits = Batching(8, queue_rows=most_rows, queue_bytes=most_rows * 8 * 2)

    async def main(loop: FakeLoop) -> list[Any]:
        batcher = Batcher(Model(), limits, SlowExecutor(loop, 0.01), counts, loop.time)

        async def call(rows: int) -> Scored:
            answer = await batcher.submit(np.ones((rows, width)))
            assert batcher.waiting_rows <= max(most_rows, *sizes)
            return answer

        tasks = []
        for rows in sizes:
            tasks.append(loop.create_task(call(rows)))
            await asyncio.sleep(0)
            waits = batcher.waiting_calls
            assert waits <= 1 or batcher.waiting_rows <= most_rows
            assert waits <= 1 or batcher.waiting_bytes <= limits.queue_bytes
        return await asyncio.gather(*tasks, return_exceptions=True)

    found = run(main)
    assert not isinstance(found[0], BaseException)  # whoever finds the queue empty is let in, however large
    for rows, answer in zip(sizes, found, strict=True):
        if isinstance(answer, Rejected):
            assert answer.reason is Reason.BUSY
            assert answer.retry_after is not None
            assert answer.retry_after >= 1
        else:
            assert len(answer.scores) == rows
    assert counts.said.count("refused") == sum(isinstance(answer, Rejected) for answer in found)


def scene(
    body: Callable[[FakeLoop, Batcher, Model, Counts, SlowExecutor], Any], limits: Batching | None = None
) -> tuple[Model, Counts]:
    model, counts = Model(), Counts()

    async def main(loop: FakeLoop) -> None:
        executor = SlowExecutor(loop, 0.01)
        batcher = Batcher(model, limits or Batching(), executor, counts, loop.time)
        await body(loop, batcher, model, counts, executor)

    run(main)
    return model, counts


def ones(rows: int = 1, dtype: str = "f8") -> Array:
    return np.ones((rows, 2), dtype)


def test_what_waits_while_the_model_computes_is_one_batch() -> None:
    async def body(loop: FakeLoop, batcher: Batcher, model: Model, counts: Counts, executor: SlowExecutor) -> None:
        first = loop.create_task(batcher.submit(ones()))
        await asyncio.sleep(0.001)
        others = [loop.create_task(batcher.submit(ones(rows))) for rows in (1, 2, 3)]
        answers = await asyncio.gather(first, *others)
        assert loop.time() == pytest.approx(0.02)
        assert [answer.rows for answer in answers] == [1, 6, 6, 6]
        assert [round(answer.queue_ns / 1e6) for answer in answers] == [0, 9, 9, 9]

    _, counts = scene(body)
    assert counts.batches == [(1, 1), (6, 3)]


def test_nothing_waits_while_the_model_is_free() -> None:
    async def body(loop: FakeLoop, batcher: Batcher, model: Model, counts: Counts, executor: SlowExecutor) -> None:
        for number in range(3):
            await batcher.submit(ones())
            assert loop.time() == pytest.approx(0.01 * (number + 1))

    scene(body)


def test_a_delay_gathers_callers_until_it_is_over_or_the_batch_is_full() -> None:
    async def body(loop: FakeLoop, batcher: Batcher, model: Model, counts: Counts, executor: SlowExecutor) -> None:
        early = loop.create_task(batcher.submit(ones()))
        await asyncio.sleep(0.004)
        late = loop.create_task(batcher.submit(ones()))
        await asyncio.gather(early, late)
        assert loop.time() == pytest.approx(0.015)  # 5 ms of waiting, 10 ms of computing
        await asyncio.gather(*(batcher.submit(ones()) for _ in range(4)))
        assert loop.time() == pytest.approx(0.025)  # full at once

    _, counts = scene(body, Batching(4, delay="5ms"))
    assert counts.batches == [(2, 2), (4, 4)]


def test_the_highest_priority_goes_first_and_the_default_stands_between() -> None:
    order: list[int] = []

    async def body(loop: FakeLoop, batcher: Batcher, model: Model, counts: Counts, executor: SlowExecutor) -> None:
        async def call(priority: int) -> None:
            await batcher.submit(ones(), priority=priority)
            order.append(priority)

        await asyncio.gather(*(call(priority) for priority in (0, 3, 0, 1, 2, 1)))

    scene(body, Batching(1))
    assert order == [0, 1, 1, 0, 2, 3]


def test_expired_and_abandoned_work_is_never_computed() -> None:
    async def body(loop: FakeLoop, batcher: Batcher, model: Model, counts: Counts, executor: SlowExecutor) -> None:
        first = loop.create_task(batcher.submit(ones()))
        await asyncio.sleep(0.001)
        expiring = loop.create_task(batcher.submit(ones(7), deadline=loop.time() + 0.002))
        leaving = loop.create_task(batcher.submit(ones(9)))
        staying = loop.create_task(batcher.submit(ones(2)))
        await asyncio.sleep(0.001)
        leaving.cancel()
        with pytest.raises(Rejected) as caught:
            await expiring
        assert caught.value.reason is Reason.EXPIRED
        assert loop.time() == pytest.approx(0.003)  # at its deadline, not when the model frees
        assert batcher.waiting_rows == 2
        assert (await first).rows == 1
        assert (await staying).rows == 2
        with pytest.raises(Rejected):
            await batcher.submit(ones(), deadline=loop.time())

    model, counts = scene(body)
    assert [asked[0] for asked in model.asked] == [1, 2]
    assert counts.said == ["left", "expired", "expired"]


def test_a_deadline_also_holds_while_the_model_computes() -> None:
    async def body(loop: FakeLoop, batcher: Batcher, model: Model, counts: Counts, executor: SlowExecutor) -> None:
        with pytest.raises(Rejected):
            await batcher.submit(ones(), deadline=0.004)
        assert loop.time() == pytest.approx(0.004)
        assert (await batcher.submit(ones(3))).rows == 3

    scene(body)


def test_one_bad_caller_fails_alone() -> None:
    async def body(loop: FakeLoop, batcher: Batcher, model: Model, counts: Counts, executor: SlowExecutor) -> None:
        first = loop.create_task(batcher.submit(ones()))
        await asyncio.sleep(0)
        tasks = [batcher.submit(ones() * BAD if number == 2 else ones() * number) for number in range(5)]
        found = await asyncio.gather(*tasks, return_exceptions=True)
        await first
        assert isinstance(found.pop(2), ValueError)
        plain = float(hash(None) % 97)
        assert [answer.scores.tolist() for answer in found] == [[2.0 * n + plain] for n in (0, 1, 3, 4)]

    model, counts = scene(body)
    assert [asked[0] for asked in model.asked] == [1, 5, 1, 1, 1, 1, 1]
    assert counts.batches == [(1, 1), (4, 4)]


@pytest.mark.parametrize("raised", [SystemExit(3), StopIteration(), KeyboardInterrupt(), MemoryError("no")])
def test_whatever_a_model_raises_is_its_callers_and_the_queue_goes_on(raised: BaseException) -> None:
    raising = True

    def compute(matrix: Array, group: Hashable) -> Array:
        if raising:
            raise raised
        return matrix[:, 0]

    async def main(loop: FakeLoop) -> None:
        nonlocal raising
        batcher = Batcher(compute, Batching(), SlowExecutor(loop, 0.01), clock=loop.time)
        with pytest.raises((RuntimeError, MemoryError)):
            await batcher.submit(ones())
        raising = False
        assert (await batcher.submit(ones())).scores.tolist() == [1.0]

    run(main)


def test_a_model_that_gives_too_few_scores_answers_nobody_with_anothers() -> None:
    async def main(loop: FakeLoop) -> None:
        batcher = Batcher(lambda matrix, group: matrix[:-1, 0], Batching(), SlowExecutor(loop, 0.01), clock=loop.time)
        for answer in await asyncio.gather(*(batcher.submit(ones(2)) for _ in range(3)), return_exceptions=True):
            assert isinstance(answer, RuntimeError)

    run(main)


def test_callers_that_come_and_leave_pile_up_nowhere() -> None:
    async def body(loop: FakeLoop, batcher: Batcher, model: Model, counts: Counts, executor: SlowExecutor) -> None:
        first = loop.create_task(batcher.submit(ones(), group="first"))
        await asyncio.sleep(0)
        for number in range(2000):  # all of it while the model computes the first
            task = loop.create_task(batcher.submit(ones(), group=number))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert len(batcher._order) < 200
        assert len(batcher._groups) < 200
        await first
        await batcher.submit(ones())
        assert len(batcher._groups) < 200

    scene(body)


def test_sixty_four_callers_at_once_on_a_native_thread() -> None:
    """The same with a real thread and a real loop: rows split exactly, several callers a batch, the loop never held."""
    counts, beside = Counts(), []
    on = threading.get_ident()

    def compute(matrix: Array, group: Hashable) -> Array:
        assert threading.get_ident() != on
        threading.Event().wait(0.002)
        return matrix[:, 0] * 2

    async def main() -> None:
        batcher = Batcher(compute, Batching(), NativeThread("model"), counts)

        async def call(number: int) -> None:
            for turn in range(5):
                rows = 1 + (number + turn) % 5
                mine = np.arange(rows) + 1000.0 * number + 10 * turn
                answer = await batcher.submit(np.stack([mine, mine], axis=1))
                assert answer.scores.tolist() == (mine * 2).tolist()
                beside.append(answer.rows)

        await asyncio.gather(*(call(number) for number in range(64)))

    asyncio.run(main())
    assert len(beside) == 320
    assert len(counts.batches) < 320
    assert sum(calls for _, calls in counts.batches) == 320


def test_an_idle_thread_ends_and_begins_again() -> None:
    thread, done = NativeThread("model", idle_s=0.01), threading.Event()
    thread.give(done.set)
    assert done.wait(60)
    patience = threading.Event()
    for _ in range(6000):
        if not thread.alive:
            break
        patience.wait(0.01)
    assert not thread.alive
    done.clear()
    thread.give(done.set)
    assert done.wait(60)


class Counting(asyncio.SelectorEventLoop):
    """A loop that counts what it is asked to call: by itself, by other threads, and later."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[str, int] = {"soon": 0, "threads": 0, "later": 0}

    def call_soon(self, *args: Any, **more: Any) -> Any:
        self.asked["soon"] += 1
        return super().call_soon(*args, **more)

    def call_soon_threadsafe(self, *args: Any, **more: Any) -> Any:
        self.asked["threads"] += 1
        return super().call_soon_threadsafe(*args, **more)

    def call_at(self, *args: Any, **more: Any) -> Any:
        self.asked["later"] += 1
        return super().call_at(*args, **more)


class OneThread(concurrent.futures.ThreadPoolExecutor):
    """A thread that counts what it is given."""

    given = 0

    def submit(self, *args: Any, **more: Any) -> Any:
        self.given += 1
        return super().submit(*args, **more)

    def give(self, task: Callable[[], None]) -> None:
        self.submit(task)


def test_a_lone_call_goes_to_the_thread_and_back_and_nowhere_else() -> None:
    """The hops of a call that meets nobody, beside those of a thread without a batcher: there are none besides."""
    calls = 50

    def counted(asked: Callable[[Counting, OneThread], Callable[[], Any]]) -> tuple[int, dict[str, int]]:
        with OneThread(1) as thread:
            loop = Counting()

            async def main() -> tuple[int, dict[str, int]]:
                one = asked(loop, thread)
                before, given = dict(loop.asked), thread.given
                for _ in range(calls):
                    await one()
                return thread.given - given, {name: loop.asked[name] - before[name] for name in before}

            try:
                return loop.run_until_complete(main())
            finally:
                loop.close()

    def batched(loop: Counting, thread: OneThread, **more: Any) -> Callable[[], Any]:
        batcher = Batcher(Model(), Batching(), thread)
        return lambda: batcher.submit(ones(), **more)

    handed, bare = counted(lambda loop, thread: lambda: loop.run_in_executor(thread, Model(), ones(), None))
    assert (handed, bare["threads"], bare["later"]) == (calls, calls, 0)
    assert counted(batched) == (calls, {"soon": calls, "threads": calls, "later": 0})
    assert bare["soon"] >= calls
    late = counted(lambda loop, thread: batched(loop, thread, deadline=time.monotonic() + 60))
    assert late == (calls, {"soon": calls, "threads": calls, "later": calls}), "a deadline is one timer"
