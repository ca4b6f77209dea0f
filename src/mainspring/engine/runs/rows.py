"""Jobs as rows of the catalog and as events of progress."""

from __future__ import annotations

from collections.abc import Mapping

from mainspring.engine.runs.ledger import result_of
from mainspring.engine.runs.nodes import Job
from mainspring.engine.runs.progress import Happened, Progress
from mainspring.engine.wire import StoredResult
from mainspring.errors import RefusedError
from mainspring.ports.catalog import CacheRow, StepRow, StepStatus

__all__ = ["detail_of", "event_of", "row_of", "unknown", "winner"]


def row_of(
    run_id: str,
    job: Job,
    status: StepStatus,
    started: int,
    ended: int | None = None,
    *,
    note: str = "",
    log_digest: str = "",
    detail: Mapping[str, object] | None = None,
    error: str = "",
) -> StepRow:
    """The row of a job's present attempt; a hit or a skip is no attempt, and has number 0."""
    return StepRow(
        run_id,
        job.node.index,
        job.item,
        0 if status in ("hit", "skipped") else job.attempt,
        job.node.task.name,
        status,
        job.keyed.key,
        started,
        ended,
        error,
        log_digest,
        note,
        detail=dict(detail or {}),
    )


def detail_of(job: Job) -> dict[str, object]:
    """The parts of the key, for `why`; an item's row only names the map it is of."""
    detail: dict[str, object] = job.keyed.detail if job.item < 0 else {"of": job.node.keyed.key}
    return {**detail, "once": True} if job.node.task.options.once else detail


def event_of(what: Happened, run_id: str, job: Job, counts: tuple[int, int], **more: object) -> Progress:
    """Something that happened to a job; `counts` are the settled steps and all of them."""
    mapped = job.node.mapped
    if mapped is not None and job.item >= 0 and what in ("ok", "hit", "failed"):
        more = {"done": mapped.next - mapped.active, "total": len(mapped.items), **more}
    return Progress(
        what,
        run_id,
        job.node.task.name,
        job.node.title,
        job.item if job.item >= 0 else None,
        *counts,
        log=str(job.log_path or ""),
        **more,  # type: ignore[arg-type]
    )


def winner(own: StoredResult, standing: CacheRow) -> StoredResult:
    """The result that stands: another driver's, when it was faster."""
    kept = result_of(standing)
    return own if (kept.digest, kept.kind) == (own.digest, own.kind) else kept


def unknown(job: Job) -> RefusedError:
    """The error for a step that must not be repeated and was stopped in the middle."""
    return RefusedError(
        f"nobody knows whether {job.title} has been done",
        code="MS-5023",
        why="it was declared once=True, and it was stopped in the middle",
        fix=f"look whether it has happened; if not, run again with --force {job.node.task.name}",
    )
