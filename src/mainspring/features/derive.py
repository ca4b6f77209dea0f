"""The logs of decorated views: increments through the user's function, or the whole anew and what changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mainspring.declare.origin import of_function
from mainspring.declare.record import ColumnType, FieldSpec, Kind
from mainspring.engine.context import running
from mainspring.errors import UserCodeError
from mainspring.features.decorated import call, conform
from mainspring.features.duck import connection, quoted
from mainspring.features.log import (
    SEQ_MARK,
    SourceTable,
    TableVersion,
    append_to_log,
    key_hashes,
    newest,
    noted,
    reaching,
    rows_since,
    sequence,
)
from mainspring.features.project import ViewUpdate
from mainspring.features.view import (
    ASSUMED,
    BATCH,
    DEFINITION,
    DELETED,
    EVENT,
    HASH,
    INGEST,
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

__all__ = ["Upstream", "derive_view"]

_ROW_MARK = "row"
_MOMENT = ColumnType(Kind.TIMESTAMP)


@dataclass(frozen=True, slots=True)
class Upstream:
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
    tables: TableStore, view: View, function: Callable[..., object], upstream: Sequence[Upstream]
) -> ViewUpdate:
    """Bring a decorated view's log up to versions of what it is made from; the same whoever does it.

    A view of one source with ``rows="each"`` runs its function over what is new: the history first, then each batch
    that arrived since. Any other view is computed whole, and the rows that differ from what its log answers are
    appended. A row became known when its batch did, or, where the function keeps the source's ``ingested`` column,
    when that says.

    Args:
        tables: the table store.
        view: the view.
        function: as `decorated.call` takes it.
        upstream: what it is made from, in declared order.

    Raises:
        UserCodeError: MS-2118, the function failed; MS-2122, it read what is none of its sources.
        DataError: MS-2119, it returned other columns than it should.
    """
    with tables.writing(view.log):
        if view.rows == "each" and len(upstream) == 1:
            return _increments(tables, view, function, upstream[0])
        return _whole(tables, view, function, upstream)


def _increments(tables: TableStore, view: View, function: Callable[..., object], upstream: Upstream) -> ViewUpdate:
    mark = tables.mark(view.log, SEQ_MARK)
    reached = -1 if mark is None else mark
    if tables.version(view.log) is not None and reached >= upstream.at.through:
        return ViewUpdate(reaching(tables, view.log, upstream.at.through), log_schema(view).empty_table())
    rows = rows_since(tables, upstream.of.log, upstream.at.version, reached)
    parts = [
        _made(view, function, {upstream.name: batch}, [upstream], history=history)
        for batch, history in _batches(upstream, rows)
    ]
    made = pa.concat_tables([log_schema(view).empty_table(), *parts])
    return _append(tables, view, made, Txn("rows", upstream.at.through + 1), upstream.at.through)


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


def _whole(tables: TableStore, view: View, function: Callable[..., object], upstream: Sequence[Upstream]) -> ViewUpdate:
    inputs = "\0".join(f"{item.name}\0{item.at.digest}" for item in upstream)
    txn = Txn(f"whole/{hashlib.blake2b(inputs.encode(), digest_size=16).hexdigest()}", 1)
    earlier = tables.commit_of(view.log, txn.app_id, 1)
    if earlier is not None:
        version = noted(view.log, earlier) or TableVersion(view.log, earlier.version)
        return ViewUpdate(version, log_schema(view).empty_table())
    frames = {item.name: rows_since(tables, item.of.log, item.at.version, -1) for item in upstream}
    before = newest(tables, view.log)
    made = _made(view, function, frames, upstream, history=before is None)
    if before is not None:
        made = made.take(_changed(view, made, tables.read(view.log)))
        if not len(made):
            return ViewUpdate(before, made)
    return _append(tables, view, made, txn, max(item.at.through for item in upstream))


def _refuse_unseen(view: View, function: Callable[..., object]) -> None:
    """Rows that stay in a log must not hang on what nobody sees change: a file, a variable, the network."""
    step = running()
    read = () if step is None else step.undeclared()
    if read:
        raise UserCodeError(
            f"the function of feature view {view.name!r} {read[0]}",
            code="MS-2122",
            why="rows that are made once are not made again, so a change of what is no source would never be seen",
            origin=str(of_function(function)),
            fix="declare the file as a source, and name it in app.features(...)",
        )


def _made(
    view: View,
    function: Callable[..., object],
    frames: Mapping[str, pa.Table],
    upstream: Sequence[Upstream],
    *,
    history: bool,
) -> pa.Table:
    """What the function makes of the rows, as rows of the view's log, in an order that does not depend on threads."""
    alive = {item.name: frames[item.name].filter(pc.invert(frames[item.name].column(DELETED))) for item in upstream}
    found = call(function, {item.name: _seen(item, alive[item.name]) for item in upstream}, view.name)
    _refuse_unseen(view, function)
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
    arrival = None if history else _arrival(frames.values())
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


def _append(tables: TableStore, view: View, made: pa.Table, txn: Txn, through: int) -> ViewUpdate:
    seq = sequence(tables.mark(view.log, _ROW_MARK), len(made))
    schema = made.schema
    for name, column in ((SEQ, seq), (HASH, key_hashes(made, view.keys))):
        made = made.set_column(schema.get_field_index(name), schema.field(name), column)
    batch = pa.repeat(pa.scalar(f"{txn.app_id}/{txn.n}"), len(made))
    made = made.set_column(schema.get_field_index(BATCH), schema.field(BATCH), batch)
    marks = {_ROW_MARK: seq[-1].as_py()} if len(seq) else {}
    return ViewUpdate(
        append_to_log(tables, view.log, made, txn, through=through, marks=marks, keys=view.key_names), made
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
