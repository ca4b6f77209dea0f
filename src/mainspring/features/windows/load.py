"""From a log and a spine in DuckDB to sorted arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from mainspring.declare.aggregate import Function
from mainspring.declare.record import FieldSpec, Kind
from mainspring.features.duck import quoted
from mainspring.features.offline.asof import ENTITIES, QUESTIONS, spine_keys
from mainspring.features.view import DELETED, EVENT, INGEST, RETRACTS, SEQ, VERSION_ID, View
from mainspring.features.windows.timeline import FAR, Array, Events, Moments, Values
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    duckdb, np, pa, pc = lazy("duckdb"), lazy("numpy"), lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = ["Reach", "load_events", "load_moments", "rows_sql"]

_BATCH = 1 << 17


class Reach(msgspec.Struct, frozen=True):
    """The rows that a piece of the questions looks at.

    Attributes:
        first: the number of the first entity.
        end: one past the number of the last.
        since_us: rows at this moment or before are in no window; None where all rows are looked at.
        until_us: rows after this moment, or known only then, are in no window; None likewise.
    """

    first: int
    end: int
    since_us: int | None = None
    until_us: int | None = None


def load_moments(opened: duckdb.DuckDBPyConnection) -> Moments:
    """The questions, sorted."""
    found = opened.sql(f"select entity, t, rid from {QUESTIONS} order by entity, t, rid").to_arrow_table()
    return Moments(*(_numbers(found.column(name)) for name in ("entity", "t", "rid")))


def rows_sql(
    view: View,
    columns: Sequence[str],
    log: str,
    *,
    as_known: bool,
    since_us: int,
    until_us: int,
    retracted: bool = False,
) -> str:
    """SQL for the rows that may count, sorted: entity, event, visible, until, then the columns as ``c0`` ..

    Where the source names events (``id=``), only the version of each event that was known at the moment counts:
    a row ends when the next version becomes known. When all counts, only the last version of each event does.

    Args:
        view: whose log it is.
        columns: the value columns to load.
        log: SQL of the log's relation.
        as_known: whether rows count only from their ingest time on.
        since_us: rows at this moment or before are in no window.
        until_us: rows after this moment are in no window.
        retracted: whether rows of the log take others away: those count until then.
    """
    names = spine_keys(len(view.keys))
    keys = ", ".join(f"{quoted(key)} as {name}" for key, name in zip(view.key_names, names, strict=True))
    wide = "".join(f", {_loaded(view, view.column(column))} as c{index}" for index, column in enumerate(columns))
    versions, until, last, standing = "", str(FAR), "", ""
    if view.version_id is not None:
        # Rows without an id are events of their own.
        versions = f", {VERSION_ID} as version, case when {VERSION_ID} is null then {SEQ} end as own"
        until = f"coalesce(lead(ingest) over (partition by entity, version, own order by ingest, seq), {FAR})"
    mine = f"select *, {FAR} as ended from log join {ENTITIES} using ({', '.join(names)})"
    if retracted:
        taken = (
            f"select {RETRACTS} as seq, epoch_us(min({INGEST})) as gone from {log} "
            f"where {RETRACTS} is not null group by 1"
        )
        mine = f"from ({mine}) left join ({taken}) using (seq)"
        mine = f"select * exclude (ended, gone), coalesce(gone, ended) as ended {mine}"
        standing = f" where {RETRACTS} is null"
    if not as_known and (retracted or view.version_id is not None):
        last = f"and until = {FAR}"
    visible = "greatest(event, ingest)" if as_known else "event"
    known, revived = "versions", ""
    if retracted and view.version_id is not None:
        known, revived = "known", _revived("greatest(event, ingest, since)" if as_known else "event")
    carried = "".join(f", c{index}" for index in range(len(columns)))
    return f"""
with log as (
  select {keys}, epoch_us({EVENT}) as event, epoch_us({INGEST}) as ingest, {SEQ} as seq, {DELETED} as dead
         {versions}{wide}
  from {log}{standing}),
mine as ({mine}),
versions as (select *, {visible} as visible, least({until}, ended) as until from mine){revived}
select entity, event, visible, {"until" if as_known else FAR} as until{carried} from {known}
where not dead and event > {since_us} and event <= {until_us} and visible <= {until_us} and visible < until {last}
order by entity, event, ingest, seq
"""


def _revived(visible: str) -> str:
    """SQL for `known`: of events that lost a version, each version while it was the newest that stood.

    When a correction is taken away, the version before it counts again: it has several spans then, each a row.
    """
    event = "entity, version, own"
    return f""",
lost as (select distinct {event} from mine where ended < {FAR}),
touched as (select mine.* from mine semi join lost on {_same("mine", "lost")}),
bounds as (select distinct {event}, since from (
  select {event}, ingest as since from touched union all select {event}, ended from touched) where since < {FAR}),
newest as (
  select bounds.*, touched.seq from bounds left join touched
    on {_same("bounds", "touched")} and touched.ingest <= since and since < touched.ended
  qualify row_number() over (
    partition by bounds.entity, bounds.version, bounds.own, since order by touched.ingest desc, touched.seq desc) = 1),
spans as (select *, coalesce(lead(since) over (partition by {event} order by since), {FAR}) as until from newest),
known as (
  select * from versions anti join lost on {_same("versions", "lost")}
  union all by name
  select touched.*, {visible} as visible, until from spans join touched using (seq))"""


def _same(one: str, other: str) -> str:
    """SQL that two relations speak of the same event."""
    return " and ".join(f"{one}.{name} is not distinct from {other}.{name}" for name in ("entity", "version", "own"))


def load_events(
    opened: duckdb.DuckDBPyConnection, view: View, columns: Sequence[str], rows: str, reaches: Sequence[Reach]
) -> Iterator[Events]:
    """The rows of a statement, as it gives them out, piece by piece.

    Args:
        opened: the connection; nothing else may be asked of it until the last piece has come.
        view: whose log it is.
        columns: the value columns that the statement loads.
        rows: as `rows_sql` makes it.
        reaches: of each piece; they rise, by entity and then in time.
    """
    reader = opened.sql(rows).to_arrow_reader(_BATCH)
    rest = (batch for batch in reader if len(batch))
    waiting: list[pa.RecordBatch] = []
    for reach in reaches:
        waiting = [batch for batch in (_from(batch, reach) for batch in waiting) if len(batch)]
        while not waiting or not _is_behind(waiting[-1], reach):
            batch = next(rest, None)
            if batch is None:
                break
            batch = _from(batch, reach)
            waiting += [batch] if len(batch) else []
        mine = [batch for batch in (_of(batch, reach) for batch in waiting) if len(batch)]
        yield _events(pa.Table.from_batches(mine, reader.schema), view, columns)


def _from(batch: pa.RecordBatch, reach: Reach) -> pa.RecordBatch:
    """Without the rows in front of a piece, which no later one looks at either."""
    entity = batch.column(0).to_numpy()
    start, stop = np.searchsorted(entity, [reach.first, reach.first + 1])
    if reach.since_us is not None:
        start += np.searchsorted(batch.column(1).to_numpy()[start:stop], reach.since_us, "right")
    return batch.slice(int(start)) if start else batch


def _is_behind(batch: pa.RecordBatch, reach: Reach) -> bool:
    """Whether a batch's last row is behind a piece."""
    entity, event = batch.column(0)[-1].as_py(), batch.column(1)[-1].as_py()
    return bool(entity >= reach.end or (reach.until_us is not None and event > reach.until_us))


def _of(batch: pa.RecordBatch, reach: Reach) -> pa.RecordBatch:
    """The rows of a piece, of those that are not in front of it."""
    stop = int(np.searchsorted(batch.column(0).to_numpy(), reach.end))
    mine = batch.slice(0, stop) if stop < len(batch) else batch
    if reach.until_us is None:
        return mine
    late = np.maximum(mine.column(1).to_numpy(), mine.column(2).to_numpy()) > reach.until_us
    return mine.filter(pa.array(~late)) if late.any() else mine


def _events(found: pa.Table, view: View, columns: Sequence[str]) -> Events:
    values = {column: _values(found.column(f"c{index}"), view.column(column)) for index, column in enumerate(columns)}
    entity, event, visible, end = (
        _numbers(found.column(name).cast(pa.int64())) for name in ("entity", "event", "visible", "until")
    )
    return Events(entity, event, visible, end, values)


def _loaded(view: View, field: FieldSpec) -> str:
    """Values as numbers where DuckDB can do it; vectors that are only counted are not read."""
    name = quoted(field.name)
    if field.type.kind is Kind.TIMESTAMP:
        return f"epoch_us({name})"
    uses = {feature.aggregate.function for feature in view.windowed if feature.column == field.name}
    if field.type.kind is Kind.VECTOR and uses <= {Function.COUNT}:
        return f"case when {name} is not null then 0 end"
    return name


def _numbers(column: pa.ChunkedArray) -> Array:
    return column.to_numpy()


def _values(column: pa.ChunkedArray, field: FieldSpec) -> Values:
    valid = pc.is_valid(column).to_numpy()
    kind = field.type.kind
    if kind in (Kind.STRING, Kind.BYTES, Kind.DECIMAL):
        return _ranked(column, valid)
    if kind is Kind.VECTOR and not pa.types.is_integer(column.type):
        return Values(np.arange(len(column)), valid, column.combine_chunks())
    if kind is Kind.FLOAT:
        return Values(pc.fill_null(column, 0.0).to_numpy(), valid)
    if kind in (Kind.BOOLEAN, Kind.DATE):
        column = column.cast(pa.int32() if kind is Kind.DATE else pa.int8())
    return Values(pc.fill_null(column.cast(pa.int64()), 0).to_numpy(), valid)


def _ranked(column: pa.ChunkedArray, valid: Array) -> Values:
    """Texts, bytes and decimals by their place among the distinct values, in order of bytes or of value."""
    labels = pc.unique(column.drop_null())
    labels = labels.take(pc.array_sort_indices(labels))
    places = pc.fill_null(pc.index_in(column, labels), 0)
    return Values(places.cast(pa.int64()).to_numpy(), valid, labels)
