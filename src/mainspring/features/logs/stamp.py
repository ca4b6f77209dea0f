"""The system columns of a source's log, put to rows that arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainspring.features.logs.log import SourceTable, source_schema
from mainspring.features.view import stored_field
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    pa, pc = lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = ["constant", "stamp", "stored"]


def constant(value: object, rows: pa.Table) -> pa.Array:
    """A column of one value for some rows."""
    return pa.repeat(pa.scalar(value), len(rows))


def stored(source: SourceTable, rows: pa.Table) -> list[pa.ChunkedArray]:
    """The columns of a source's record in the types of its log."""
    return [rows.column(item.name).cast(stored_field(item).type) for item in source.fields]


def stamp(source: SourceTable, rows: pa.Table, seq: pa.Array, batch: str, arrived_us: int | None) -> pa.Table:
    """The rows with the system columns; `arrived_us` None takes the event time where nothing says better."""
    moment = pa.timestamp("us", "UTC")
    event = rows.column(source.time)
    arrival = event if arrived_us is None else pa.scalar(arrived_us, pa.int64()).cast(moment)
    given = rows.column(source.ingested) if source.ingested else pa.chunked_array([pa.nulls(len(rows), moment)])
    deleted = pc.fill_null(rows.column(source.deleted), False) if source.deleted else constant(False, rows)
    assumed = pc.is_null(given) if arrived_us is None else constant(False, rows)
    system = [event, pc.coalesce(given, arrival), seq, deleted, assumed, constant(batch, rows)]
    columns = [rows.column(item.name).cast(stored_field(item).type) for item in source.fields]
    retracts = pa.nulls(len(rows), pa.int64())
    return pa.table([*columns, *system, retracts], schema=source_schema(source))
