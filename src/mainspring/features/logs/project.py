"""From a source's log to the log of a view of declared aggregates: keys, the columns it reads, nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mainspring.features.logs.log import (
    MADE_MARK,
    SEQ_MARK,
    SourceTable,
    TableVersion,
    append_to_log,
    key_hashes,
    reaching,
    rows_since,
)
from mainspring.features.quality.screen import Judge, aside_before, refuse_failing, screen, set_view_aside
from mainspring.features.view import (
    ASSUMED,
    BATCH,
    DEFINITION,
    DELETED,
    EVENT,
    HASH,
    INGEST,
    RETRACTS,
    SEQ,
    VALID_TO,
    VERSION_ID,
    View,
    log_schema,
)
from mainspring.lazy import lazy
from mainspring.ports.tables import TableStore, Txn

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    pa, pc = lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = ["ViewUpdate", "forget_another", "project", "update_view"]

_COPIED = (EVENT, INGEST, SEQ, DELETED, ASSUMED, BATCH, RETRACTS)


class ViewUpdate(msgspec.Struct, frozen=True):
    """What bringing a view's log up to date did.

    Attributes:
        version: the first version of the log that has all rows of the source's version.
        appended: the rows that were appended now.
    """

    version: TableVersion
    appended: pa.Table


def update_view(
    tables: TableStore,
    view: View,
    source: SourceTable,
    at: TableVersion,
    *,
    arrived: tuple[int, pa.Table] | None = None,
    judge: Judge | None = None,
) -> ViewUpdate:
    """Append to a view's log what its source's log has up to a version and it has not; the same whoever does it.

    Args:
        tables: the table store.
        view: a view of declared aggregates.
        source: its source.
        at: the version of the source's log.
        arrived: rows just appended to the source's log and the greatest `SEQ` before them, to spare reading them.
        judge: is shown the rows before they are appended; one that only refuses when left out.

    Raises:
        DataError: MS-2180, a check refuses the rows; nothing is appended.
    """
    with tables.writing(view.log):
        made = forget_another(tables, view.log, source.log)
        mark = tables.mark(view.log, SEQ_MARK)
        reached = -1 if mark is None else mark
        there = tables.version(view.log) is not None
        if there and reached >= at.through:
            return ViewUpdate(reaching(tables, view.log, at.through), log_schema(view).empty_table())
        if arrived is not None and arrived[0] == reached:
            rows = arrived[1]
        else:
            rows = rows_since(tables, source.log, at.version, reached, _needed(view, source))
        txn = Txn("rows", at.through + 1)
        projected = project(view, source, rows)
        found = screen(view, projected, aside_before(tables, view) if view.checks else None)
        (judge or refuse_failing(view))(found)
        aside = set_view_aside(tables, view, found.aside, txn)
        done = append_to_log(
            tables,
            view.log,
            found.rows,
            txn,
            through=at.through,
            quarantined=aside,
            made=made,
            keys=view.key_names,
        )
        return ViewUpdate(done, found.rows)


def forget_another(tables: TableStore, log: str, source_log: str) -> int:
    """Drop a view's log that was made from a source's log which is gone; when the source's was made.

    Another one counts its rows from the beginning again.
    """
    made = tables.mark(source_log, MADE_MARK) or 0
    if (tables.mark(log, MADE_MARK) or made) != made:
        tables.drop(log)
        if tables.version(f"quarantine/{log}") is not None:
            tables.drop(f"quarantine/{log}")
    return made


def project(view: View, source: SourceTable, rows: pa.Table) -> pa.Table:
    """Rows of a source's log as rows of a view's; those with a null key are left out: nobody can ask for them."""
    for key in view.key_names:
        if rows.column(key).null_count:
            rows = rows.filter(pc.is_valid(rows.column(key)))
    columns = {name: rows.column(name) for name in (*view.key_names, *(field.name for field in view.columns))}
    columns |= {name: rows.column(name) for name in _COPIED}
    columns[HASH] = key_hashes(rows, view.keys)
    columns[DEFINITION] = pa.repeat(pa.scalar(view.version), len(rows))
    if source.valid_to is not None:
        columns[VALID_TO] = rows.column(source.valid_to)
    if source.id is not None:
        columns[VERSION_ID] = rows.column(source.id)
    schema = log_schema(view)
    return pa.table([columns[field.name] for field in schema], schema=schema)


def _needed(view: View, source: SourceTable) -> list[str]:
    roles = [name for name in (source.valid_to, source.id) if name is not None]
    return list(dict.fromkeys([*view.key_names, *(field.name for field in view.columns), *roles, *_COPIED]))
