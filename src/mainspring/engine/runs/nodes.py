"""The state of a run in the driver's memory: its steps, the attempts that are due, and how far maps are."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from mainspring.engine.runs.attempts import Log
from mainspring.engine.runs.keys import Keyed
from mainspring.engine.runs.report import StepReport, StepResult
from mainspring.engine.task import Task
from mainspring.engine.wire import Fault, Order, StoredResult
from mainspring.errors import MainspringError

__all__ = ["Job", "Mapped", "Node", "Queue"]


class Mapped(msgspec.Struct, eq=False):
    """How far a map is.

    Attributes:
        items: what it goes over: values, or stored results of another map.
        results: what each item gave, in item order.
        next: the first item that has not been looked at.
        active: how many items have been looked at and are not done.
        running: how many attempts run now.
        failed: how many items have failed.
    """

    items: Sequence[object]
    results: list[StoredResult | None]
    next: int = 0
    active: int = 0
    running: int = 0
    failed: int = 0
    error: MainspringError | None = None


class Node(msgspec.Struct, eq=False):
    """A step of the run.

    Attributes:
        waits: the indexes of the steps whose results it still waits for.
        settled: what it came to, once it has.
    """

    index: int
    task: Task
    waits: set[int]
    feeds: tuple[int, ...]
    height: int
    settled: StepResult | None = None
    result: StoredResult | None = None
    keyed: Keyed = msgspec.field(default_factory=lambda: Keyed(""))
    inputs: dict[str, StoredResult] = msgspec.field(default_factory=dict)
    mapped: Mapped | None = None
    error: MainspringError | None = None
    cacheable: bool = True
    notes: dict[str, None] = msgspec.field(default_factory=dict)
    started_us: int = 0
    started: float = 0.0
    seconds: float = 0.0

    @property
    def title(self) -> str:
        """What a person reads for it."""
        return self.task.title or self.task.name

    def report(self) -> StepReport:
        """What it came to; skipped when the run ended before it was begun."""
        return StepReport(
            self.task.name,
            self.settled or "skipped",
            self.keyed.key,
            self.seconds,
            self.result.digest if self.result is not None else "",
            self.result,
            self.error,
            self.cacheable,
            "; ".join(self.notes),
            len(self.mapped.items) if self.mapped is not None else 0,
        )


class Job(msgspec.Struct, eq=False):
    """One thing to be computed: a step, or an item of a map; and its present attempt.

    Attributes:
        item: the item's number, -1 for a step itself.
        value: the item, in a tuple of one; None when there is none or it is `stored`.
        number: of the present attempt, unique in the run.
        attempt: 1 for the first.
        need: what it occupies of the machine while it runs.
    """

    node: Node
    keyed: Keyed
    item: int = -1
    value: tuple[object] | None = None
    stored: StoredResult | None = None
    followers: list[Job] = msgspec.field(default_factory=list)
    number: int = -1
    attempt: int = 0
    claimed: bool = False
    done: bool = False
    timed_out: bool = False
    unclear: bool = False
    fault: Fault | None = None
    log: Log | None = None
    log_path: Path | None = None
    need: Mapping[str, float] = msgspec.field(default_factory=dict)
    order: Order | None = None
    secrets: tuple[str, ...] = ()
    declared: tuple[str, ...] = ()
    started_us: int = 0
    started: float = 0.0
    deadline: float | None = None

    @property
    def title(self) -> str:
        """What a person reads for it: ``clean[3]`` for an item."""
        return self.node.title if self.item < 0 else f"{self.node.title}[{self.item}]"

    @property
    def cacheable(self) -> bool:
        """Whether a kept result may be used, and this one kept."""
        options = self.node.task.options
        return bool(self.keyed.key) and (options.cache or options.once)


class Queue:
    """Jobs that are due: the one that most waits for goes first, then the earlier one."""

    def __init__(self) -> None:
        self._ready: list[tuple[int, int, int, Job]] = []
        self._later: list[tuple[float, int, Job]] = []
        self._count = itertools.count()
        self.elsewhere: deque[Job] = deque()

    def __bool__(self) -> bool:
        return bool(self._ready or self._later or self.elsewhere)

    def push(self, job: Job) -> None:
        """Due now."""
        heapq.heappush(self._ready, (-job.node.height, job.node.index, next(self._count), job))

    def pop(self) -> Job | None:
        """The next one that is due now."""
        return heapq.heappop(self._ready)[-1] if self._ready else None

    def delay(self, job: Job, until: float) -> None:
        """Due at a moment of the monotonic clock."""
        heapq.heappush(self._later, (until, next(self._count), job))

    def ripen(self, now: float) -> None:
        """Move to the due ones what has waited long enough."""
        while self._later and self._later[0][0] <= now:
            self.push(heapq.heappop(self._later)[-1])

    def next_due(self) -> float | None:
        """When the next delayed one is due."""
        return self._later[0][0] if self._later else None

    def clear(self) -> list[Job]:
        """Take all away."""
        jobs = [entry[-1] for entry in self._ready] + [entry[-1] for entry in self._later] + list(self.elsewhere)
        self._ready.clear()
        self._later.clear()
        self.elsewhere.clear()
        return jobs
