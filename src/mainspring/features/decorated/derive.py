"""The logs of decorated views: increments through the user's function, or the whole anew and what changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from mainspring.declare.record import ColumnType, FieldSpec, Kind
from mainspring.features.decorated.function import call, conform
from mainspring.features.duck import connection, quoted
from mainspring.features.logs.log import (
    MADE_MARK,
    SEQ_MARK,
    SourceTable,
    TableVersion,
    append_to_log,
    key_hashes,
    newest,
    reaching,
    read_log,
    rows_since,
    sequence,
    standing,
)
from mainspring.features.logs.project import ViewUpdate, forget_another
from mainspring.features.quality.screen import Judge, refuse_failing, screen, set_view_aside
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

__all__ = ["Upstream", "derive_view", "derived_ahead"]

_ROW_MARK = "row"
_WHOLE = "whole"
_OUTSIDE_MARK = "outside"
"""The mark of a log whose function read what is no input of it, so that nothing tells when its rows are others."""
_MOMENT = ColumnType(Kind.TIMESTAMP)


class Upstream(msgspec.Struct, frozen=True):
    """Something that a decorated view is made from, at a version of its log.

    Attributes:
        name: how the function knows it.
        of: the source, or the view.
        at: the version of its log.
    """

    name: str
    of: SourceTable | View
    at: TableVersion

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the function sees, save a view's event time."""
        if isinstance(self.of, SourceTable):
            return tuple(field.name for field in self.of.fields)
        return (*self.of.key_names, *(field.name for field in self.of.columns))


def derive_view(
    tables: TableStore,
    view: View,
    function: Callable[..., object],
    upstream: Sequence[Upstream],
    *,
    anew: bool = False,
    outside: Callable[[], bool] = lambda: False,
    judge: Judge | None = None,
) -> ViewUpdate:
    """Bring a decorated view's log up to versions of what it is made from; the same whoever does it.

    A view of one source with ``rows="each"`` runs its function over what is new: the history first, then each batch
    that arrived since. Any other view is computed whole, and so is one whose source has lost rows, or whose function
    reads what is no input of it; then the rows that differ from what the log answers are appended, and those that the
    function returns no more are taken away. A row became known when its batch did, or, where the function keeps the
    source's ``ingested`` column, when that says.

    Args:
        tables: the table store.
        view: the view.
        function: as `decorated.call` takes it.
        upstream: what it is made from, in declared order.
        anew: compute it whole, whatever is there.
        outside: asked after the function has run: whether it read what is no input of it.
        judge: is shown the rows before they are appended; one that only refuses when left out.

    Raises:
        UserCodeError: MS-2118, the function failed.
        DataError: MS-2119, it returned other columns than it should; MS-2180, a check refuses what it returned.
    """
    with tables.writing(view.log):
        work = _Work(tables, view, function, upstream, outside, judge or refuse_failing(view))
        if work.by_increments:
            forget_another(tables, view.log, upstream[0].of.log)
        if work.by_increments and not anew and not tables.mark(view.log, _OUTSIDE_MARK):
            update = _increments(work, upstream[0])
            if update is not None:
                return update
        return _whole(work)


def derived_ahead(
    tables: TableStore, view: View, function: Callable[..., object], source: SourceTable, rows: pa.Table
) -> pa.Table | None:
    """What a view that follows pushes makes of rows that are not in its source's table yet, to answer with till then.

    Args:
        tables: the table store.
        view: a view of that one source with ``rows="each"``.
        function: as `decorated.call` takes it.
        source: the source.
        rows: of its log.

    Returns:
        Rows of the view's log with a `SEQ` before all others, so that those of the log take their place; None when
        the view was never made, or is computed whole each time.

    Raises:
        UserCodeError, DataError: as `derive_view`.
    """
    if not tables.has(view.log, 0) or tables.mark(view.log, _OUTSIDE_MARK):
        return None
    upstream = Upstream(source.name, source, TableVersion(source.log, -1))
    parts = [
        _made(view, function, {source.name: batch}, [upstream], None if history else _arrival([batch]))
        for batch, history in _batches(upstream, rows)
    ]
    made = pa.concat_tables([log_schema(view).empty_table(), *parts])
    ahead = pa.array([-1] * len(made), pa.int64())
    return made.set_column(made.schema.get_field_index(SEQ), made.schema.field(SEQ), ahead)


class _Work(msgspec.Struct, frozen=True):
    tables: TableStore
    view: View
    function: Callable[..., object]
    upstream: Sequence[Upstream]
    outside: Callable[[], bool]
    judge: Judge

    @property
    def by_increments(self) -> bool:
        # A view's log numbers its rows by itself, so that what is new in it is not told by the source's numbers.
        return self.view.rows == "each" and len(self.upstream) == 1 and isinstance(self.upstream[0].of, SourceTable)

    @property
    def made(self) -> int:
        return (self.tables.mark(self.upstream[0].of.log, MADE_MARK) or 0) if self.by_increments else 0

    @property
    def through(self) -> int:
        return max(item.at.through for item in self.upstream)


def _increments(work: _Work, upstream: Upstream) -> ViewUpdate | None:
    """What is new, through the function; None when that does not do, and the whole must be computed."""
    tables, view = work.tables, work.view
    mark = tables.mark(view.log, SEQ_MARK)
    reached = -1 if mark is None else mark
    there = tables.version(view.log) is not None
    if there and reached >= upstream.at.through:
        return ViewUpdate(reaching(tables, view.log, upstream.at.through), log_schema(view).empty_table())
    rows = rows_since(tables, upstream.of.log, upstream.at.version, reached)
    if there and rows.column(RETRACTS).null_count < len(rows):
        return None
    parts = [
        _made(view, work.function, {upstream.name: batch}, [upstream], None if history else _arrival([batch]))
        for batch, history in _batches(upstream, standing(rows))
    ]
    made = pa.concat_tables([log_schema(view).empty_table(), *parts])
    if there and work.outside():
        return None
    found = screen(view, made)
    work.judge(found)
    txn = Txn("rows", upstream.at.through + 1)
    return _append(work, found.rows, set_view_aside(tables, view, found.aside, txn), txn)


def _batches(upstream: Upstream, rows: pa.Table) -> Iterator[tuple[pa.Table, bool]]:
    """The history as one increment, then each batch as it came; with known ingest times all at once."""
    if isinstance(upstream.of, SourceTable) and upstream.of.ingested is not None:
        yield rows, True
        return
    history = rows.filter(rows.column(ASSUMED))
    if len(history) or not len(rows):
        yield history, True
    arrived = rows.filter(pc.invert(rows.column(ASSUMED)))
    for batch in pc.unique(arrived.column(BATCH)).to_pylist():
        yield arrived.filter(pc.equal(arrived.column(BATCH), batch)), False


def _whole(work: _Work) -> ViewUpdate:
    """All of it; what differs from what the log answers is appended, what is gone is taken away."""
    tables, view = work.tables, work.view
    frames = {item.name: rows_since(tables, item.of.log, item.at.version, -1) for item in work.upstream}
    before = newest(tables, view.log)
    arrival = _arrival(frames.values())
    frames = {name: standing(rows) for name, rows in frames.items()}
    found = screen(view, _made(view, work.function, frames, work.upstream, None if before is None else arrival))
    made = found.rows
    if before is not None:
        log = standing(read_log(tables, view.log))
        gone = _retracting(view, log.take(_vanished(view, made, log)), arrival)
        made = pa.concat_tables([gone, made.take(_changed(view, made, log))])
    work.judge(msgspec.structs.replace(found, rows=made))
    txn = Txn(_WHOLE, (tables.mark(view.log, _WHOLE) or 0) + 1)
    quarantined = set_view_aside(tables, view, found.aside, txn)
    if before is not None and not len(made) and (before.through >= work.through or not work.by_increments):
        return ViewUpdate(before, made)
    return _append(work, made, quarantined, txn)


def _made(
    view: View,
    function: Callable[..., object],
    frames: Mapping[str, pa.Table],
    upstream: Sequence[Upstream],
    arrival: pa.Scalar | None,
) -> pa.Table:
    """What the function makes of the rows, as rows of the view's log, in an order that does not depend on threads."""
    alive = {item.name: frames[item.name].filter(pc.invert(frames[item.name].column(DELETED))) for item in upstream}
    found = call(function, {item.name: _seen(item, alive[item.name]) for item in upstream}, view.name)
    first = upstream[0].of
    ingested = first.ingested if isinstance(first, SourceTable) else None
    roles = [FieldSpec(view.time, _MOMENT)]
    if ingested is not None and ingested in found.column_names:
        roles.append(FieldSpec(ingested, ColumnType(Kind.TIMESTAMP, True)))
    columns = conform(function, found, [*view.keys, *view.columns, *roles], view.name)
    known = pc.is_valid(columns[view.time])
    for key in view.key_names:
        known = pc.and_(known, pc.is_valid(columns[key]))
    given = columns.get(ingested) if ingested is not None else None
    table = _stamped(view, columns, given, arrival).filter(known)
    return _ordered(view, table)


def _arrival(frames: Iterable[pa.Table]) -> pa.Scalar:
    """When the newest of these rows became known."""
    return pc.max(pa.concat_tables([frame.select([INGEST]) for frame in frames]).column(INGEST))


def _seen(item: Upstream, rows: pa.Table) -> pa.Table:
    """The rows as the function sees them: the record's columns, or a view's keys, features and event time."""
    seen = rows.select(list(item.columns))
    if isinstance(item.of, View):
        seen = seen.append_column(item.of.time, rows.column(EVENT))
    return seen


def _stamped(
    view: View, columns: Mapping[str, pa.ChunkedArray], given: pa.ChunkedArray | None, arrival: pa.Scalar | None
) -> pa.Table:
    moment = columns[view.time]
    count = len(moment)
    fallback = moment if arrival is None else pa.chunked_array([pa.repeat(arrival, count)])
    ingest = fallback if given is None else pc.coalesce(given, fallback)
    assumed = pa.repeat(pa.scalar(arrival is None), count) if given is None else pc.is_null(given)
    system = {
        EVENT: moment,
        INGEST: ingest,
        SEQ: pa.array([0] * count, pa.int64()),
        DELETED: pa.repeat(pa.scalar(False), count),
        ASSUMED: assumed,
        HASH: pa.array([0] * count, pa.int32()),
        DEFINITION: pa.repeat(pa.scalar(view.version), count),
        BATCH: pa.repeat(pa.scalar(""), count),
        RETRACTS: pa.nulls(count, pa.int64()),
    }
    schema = log_schema(view)
    found = {**columns, **system}
    # A null key or time leaves with its row, a step later.
    loose = pa.schema([field.with_nullable(True) for field in schema])
    return pa.table([found[field.name].cast(field.type) for field in schema], schema=loose)


def _ordered(view: View, rows: pa.Table) -> pa.Table:
    """Sorted by everything that has an order: a function may return rows in any, and ties are decided by order."""
    names = [field.name for field in (*view.keys, *view.columns) if field.type.kind is not Kind.VECTOR]
    order = [(name, "ascending") for name in (EVENT, INGEST, *names)]
    return rows.sort_by(order).cast(log_schema(view))


def _retracting(view: View, gone: pa.Table, arrival: pa.Scalar) -> pa.Table:
    """Rows that take away others of the log, from a moment on."""
    count = len(gone)
    taking = {
        INGEST: pa.repeat(arrival, count),
        DELETED: pa.repeat(pa.scalar(True), count),
        ASSUMED: pa.repeat(pa.scalar(False), count),
        DEFINITION: pa.repeat(pa.scalar(view.version), count),
        RETRACTS: gone.column(SEQ),
    }
    schema = log_schema(view)
    return pa.table([taking.get(field.name, gone.column(field.name)) for field in schema], schema=schema)


def _append(work: _Work, made: pa.Table, quarantined: int, txn: Txn) -> ViewUpdate:
    tables, view = work.tables, work.view
    seq = sequence(tables.mark(view.log, _ROW_MARK), len(made))
    schema = made.schema
    for name, column in ((SEQ, seq), (HASH, key_hashes(made, view.keys))):
        made = made.set_column(schema.get_field_index(name), schema.field(name), column)
    batch = pa.repeat(pa.scalar(f"{txn.app_id}/{txn.n}"), len(made))
    made = made.set_column(schema.get_field_index(BATCH), schema.field(BATCH), batch)
    marks = {_ROW_MARK: seq[-1].as_py()} if len(seq) else {}
    marks |= {_OUTSIDE_MARK: 1} if work.outside() else {}
    return ViewUpdate(
        append_to_log(
            tables,
            view.log,
            made,
            txn,
            through=work.through,
            quarantined=quarantined,
            made=work.made,
            marks=marks,
            keys=view.key_names,
        ),
        made,
    )


def _changed(view: View, made: pa.Table, log: pa.Table) -> pa.Array:
    """Places of the rows that differ from what the log answers for their keys and moment."""
    keys = ", ".join(quoted(key) for key in view.key_names)
    same = " and ".join(
        f"n.{quoted(name)} is not distinct from h.{quoted(name)}"
        for name in (*view.key_names, EVENT, *(field.name for field in view.columns))
    )
    with connection() as opened:
        opened.register("made", made.append_column("rid", pa.array(range(len(made)), pa.int64())))
        opened.register("log", log)
        found = opened.sql(
            f"with h as (select * from log qualify row_number() over (partition by {keys}, {EVENT} "
            f"order by {INGEST} desc, {SEQ} desc) = 1), "
            f"n as (select * from made qualify row_number() over (partition by {keys}, {EVENT} order by rid desc) = 1) "
            f"select n.rid from n anti join h on {same} order by n.rid"
        ).to_arrow_table()
    return found.column("rid")


def _vanished(view: View, made: pa.Table, log: pa.Table) -> pa.Array:
    """Places of the log's rows whose keys and moment the function returns no more."""
    same = " and ".join(f"n.{quoted(name)} is not distinct from h.{quoted(name)}" for name in (*view.key_names, EVENT))
    with connection() as opened:
        opened.register("made", made)
        opened.register("log", log.append_column("place", pa.array(range(len(log)), pa.int64())))
        found = opened.sql(f"select h.place from log h anti join made n on {same} order by h.place").to_arrow_table()
    return found.column("place")
