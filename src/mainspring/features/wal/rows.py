"""Pushed rows as the bytes that a write-ahead log keeps, and back as the rows of tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mainspring.features.logs.digest import content_digest
from mainspring.features.logs.ingest import REASON, Prepared
from mainspring.features.logs.log import PUSH_WRITER, SourceTable, numbered, source_schema
from mainspring.features.logs.stamp import stamp, stored
from mainspring.features.view import BATCH, RETRACTS, SEQ, stored_field
from mainspring.features.wal.frames import Entry
from mainspring.features.wal.log import Draft
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

__all__ = ["Pushed", "aside_schema", "drafted", "kept_schema", "logged_rows", "rows_aside"]

_GIVEN = (SEQ, BATCH, RETRACTS)
"""The columns that an entry's numbers tell."""

Pushed = tuple[Entry, bytes]
"""An entry and one of its bodies."""


def kept_schema(source: SourceTable) -> pa.Schema:
    """The schema of rows in the log of pushes: the source's log without what the entry says."""
    return pa.schema([field for field in source_schema(source) if field.name not in _GIVEN])


def aside_schema(source: SourceTable) -> pa.Schema:
    """The schema of rows that were set aside: the record's columns and the reason."""
    return pa.schema([*(stored_field(item) for item in source.fields), pa.field(REASON, pa.string())])


def drafted(source: SourceTable, prepared: Prepared, now_us: int, request_id: str | None) -> Draft:
    """A push as the log keeps it.

    Args:
        source: the source that is pushed to.
        prepared: its rows.
        now_us: the moment of arrival, in microseconds since 1970.
        request_id: the request's id, or None.
    """
    rows = stamp(source, prepared.rows, numbered(0, len(prepared.rows)), "", now_us).drop_columns(list(_GIVEN))
    aside = prepared.set_aside
    table = pa.table([*stored(source, aside), aside.column(REASON)], schema=aside_schema(source))
    asked = content_digest(prepared.given) if request_id else ""
    return Draft(_message(rows), len(rows), _message(table), len(table), dict(prepared.report), request_id, asked)


def _message(rows: pa.Table) -> bytes:
    if not len(rows):
        return b""
    (batch,) = rows.combine_chunks().to_batches()
    return batch.serialize().to_pybytes()  # type: ignore[no-any-return]


def logged_rows(schema: bytes, pushes: Sequence[Pushed]) -> pa.Table:
    """Pushes as rows of a source's log, in their order.

    Args:
        schema: of the rows, as the head of the write-ahead log has it.
        pushes: each with its rows.
    """
    kept = pa.ipc.read_schema(pa.py_buffer(schema))
    rows = _joined(kept, pushes)
    seq = [numbered(entry.counter, entry.rows, PUSH_WRITER) for entry, _ in pushes]
    batch = [pa.repeat(pa.scalar(entry.batch, pa.string()), entry.rows) for entry, _ in pushes]
    given = {
        SEQ: pa.chunked_array(seq, pa.int64()).combine_chunks(),
        BATCH: pa.chunked_array(batch, pa.string()).combine_chunks(),
        RETRACTS: pa.nulls(len(rows), pa.int64()),
    }
    names = _order(kept)
    fields = [kept.field(n) if n not in given else pa.field(n, given[n].type, nullable=n == RETRACTS) for n in names]
    return pa.table([given[n] if n in given else rows.column(n) for n in names], schema=pa.schema(fields))


def _order(kept: pa.Schema) -> list[str]:
    """The columns of the log in its order: `SEQ` stands before ``_deleted``, the others at the end."""
    names = list(kept.names)
    names.insert(len(names) - 2, SEQ)
    return [*names, BATCH, RETRACTS]


def rows_aside(schema: bytes, pushes: Sequence[Pushed]) -> pa.Table:
    """Pushes' rows that were set aside, as rows of the quarantine."""
    rows = _joined(pa.ipc.read_schema(pa.py_buffer(schema)), pushes)
    batch = [pa.repeat(pa.scalar(entry.batch, pa.string()), entry.aside) for entry, _ in pushes]
    return rows.append_column(BATCH, pa.chunked_array(batch, pa.string()).combine_chunks())


def _joined(schema: pa.Schema, pushes: Sequence[Pushed]) -> pa.Table:
    batches = [pa.ipc.read_record_batch(pa.py_buffer(body), schema) for _, body in pushes]
    return pa.Table.from_batches(batches, schema).combine_chunks()
