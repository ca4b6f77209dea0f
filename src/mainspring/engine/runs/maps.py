"""Maps: expanded while they run, a window at a time, each item under a key of its own content."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from mainspring.engine.runs.kept import KeptResults
from mainspring.engine.runs.keys import Keys
from mainspring.engine.runs.ledger import Ledger
from mainspring.engine.runs.nodes import Job, Mapped, Node, Queue
from mainspring.engine.runs.progress import Happened
from mainspring.engine.runs.report import StepResult
from mainspring.engine.runs.rows import row_of, winner
from mainspring.engine.task import Task
from mainspring.engine.values import MANIFEST, load, read_manifest, save_manifest
from mainspring.engine.wire import StoredResult
from mainspring.errors import MainspringError, UserCodeError
from mainspring.ports.objects import Objects

__all__ = ["MapSteps", "gather"]

_WINDOW = 64


def gather(**parts: object) -> list[object]:
    """A list of results; the driver makes it out of their digests, without loading any of them."""
    return list(parts.values())


class Run(Protocol):
    """What a map needs of the run that it is a part of."""

    keys: Keys
    ledger: Ledger
    objects: Objects
    kept: KeptResults
    queue: Queue
    stopping: bool

    def need(self, task: Task) -> dict[str, float]:
        """What an attempt of a task occupies."""

    def may_reuse(self, job: Job) -> bool:
        """Whether a kept result may stand for the job."""

    def note_hit(self, job: Job) -> None:
        """Record that a kept result was used."""

    def guarded(self, node: Node, act: Callable[[Node], None]) -> None:
        """Do something for a step; what goes wrong with the step itself fails the step."""

    def settle_with(self, node: Node, result: StoredResult, status: StepResult, seconds: float) -> None:
        """A step has its result."""

    def fail(self, node: Node, error: MainspringError) -> None:
        """A step has failed for good."""

    def tell(self, what: Happened, job: Job, **more: object) -> None:
        """Tell who watches."""


class MapSteps:
    """The part of a run that concerns maps."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def begin(self, node: Node) -> None:
        """Record that a map begins, and look at its first items."""
        items = self._items(node)
        node.mapped = Mapped(items, [None] * len(items))
        ledger = self._run.ledger
        ledger.start(row_of(ledger.run_id, _whole(node), "running", node.started_us, detail=node.keyed.detail))
        self._feed(node)

    def gather(self, node: Node) -> None:
        """Make a list of the results of other steps, as `gather` stands for."""
        ledger = self._run.ledger
        result = save_manifest(self._run.kept.bare(list(node.inputs.values())), self._run.objects)
        ledger.note(row_of(ledger.run_id, _whole(node), "ok", node.started_us, ledger.clock()))
        self._run.settle_with(node, result, "ok", 0.0)

    def _items(self, node: Node) -> list[object]:
        over = node.task.over or ""
        source = node.inputs.get(over)
        if source is None:
            value = node.task.params.get(over)
        elif source.kind == MANIFEST:
            return list(read_manifest(source, self._run.objects))
        else:
            value = load(source, self._run.objects)
        if isinstance(value, list | tuple | range):
            return list(value)
        raise UserCodeError(
            f"{node.title} cannot be mapped over {type(value).__name__}",
            code="MS-2034",
            why=f"parameter {over!r} is to take the items of a list one by one",
            fix="map over a list, a tuple, or the result of another map",
        )

    def _feed(self, node: Node) -> None:
        """Look at further items, so that a long map takes no more memory for what is in work than a short one."""
        mapped = node.mapped
        if mapped is None or node.settled is not None or mapped.active > _WINDOW // 2:
            return
        while mapped.next < len(mapped.items) and mapped.active < _WINDOW and not self._run.stopping:
            last = min(len(mapped.items), mapped.next + _WINDOW - mapped.active)
            jobs = [self._job(node, number, mapped.items[number]) for number in range(mapped.next, last)]
            mapped.next, mapped.active = last, mapped.active + len(jobs)
            self._look_up(jobs, mapped)
        if mapped.next == len(mapped.items) and mapped.active == 0:
            self._end(node, mapped)

    def _job(self, node: Node, number: int, item: object) -> Job:
        inputs = {name: result for name, result in node.inputs.items() if name != node.task.over}
        need = self._run.need(node.task)
        if isinstance(item, StoredResult):
            return Job(node, self._run.keys.of(node.task, inputs, stored=item), number, stored=item, need=need)
        return Job(node, self._run.keys.of(node.task, inputs, item=(item,)), number, value=(item,), need=need)

    def _look_up(self, jobs: list[Job], mapped: Mapped) -> None:
        """Kept results for a window of items, in one query."""
        kept = self._run.kept.many([job.keyed.key for job in jobs if self._run.may_reuse(job)])
        for job in jobs:
            result = kept.get(job.keyed.key)
            if result is None:
                self._run.queue.push(job)
                continue
            self._run.note_hit(job)
            mapped.results[job.item] = result
            mapped.active -= 1
            self._run.tell("hit", job)

    def item_done(self, job: Job, result: StoredResult, status: StepResult) -> None:
        """An item has its result."""
        mapped = job.node.mapped
        assert mapped is not None
        mapped.results[job.item] = result
        mapped.active -= 1
        self._run.tell("ok" if status == "ok" else "hit", job)
        self._run.guarded(job.node, self._feed)

    def item_failed(self, job: Job, error: MainspringError) -> None:
        """An item has failed for good."""
        mapped = job.node.mapped
        assert mapped is not None
        mapped.active -= 1
        mapped.failed += 1
        mapped.error = mapped.error or error
        self._run.tell("failed", job, text=error.what)
        if job.node.task.options.on_error == "fail":
            self._run.fail(job.node, error)
        else:
            self._run.guarded(job.node, self._feed)

    def _end(self, node: Node, mapped: Mapped) -> None:
        if mapped.error is not None:
            self._run.fail(node, mapped.error)
            return
        ledger = self._run.ledger
        result = save_manifest(
            self._run.kept.bare([one for one in mapped.results if one is not None]), self._run.objects
        )
        row = row_of(
            ledger.run_id,
            _whole(node),
            "ok",
            node.started_us,
            ledger.clock(),
            note="; ".join(node.notes),
            detail=node.keyed.detail,
        )
        inputs = [stored.digest for stored in node.inputs.values()]
        standing = ledger.commit(row, result, inputs, cache=node.cacheable)
        if standing is None:
            raise ledger.taken()
        self._run.settle_with(node, winner(result, standing), "ok", time.monotonic() - node.started)

    def end_failed(self, node: Node, error: MainspringError) -> None:
        """Record that a map has failed."""
        if node.mapped is not None:
            ledger = self._run.ledger
            ledger.end(row_of(ledger.run_id, _whole(node), "failed", node.started_us, ledger.clock(), error=error.what))

    def stop(self, node: Node) -> None:
        """Record that a map was stopped before its end."""
        if node.mapped is not None and node.settled is None:
            ledger = self._run.ledger
            ledger.end(row_of(ledger.run_id, _whole(node), "stopped", node.started_us, ledger.clock()))


def _whole(node: Node) -> Job:
    """The map as a whole, as a job: one attempt, which only counts its items' results."""
    return Job(node, node.keyed, attempt=1)
