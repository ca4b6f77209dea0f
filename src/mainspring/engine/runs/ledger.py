"""What a run writes into the catalog: its lease, attempts, results, claims, metrics."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence

import msgspec

from mainspring.engine.wire import StoredResult
from mainspring.engine.workers.processes import Owner
from mainspring.errors import ServiceError
from mainspring.ports.catalog import (
    Artifact,
    CacheRow,
    Catalog,
    Edge,
    Event,
    Metric,
    OutputRow,
    Run,
    RunStatus,
    StepCommit,
    StepRow,
)

__all__ = ["LEASE_US", "Holder", "Ledger", "new_id", "now_us", "recover", "result_of"]

LEASE_US = 30_000_000
_GROUP_SECONDS = 0.01
_RESULT = "result"
_AT_WORK: set[str] = set()
"""The owners of this process's runs that have not ended."""


def now_us() -> int:
    """The clock in UTC microseconds since 1970."""
    return time.time_ns() // 1000


def new_id(at_us: int) -> str:
    """A UUIDv7 (RFC 9562, section 5.7) in 32 hex digits: later ids sort after earlier ones."""
    value = (at_us // 1000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return f"{value:032x}"


def recover(catalog: Catalog, me: Owner) -> list[str]:
    """Close the runs whose drivers have died: their running steps become ``lost`` and their claims free.

    Returns:
        The ids of those runs.
    """
    recovered = []
    for run in catalog.runs(status="running", limit=1000):
        owner, now = Owner.parse(run.lease_owner), now_us()
        if owner is None or not _is_gone(owner, me, run.lease_until, now):
            continue
        if not catalog.take_over(run.id, str(me), max(now, run.lease_until + 1), now + LEASE_US):
            continue
        for row in catalog.steps(run.id):
            if row.status == "lost" and row.cache_key and "once" not in row.detail:
                catalog.release(row.cache_key, run.lease_owner)
        catalog.end_run(run.id, str(me), "failed", now)
        recovered.append(run.id)
    return recovered


def _is_gone(owner: Owner, me: Owner, until: int, now: int) -> bool:
    """Of this machine's processes we know whether they live; of others only whether they renewed their lease."""
    if (owner.is_near(me), owner.pid, owner.started) == (True, me.pid, me.started):
        return str(owner) not in _AT_WORK
    if owner.is_near(me):
        return owner.is_dead(me)
    return until < now


class Holder(msgspec.Struct, frozen=True):
    """Who holds a claim, and whether it is known to work on it no more."""

    name: str
    gone: bool


class Ledger(msgspec.Struct):
    """The rows of one run.

    Args:
        catalog: the metadata store.
        owner: the driver, who holds the lease.
        run_id: the run.
        actor: who started it, for events.
    """

    catalog: Catalog
    owner: Owner
    run_id: str
    actor: str
    clock: Callable[[], int] = now_us
    _rows: list[StepRow] = msgspec.field(default_factory=list)
    _metrics: list[Metric] = msgspec.field(default_factory=list)
    _oldest: float = 0.0

    # -- the run --------------------------------------------------------------------------------------------------

    def open(self, pipeline: str, reason: str, params: dict[str, object], environment: dict[str, object]) -> None:
        """Record that the run has begun."""
        now = self.clock()
        _AT_WORK.add(str(self.owner))
        self.catalog.start_run(
            Run(
                self.run_id,
                pipeline,
                "running",
                now,
                reason=reason,
                params=params,
                environment=environment,
                lease_owner=str(self.owner),
                lease_until=now + LEASE_US,
            )
        )

    def renew(self, claims: Iterable[str]) -> None:
        """Say that the driver lives.

        Raises:
            ServiceError: MS-4020, another driver has taken the run.
        """
        until = self.clock() + LEASE_US
        if not self.catalog.renew_lease(self.run_id, str(self.owner), until):
            raise self.taken()
        for key in claims:
            self.catalog.claim(key, str(self.owner), self.clock(), until)

    def taken(self) -> ServiceError:
        """The error for a run that is no longer this driver's."""
        return ServiceError(
            "another driver has taken this run over",
            code="MS-4020",
            why="this process was stopped for longer than its lease, or the clock was set forward",
            fix="run the same command again: what is finished is not run again",
        )

    def close(self, status: RunStatus) -> None:
        """Record that the run has ended; if that cannot be written, the next run will do it."""
        _AT_WORK.discard(str(self.owner))
        self.flush()
        self.catalog.end_run(self.run_id, str(self.owner), status, self.clock())

    # -- keys -----------------------------------------------------------------------------------------------------

    def claim(self, key: str, *, once: bool = False, force: bool = False) -> Holder | None:
        """Claim a key for this run; None when it is ours, else who holds it.

        Args:
            key: the cache key.
            once: the claim outlives its driver, because what it stands for must not be repeated.
            force: take such a claim away, because a person has looked.
        """
        while True:
            now = self.clock()
            name = self.catalog.claim(key, str(self.owner), now, now + LEASE_US, once=once)
            if name == str(self.owner):
                return None
            holder = Holder(name, self._is_over(name))
            if not force and (once or not holder.gone):
                return holder
            self.catalog.release(key, name)

    def _is_over(self, holder: str) -> bool:
        """Whether the run that holds a claim has ended, or its driver has."""
        owner = Owner.parse(holder)
        if owner is None or owner.is_dead(self.owner):
            return True
        return all(run.lease_owner != holder for run in self.catalog.runs(status="running", limit=1000))

    def release(self, key: str) -> None:
        """Give a claimed key back."""
        self.catalog.release(key, str(self.owner))

    # -- attempts -------------------------------------------------------------------------------------------------

    def start(self, row: StepRow) -> None:
        """Record that an attempt begins."""
        self.catalog.start_attempt(row)

    def commit(self, row: StepRow, result: StoredResult, inputs: Sequence[str], *, cache: bool) -> CacheRow | None:
        """Record a finished attempt in one transaction; the cache row that stands, None when the run was taken."""
        output = OutputRow(_RESULT, result.digest, result.kind, result.size)
        edges = [Edge(result.digest, "built_from", row.cache_key)] if row.cache_key else []
        edges += [Edge(row.cache_key, "used", digest) for digest in inputs if row.cache_key]
        event = Event(row.ended or row.started, self.actor, "step.ok", f"/{row.name}", {"run": self.run_id})
        done = StepRow(
            row.run_id,
            row.idx,
            row.map_idx,
            row.attempt,
            row.name,
            "ok",
            row.cache_key,
            row.started,
            row.ended,
            log_digest=row.log_digest,
            note=row.note,
            outputs=(output,),
            detail=row.detail,
        )
        artifact = Artifact(result.digest, result.kind, result.size, result.media_type, result.meta)
        return self.catalog.commit_step(StepCommit(done, str(self.owner), (artifact,), tuple(edges), event, cache))

    def end(self, row: StepRow) -> None:
        """Record that an attempt came to nothing."""
        self.catalog.end_attempt(row)

    # -- what need not be there at once ---------------------------------------------------------------------------

    def note(self, row: StepRow) -> None:
        """Record a hit or a skip, together with others."""
        self._rows.append(row)
        self._aged()

    def measure(self, metric: Metric) -> None:
        """Record a metric, together with others."""
        self._metrics.append(metric)
        self._aged()

    def _aged(self) -> None:
        now = time.monotonic()
        if len(self._rows) + len(self._metrics) == 1:
            self._oldest = now
        elif now - self._oldest > _GROUP_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write what was held back."""
        rows, self._rows = self._rows, []
        metrics, self._metrics = self._metrics, []
        if rows:
            self.catalog.record_steps(rows)
        if metrics:
            self.catalog.log_metrics(self.run_id, metrics)


def result_of(row: CacheRow) -> StoredResult:
    """The result that a cache row names."""
    output = row.outputs[0]
    return StoredResult(output.digest, output.kind, output.size)
