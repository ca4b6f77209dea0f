"""The rows of a feature view before they get into its log: what its checks set aside is in no answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from mainspring.features.duck import connection, quoted
from mainspring.features.logs.digest import content_digest
from mainspring.features.logs.ingest import REASON
from mainspring.features.logs.log import newest, read_log, standing
from mainspring.features.quality.results import CheckResult, refusal, refused
from mainspring.features.quality.rowwise import judge_rows
from mainspring.features.quality.tablewise import Whole
from mainspring.features.view import BATCH, DELETED, EVENT, RETRACTS, SEQ, View
from mainspring.lazy import lazy
from mainspring.ports.tables import TableStore, Txn

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    pa, pc = lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = [
    "Judge",
    "Screened",
    "aside_before",
    "refuse_failing",
    "refuse_pushed",
    "screen",
    "screened",
    "set_view_aside",
    "whole_of_view",
]


class Screened(msgspec.Struct, frozen=True):
    """New rows of a view's log, judged one by one.

    Attributes:
        rows: what goes on, in the order it came.
        aside: the others, with `REASON`.
        results: what the checks of single rows found.
    """

    rows: pa.Table
    aside: pa.Table
    results: tuple[CheckResult, ...] = ()


Judge = Callable[[Screened], None]
"""Is shown the rows before anything is written; what it raises, refuses them."""


def screen(view: View, rows: pa.Table, gone: pa.Array | None = None) -> Screened:
    """Judge rows of a view's log by the view's checks of single rows.

    Deletions are not judged, nor is what takes rows away; but that goes too, when the row that it names was set aside.

    Args:
        view: the view, with its checks.
        rows: with the log's columns.
        gone: the `SEQ` of rows that were set aside before.
    """
    checks = tuple(check for check in view.checks if not check.of_table)
    if not checks:
        return Screened(rows, rows.slice(0, 0).append_column(REASON, pa.nulls(0, pa.string())))
    taking = rows.filter(pc.is_valid(rows.column(RETRACTS)))
    lost = pc.is_in(rows.column(SEQ), pc.unique(taking.column(RETRACTS)).cast(pa.int64()))
    judged = pc.invert(pc.or_(rows.column(DELETED), pc.is_valid(rows.column(RETRACTS))))
    # A row that was taken away meanwhile stands for nothing: it is set aside, but refuses nobody.
    setting = msgspec.structs.replace(view, checks=tuple(check for check in checks if check.on_fail == "quarantine"))
    fields = (*view.keys, *view.columns)
    passing = pc.and_(judged, lost)
    reasons = pa.nulls(len(rows), pa.string())
    results: tuple[CheckResult, ...] = ()
    for mask, asked in ((passing, setting.checks), (pc.and_(judged, pc.invert(lost)), checks)):
        found = judge_rows(rows.filter(mask), fields, asked)
        results = found.results
        reasons = pc.replace_with_mask(reasons, _flat(mask), _flat(found.reasons))
    bad = pc.is_valid(reasons)
    dropped = [pc.unique(rows.filter(bad).column(SEQ))] + ([] if gone is None else [gone])
    dangling = pc.is_in(rows.column(RETRACTS), pa.chunked_array(dropped, pa.int64()).combine_chunks())
    kept = pc.invert(pc.or_(bad, pc.and_(pc.is_valid(rows.column(RETRACTS)), dangling)))
    return Screened(rows.filter(kept), rows.append_column(REASON, reasons).filter(bad), results)


def _flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def refuse_failing(view: View) -> Judge:
    """A judge that only refuses: of pushes, whose results nobody puts on record."""

    def judge(screened: Screened) -> None:
        if refused(screened.results):
            raise refusal(f"feature view {view.name!r}", screened.results)

    return judge


def screened(view: View, rows: pa.Table) -> pa.Table:
    """The rows of a view's log that its checks of single rows let through.

    Raises:
        DataError: MS-2180, they refuse them.
    """
    found = screen(view, rows)
    refuse_failing(view)(found)
    return found.rows


def refuse_pushed(view: View, rows: pa.Table) -> None:
    """Refuse pushed rows of a source that a view of its aggregates would refuse, before they are in any log.

    Raises:
        DataError: MS-2180.
    """
    checks = [check for check in view.checks if not check.of_table]
    if any(check.on_fail == "refuse" for check in checks):
        results = judge_rows(rows, (*view.keys, *view.columns), checks).results
        if refused(results):
            raise refusal(f"feature view {view.name!r}", results)


def set_view_aside(tables: TableStore, view: View, aside: pa.Table, txn: Txn) -> int:
    """Put rows into a view's quarantine that are not there yet; how many there were.

    Args:
        tables: the table store.
        view: the view.
        aside: rows of its log with `REASON`.
        txn: the save of the rows that are not set aside; a repeated one sets the same aside.
    """
    names = [*view.key_names, *(field.name for field in view.columns), EVENT]
    found = aside.select([*names, SEQ, REASON])
    if len(found) and tables.version(view.quarantine) is not None:
        found = found.filter(pc.invert(_known(tables, view, found, names)))
    if not len(found):
        return 0
    # A save that comes to nothing has no number of its own; what it sets aside tells it from the next.
    batch = f"{txn.app_id}/{txn.n}/{content_digest(found)[:8]}"
    stamped = found.append_column(BATCH, pa.repeat(pa.scalar(batch), len(found)))
    tables.append(view.quarantine, stamped, Txn(batch, 1))
    return len(found)


def aside_before(tables: TableStore, view: View) -> pa.Array | None:
    """The `SEQ` of the rows in a view's quarantine; None when there are none."""
    if tables.version(view.quarantine) is None:
        return None
    return tables.read(view.quarantine, columns=[SEQ]).column(SEQ).combine_chunks()


def _known(tables: TableStore, view: View, rows: pa.Table, names: list[str]) -> pa.Array:
    """Which rows are in a view's quarantine: by number, where rows keep that of their source's, or by what they say."""
    if not view.decorated:
        return pc.is_in(rows.column(SEQ), aside_before(tables, view))
    same = " and ".join(f"n.{quoted(name)} is not distinct from h.{quoted(name)}" for name in names)
    with connection() as opened:
        opened.register("incoming", rows.append_column("rid", pa.array(range(len(rows)), pa.int64())))
        opened.register("held", tables.read(view.quarantine, columns=names))
        found = opened.sql(f"select rid from incoming n semi join held h on {same}").to_arrow_table().column("rid")
    return pc.is_in(pa.array(range(len(rows)), pa.int64()), found.combine_chunks())


def whole_of_view(tables: TableStore, view: View, rows: pa.Table) -> Whole:
    """A view's log as it would be with new rows."""
    before = newest(tables, view.log)
    taken = len(rows) - rows.column(RETRACTS).null_count
    new = rows.filter(pc.is_null(rows.column(RETRACTS)))
    moments = [pc.max(new.column(EVENT)).cast(pa.int64()).as_py()] if len(new) else []
    if before is not None and before.max_event_us is not None:
        moments.append(before.max_event_us)

    def columns(names: Sequence[str]) -> pa.Table:
        read = list(dict.fromkeys([*names, DELETED, SEQ, RETRACTS]))
        parts = [rows.select(read)] + ([] if before is None else [read_log(tables, view.log, columns=read)])
        found = standing(pa.concat_tables(parts, promote_options="permissive"))
        return found.filter(pc.invert(found.column(DELETED)))

    def held(name: str) -> pa.ChunkedArray:
        found = standing(read_log(tables, view.log, columns=list(dict.fromkeys([name, DELETED, SEQ, RETRACTS]))))
        return found.filter(pc.invert(found.column(DELETED))).column(name)

    count = (0 if before is None else before.rows) + len(new) - taken
    alive = new.filter(pc.invert(new.column(DELETED)))
    return Whole(count, max(moments, default=None), columns, alive, None if before is None else held)
