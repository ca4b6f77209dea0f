"""The metadata store: runs, cache, entities, aliases, events, lineage, metrics, monitoring.

Ids are UUIDv7 in 32 hex digits, digests blake2b-160 in 40, times UTC microseconds since 1970; all come from the caller.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

import msgspec

__all__ = [
    "Alert",
    "Alias",
    "Artifact",
    "Block",
    "CacheRow",
    "Catalog",
    "Edge",
    "Entity",
    "Event",
    "Label",
    "Metric",
    "OutputRow",
    "Run",
    "StepCommit",
    "StepRow",
]

RunStatus = Literal["running", "ok", "failed", "stopped"]
StepStatus = Literal["running", "ok", "hit", "failed", "lost", "unknown", "skipped", "stopped"]
AlertState = Literal["pending", "firing", "acknowledged", "muted", "resolved"]


class Run(msgspec.Struct, frozen=True):
    """One carrying-out of a graph; `params` and `environment` are JSON objects."""

    id: str
    pipeline: str
    status: RunStatus
    started: int
    ended: int | None = None
    reason: str = ""
    params: dict[str, object] = {}
    environment: dict[str, object] = {}
    lease_owner: str = ""
    lease_until: int = 0


class OutputRow(msgspec.Struct, frozen=True):
    """A stored result: its name, the digest of its content and its kind."""

    name: str
    digest: str
    kind: str
    size: int = 0


class StepRow(msgspec.Struct, frozen=True):
    """One attempt of one step; `detail` holds the parts of its key, for `why`."""

    run_id: str
    idx: int
    map_idx: int
    attempt: int
    name: str
    status: StepStatus
    cache_key: str
    started: int
    ended: int | None = None
    error: str = ""
    log_digest: str = ""
    note: str = ""
    outputs: tuple[OutputRow, ...] = ()
    detail: dict[str, object] = {}


class Artifact(msgspec.Struct, frozen=True):
    """A content that was produced once; insert-only."""

    digest: str
    kind: str
    size: int
    media_type: str = "application/octet-stream"
    meta: dict[str, object] = {}


class CacheRow(msgspec.Struct, frozen=True):
    """A finished step's results by its key."""

    key: str
    outputs: tuple[OutputRow, ...]
    run_id: str
    idx: int
    map_idx: int


class Edge(msgspec.Struct, frozen=True):
    """`src` relates to `dst`: ``produced``, ``used``, ``trained_on``, ``built_from``, ``serves``, ``watches``."""

    src: str
    rel: str
    dst: str


class Event(msgspec.Struct, frozen=True):
    """Something that happened; append-only, each holding the hash of the one before."""

    at: int
    actor: str
    what: str
    subject: str
    data: dict[str, object] = {}
    seq: int = 0
    prev_hash: str = ""


class StepCommit(msgspec.Struct, frozen=True):
    """All that one finished attempt records, in one transaction."""

    row: StepRow
    owner: str
    artifacts: tuple[Artifact, ...] = ()
    edges: tuple[Edge, ...] = ()
    event: Event | None = None
    cache: bool = True


class Entity(msgspec.Struct, frozen=True):
    """A version of a named thing; insert-only. The same content is the same version."""

    id: str
    kind: str
    name: str
    version: int
    digest: str
    spec: dict[str, object]
    created: int


class Alias(msgspec.Struct, frozen=True):
    """A name that moves from version to version: ``champion``; `rev` counts its moves."""

    kind: str
    name: str
    alias: str
    entity_id: str
    rev: int


class Metric(msgspec.Struct, frozen=True):
    """A number of a run at a step."""

    key: str
    value: float
    step: int = 0
    at: int = 0
    model_id: str = ""


class Block(msgspec.Struct, frozen=True):
    """The state of one feature over one block of event time, as one writer has counted it."""

    monitor: str
    feature: str
    segment: str
    start: int
    writer: str
    state: bytes
    updated: int


class Label(msgspec.Struct, frozen=True):
    """What became known of a prediction; the latest `at` wins."""

    prediction_id: str
    name: str
    value: float
    at: int
    received: int


class Alert(msgspec.Struct, frozen=True):
    """An alarm; at most one per fingerprint is not resolved. `since` is event time, `opened` the clock.

    `features` starts with the cause. `acked_by` is who has acknowledged it, empty when nobody has; `muted_until` is
    the moment (clock, UTC microseconds) before which a muted one is not raised again.
    """

    id: str
    fingerprint: str
    monitor: str
    segment: str
    kind: str
    state: AlertState
    since: int
    opened: int
    score: float
    threshold: float
    effect: float
    features: tuple[str, ...] = ()
    detail: dict[str, object] = {}
    resolved: int | None = None
    acked_by: str = ""
    muted_until: int | None = None


@runtime_checkable
class Catalog(Protocol):
    """The metadata store; every method is one transaction."""

    # -- runs and steps
    def start_run(self, run: Run) -> None:
        """Record a run that has begun, with its lease."""

    def renew_lease(self, run_id: str, owner: str, until: int) -> bool:
        """Extend a lease; False when another driver holds it."""

    def take_over(self, run_id: str, owner: str, now: int, until: int) -> bool:
        """Take a run whose lease has expired; its running steps become ``lost``. False when somebody else did."""

    def end_run(self, run_id: str, owner: str, status: RunStatus, ended: int) -> bool:
        """Close a run; False when the lease is another's or the run is closed."""

    def run(self, run_id: str) -> Run | None:
        """One run."""

    def runs(self, *, pipeline: str | None = None, status: str | None = None, limit: int = 50) -> list[Run]:
        """Runs, the newest first."""

    def start_attempt(self, row: StepRow) -> None:
        """Record an attempt that has begun, status ``running``."""

    def commit_step(self, commit: StepCommit) -> CacheRow | None:
        """Record a finished attempt: running -> ok, cache insert-or-ignore, artifacts, edges, event.

        Returns the cache row that stands: the own one, or the winner's. None when the attempt is no longer
        running or the lease is lost; then nothing is recorded.
        """

    def end_attempt(self, row: StepRow) -> bool:
        """Move an attempt from ``running`` to failed, lost, unknown or stopped; False when it is not running."""

    def record_steps(self, rows: Sequence[StepRow]) -> None:
        """Record hits and skips, many in one transaction."""

    def steps(self, run_id: str) -> list[StepRow]:
        """A run's attempts, in order."""

    def step_history(self, name: str, *, limit: int = 20) -> list[StepRow]:
        """Attempts of a step over all runs, the newest first."""

    def cached(self, keys: Iterable[str]) -> dict[str, CacheRow]:
        """The cache rows of these keys, in one query."""

    def forget(self, keys: Iterable[str]) -> None:
        """Drop cache rows whose blobs are gone."""

    def claim(self, key: str, owner: str, now: int, until: int, *, once: bool = False) -> str:
        """Claim a key: the owner who holds it now. A claim past `until` is free, unless it is a ``once`` claim."""

    def release(self, key: str, owner: str) -> None:
        """Give a claim back."""

    def artifacts(self, digests: Iterable[str]) -> dict[str, Artifact]:
        """Artifacts by digest."""

    # -- entities
    def add_entity(self, entity: Entity, edges: Sequence[Edge] = (), event: Event | None = None) -> Entity:
        """Record a version: the row with the same kind, name and digest, or the next version.

        The next is no less than the offered one's number, so that another catalog's versions keep theirs.
        """

    def entity(self, kind: str, name: str, version: int | None = None) -> Entity | None:
        """A version; the newest when none is named."""

    def entity_by_id(self, entity_id: str) -> Entity | None:
        """A version by id."""

    def entities(self, kind: str | None = None, name: str | None = None, *, limit: int = 500) -> list[Entity]:
        """Versions, the newest first."""

    def add_edges(self, edges: Sequence[Edge]) -> None:
        """Record relations; known ones are ignored."""

    def lineage(self, subject: str, direction: Literal["up", "down"], depth: int = 32) -> list[Edge]:
        """All edges on paths from a subject: up to what it was made from, down to what was made from it."""

    def alias(self, kind: str, name: str, alias: str) -> Alias | None:
        """Where an alias points."""

    def aliases(self, kind: str | None = None, name: str | None = None) -> list[Alias]:
        """All aliases, of a kind, of a name."""

    def move_alias(self, alias: Alias, event: Event) -> Alias | None:
        """Compare-and-swap: `alias.rev` is the revision it must have now (0: not there); None when it has not."""

    # -- events and numbers
    def add_event(self, event: Event) -> int:
        """Append an event; its sequence number."""

    def events(self, after: int = 0, *, what: str = "", subject: str = "", limit: int = 100) -> list[Event]:
        """Events after a sequence number, in order.

        Args:
            after: the number.
            what: what the events' own begins with.
            subject: whom they are about: events of ``/run/1`` and ``/run/1/x``, and not of ``/run/12``.
            limit: the most that come.
        """

    def last_events(self, *, what: str = "", subject: str = "", limit: int = 50) -> list[Event]:
        """The newest events, the newest first."""

    def cursor(self, consumer: str) -> int:
        """How far a consumer has read the events."""

    def set_cursor(self, consumer: str, seq: int) -> None:
        """Note how far a consumer has read."""

    def log_metrics(self, run_id: str, metrics: Sequence[Metric]) -> None:
        """Record numbers of a run; the latest of each key is kept apart."""

    def metrics(self, run_id: str, *, latest: bool = True) -> list[Metric]:
        """A run's numbers: the latest of each key, or all."""

    def tick(self, schedule: str, due: int, run_id: str) -> bool:
        """Insert a due time of a schedule; False when another replica has it."""

    def last_tick(self, schedule: str) -> int | None:
        """The latest due time that was taken."""

    def tag(self, subject: str, tags: Mapping[str, str]) -> None:
        """Set tags."""

    def tags(self, subject: str) -> dict[str, str]:
        """A subject's tags."""

    # -- monitoring
    def put_blocks(self, blocks: Sequence[Block]) -> None:
        """Upsert block states by (monitor, feature, segment, start, writer)."""

    def blocks(self, monitor: str, since: int = 0) -> list[Block]:
        """Block states from a start on, in order of start."""

    def add_labels(self, labels: Sequence[Label]) -> int:
        """Record labels; how many were new or newer."""

    def labels(self, prediction_ids: Iterable[str]) -> list[Label]:
        """The labels of these predictions."""

    def labels_after(self, received: int, limit: int = 100_000, *, behind: Label | None = None) -> list[Label]:
        """Labels received after a moment, by the moment, prediction and name; behind the last one of the page before.

        Many labels may have been received at one moment: a page may end among them.
        """

    def open_alert(self, alert: Alert) -> Alert:
        """Open an alert; the one that is open already for the fingerprint when there is one."""

    def move_alert(self, alert: Alert, was: AlertState) -> bool:
        """Compare-and-swap on state."""

    def alerts(self, *, open_only: bool = False, monitor: str = "", limit: int = 100) -> list[Alert]:
        """Alerts, the newest first."""

    def close(self) -> None:
        """Close this process's connection."""
