"""What a source's files or table hold beside what its log does: rows that are new, and rows that are gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec
from msgspec.structs import replace

from mainspring.features.duck import connection, literal, quoted
from mainspring.features.logs.log import WRITERS, SourceTable, numbered, source_schema
from mainspring.features.logs.stamp import constant, stamp, stored
from mainspring.features.view import RETRACTS, SEQ, stored_field
from mainspring.lazy import lazy
from mainspring.ports.tables import Limits, RowStream, TableStore

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from numpy.typing import NDArray

    Truths: TypeAlias = NDArray[np.bool_]
else:
    np, pa, pc = lazy("numpy"), lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = ["NewRows", "difference", "stamped"]

_MEMORY = "1GiB"
"""What comparing may hold where no setting says; the rest goes to files."""


class NewRows(msgspec.Struct, frozen=True):
    """Rows of which some are new.

    Attributes:
        rows: all of them, as they came.
        release: lets go of the memory of rows that wait in files.
        new: which are new, (rows,) bool; None for all.
        gone: rows of the log that are there no more, with their `_seq`; None when there is none.
    """

    rows: pa.Table
    release: Callable[[], None]
    new: Truths | None = None
    gone: pa.Table | None = None

    @property
    def count(self) -> int:
        """How many are new."""
        return len(self.rows) if self.new is None else int(self.new.sum())

    def of(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The new rows, or columns of them."""
        rows = self.rows if columns is None else self.rows.select(list(columns))
        return rows if self.new is None else rows.filter(pa.array(self.new))

    def parts(self) -> Iterator[pa.Table]:
        """The new rows, part by part; no part is empty."""
        place = 0
        for batch in self.rows.to_batches():
            part = pa.Table.from_batches([batch])
            if self.new is not None:
                part = part.filter(pa.array(self.new[place : place + len(batch)]))
                place += len(batch)
            if len(part):
                yield part
            self.release()


def stamped(
    source: SourceTable, rows: NewRows, start: int, batch: str, now_us: int, *, known_from_event: bool
) -> RowStream:
    """Rows as a source's log takes them: first those that take away what is gone, then the new ones.

    Args:
        source: the source.
        rows: what is new and what is gone.
        start: the counter of the first `_seq`.
        batch: who brings them.
        now_us: the moment of arrival, in microseconds since 1970.
        known_from_event: whether new rows count as known from their event time on.
    """
    taken = 0 if rows.gone is None else len(rows.gone)

    def batches() -> Iterator[pa.RecordBatch]:
        if rows.gone is not None:
            yield from _retracting(source, rows.gone, numbered(start, taken), batch, now_us).to_batches()
        counter = start + taken
        for part in rows.parts():
            seq = numbered(counter, len(part))
            yield from stamp(source, part, seq, batch, None if known_from_event else now_us).to_batches()
            counter += len(part)

    return RowStream(source_schema(source), taken + rows.count, batches)


def _retracting(source: SourceTable, gone: pa.Table, seq: pa.Array, batch: str, now_us: int) -> pa.Table:
    """Rows that take away others, from now on."""
    now = pa.repeat(pa.scalar(now_us, pa.int64()).cast(pa.timestamp("us", "UTC")), len(gone))
    columns = [gone.column(item.name) for item in source.fields]
    system = [gone.column(source.time), now, seq, constant(True, gone), constant(False, gone), constant(batch, gone)]
    return pa.table([*columns, *system, gone.column(SEQ)], schema=source_schema(source))


def difference(tables: TableStore, rows: NewRows, source: SourceTable) -> NewRows:
    """Which rows a log does not hold, and the log's rows that came from files and are not in them any more.

    Rows are compared with those that stand, each as often as it is there; a pushed row stands for one of the files.
    Where the source has an id, all rows of an event that lost one are gone and come anew.
    """
    limits = tables.limits
    if limits.memory is None:
        limits = Limits(_MEMORY, str(tables.beside(".spill")))
    names = [item.name for item in source.fields]
    listed = ", ".join(quoted(name) for name in names)
    same = " and ".join(f"a.{quoted(name)} is not distinct from b.{quoted(name)}" for name in names)
    with connection(limits) as opened:
        _views(opened, tables, rows.rows, source)
        new = _truths(
            len(rows.rows),
            opened.sql(
                f"with a as (select *, row_number() over (partition by {listed} order by rid) as copy from incoming), "
                f"b as (select {listed}, count(*) as copies from held group by all) "
                f"select a.rid from a left join b on {same} where a.copy > coalesce(b.copies, 0)"
            ),
        )
        opened.execute(
            f"create temp table lost as with "
            f"a as (select *, row_number() over (partition by {listed} order by {SEQ}) as copy from held "
            f"where {SEQ} & {WRITERS} = 0), b as (select {listed}, count(*) as copies from incoming group by all) "
            f"select a.{SEQ} from a left join b on {same} where a.copy > coalesce(b.copies, 0)"
        )
        gone = _gone(opened, source, f"{SEQ} in (from lost)")
        if source.id is not None and len(gone):
            ids = pc.unique(gone.column(source.id)).drop_null()
            new |= pc.is_in(rows.rows.column(source.id), ids).to_numpy()
            opened.register("ids", pa.table({"id": ids}))
            filed = f"{SEQ} & {WRITERS} = 0 and {quoted(source.id)} in (from ids)"
            gone = _gone(opened, source, f"{SEQ} in (from lost) or ({filed})")
    rows.release()
    return replace(rows, new=new, gone=gone if len(gone) else None)


def _views(opened: duckdb.DuckDBPyConnection, tables: TableStore, rows: pa.Table, source: SourceTable) -> None:
    """`incoming`, and `held`: the rows of the log that stand."""
    names = [item.name for item in source.fields]
    incoming = pa.table([*stored(source, rows), pa.array(np.arange(len(rows)))], names=[*names, "rid"])
    opened.register("incoming", incoming)
    files, kept = tables.files(source.log), ", ".join(quoted(name) for name in (*names, SEQ))
    if not files:
        opened.register("held", source_schema(source).empty_table())
        return
    listed = ", ".join(map(literal, files))
    opened.execute(
        f"create temp view logged as from read_parquet([{listed}], hive_partitioning = false, union_by_name = true)"
    )
    if RETRACTS not in tables.schema(source.log).names:
        opened.execute(f"create temp view held as select {kept} from logged")
        return
    opened.execute(
        f"create temp view held as select {kept} from logged l anti join "
        f"(select {RETRACTS} as taken from logged where {RETRACTS} is not null) t on l.{SEQ} = t.taken "
        f"where l.{RETRACTS} is null"
    )


def _truths(count: int, found: duckdb.DuckDBPyRelation) -> Truths:
    truths = np.zeros(count, np.bool_)
    truths[found.to_arrow_table().column(0).to_numpy()] = True
    return truths


def _gone(opened: duckdb.DuckDBPyConnection, source: SourceTable, where: str) -> pa.Table:
    """Rows of the log that stand, in order."""
    fields = [*(stored_field(item) for item in source.fields), pa.field(SEQ, pa.int64())]
    found = opened.sql(f"from held where {where} order by {SEQ}").to_arrow_table()
    return pa.table([found.column(field.name).cast(field.type) for field in fields], schema=pa.schema(fields))
