"""Checks in the engine's steps: what they take besides, what they judge, where their results go."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from mainspring.catalog.ids import now_us
from mainspring.declare.quality import Check, CheckKind
from mainspring.engine import context
from mainspring.engine.task import Output
from mainspring.features.logs.log import SourceTable, TableVersion, read_log, standing
from mainspring.features.logs.log import newest as newest_of
from mainspring.features.quality.gate import CHECKED, Gate
from mainspring.features.quality.screen import Judge, Screened, whole_of_view
from mainspring.features.quality.tablewise import Whole, judge_whole
from mainspring.features.view import DELETED, RETRACTS, SEQ, View
from mainspring.lazy import lazy
from mainspring.ports.catalog import Event
from mainspring.ports.tables import TableStore

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    pa, pc = lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = [
    "content_with_checks",
    "gate_of",
    "held_in",
    "judge_of_view",
    "only_distance",
    "references_of",
    "whole_of_files",
    "whole_with",
    "without_distance",
]


def references_of(source: SourceTable) -> dict[str, Output]:
    """The sources that a source's checks reference, as inputs of its step: they are read before it."""
    named = {check.name.rpartition(".")[0] for check in source.checks if check.log}
    return {f"known_{name}": Output(f"source/{name}") for name in sorted(named)}


def without_distance(checks: Sequence[Check]) -> tuple[Check, ...]:
    """The checks that need not know which rows are new."""
    return tuple(check for check in checks if check.kind is not CheckKind.DISTANCE)


def only_distance(checks: Sequence[Check]) -> tuple[Check, ...]:
    """The checks of the rows that are new, against those that the log holds."""
    return tuple(check for check in checks if check.kind is CheckKind.DISTANCE)


def content_with_checks(content: str, checks: Sequence[Check], referenced: Mapping[str, object]) -> str:
    """A digest of what a source's log is to hold: of its files, and of what sets rows of them aside."""
    setting_aside = [check for check in checks if check.on_fail == "quarantine"]
    if not setting_aside:
        return content
    versions = [f"{name} {msgspec.convert(referenced[name], TableVersion).digest}" for name in sorted(referenced)]
    told = "\n".join([content, *map(repr, setting_aside), *versions])
    return hashlib.blake2b(told.encode(), digest_size=16).hexdigest()


def whole_of_files(tables: TableStore, source: SourceTable, rows: pa.Table) -> Whole:
    """The rows of a source's files as a whole; before they are compared with the log, none of them is new."""
    newest = pc.max(rows.column(source.time)).cast(pa.int64()).as_py() if len(rows) else None
    held = None if tables.version(source.log) is None else held_in(tables, source.log)
    return Whole(len(rows), newest, lambda names: rows.select(list(names)), rows.slice(0, 0), held)


def whole_with(tables: TableStore, source: SourceTable, new: pa.Table) -> Whole:
    """A source's log as it would be with further rows, of which none takes another away."""
    before = newest_of(tables, source.log)
    moments = [] if before is None or before.max_event_us is None else [before.max_event_us]
    if len(new):
        moments.append(pc.max(new.column(source.time)).cast(pa.int64()).as_py())
    held = None if before is None else held_in(tables, source.log)

    def columns(names: Sequence[str]) -> pa.Table:
        rows = new.select(list(names))
        if before is None:
            return rows
        known = standing(read_log(tables, source.log, columns=list(dict.fromkeys([*names, DELETED, SEQ, RETRACTS]))))
        alive = known.filter(pc.invert(known.column(DELETED))).select(list(names))
        return pa.concat_tables([alive, rows], promote_options="permissive")

    count = (0 if before is None else before.rows) + len(new)
    return Whole(count, max(moments, default=None), columns, new, held)


def held_in(tables: TableStore, log: str) -> Callable[[str], pa.ChunkedArray]:
    """Reads a column of the rows that stand in a log, without tombstones."""

    def read(column: str) -> pa.ChunkedArray:
        rows = standing(read_log(tables, log, columns=list({column, DELETED, SEQ, RETRACTS})))
        return rows.filter(pc.invert(rows.column(DELETED))).column(column)

    return read


def judge_of_view(tables: TableStore, view: View, gate: Gate) -> Judge:
    """What judges the rows of a view before they are appended: single rows, then the log as it would be."""

    def judge(screened: Screened) -> None:
        whole = whole_of_view(tables, view, screened.rows)
        gate.take([*screened.results, *judge_whole(view.checks, whole, now_us())])

    return judge


def gate_of(subject: str, origin: str = "") -> Gate:
    """The gate of a step's batch; results go into the catalog's events, and into the step's note."""
    step = context.current()

    def tell(data: dict[str, object]) -> None:
        step.services.catalog.add_event(Event(now_us(), "checks", CHECKED, subject, {**data, "run": step.run_id}))

    return Gate(subject, tell, step.note, origin)
