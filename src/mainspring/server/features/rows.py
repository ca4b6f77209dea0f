"""Rows of a request as a table of a source's columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from mainspring.declare.record import Kind
from mainspring.errors import DataError
from mainspring.features.logs.log import SourceTable
from mainspring.features.view import arrow_type
from mainspring.lazy import lazy
from mainspring.protocols.http import Fault

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

__all__ = ["arrow_to_table", "rows_to_table"]

_ARROW_FILE = b"ARROW1"
_FINE = re.compile(r"[.,]\d{6}0*[1-9]")


def rows_to_table(source: SourceTable, rows: Sequence[Mapping[str, Any]], *, truncate: bool = False) -> pa.Table:
    """JSON rows as a table in the source's types; absent columns are null, unknown ones are refused.

    Args:
        source: what the rows should look like.
        rows: as they were sent.
        truncate: whether digits beyond microseconds are cut off times, instead of refused.

    Raises:
        DataError: MS-2304, a row does not fit the record.
    """
    known = {field.name for field in source.fields}
    for number, row in enumerate(rows):
        if extra := sorted(set(row) - known):
            raise DataError(
                f"row {number} has {', '.join(extra[:5])}, which source {source.name!r} does not have",
                code="MS-2304",
                fix=f"send {', '.join(field.name for field in source.fields)}",
            )
    columns = {}
    for field in source.fields:
        values = [row.get(field.name) for row in rows]
        try:
            if field.type.kind is Kind.TIMESTAMP:
                values = [None if value is None else _moment(value, truncate) for value in values]
            columns[field.name] = pa.array(values, arrow_type(field.type))
        except _TooFineError as error:
            raise DataError(
                f"column {field.name!r} of the rows is not {field.type}",
                code="MS-2304",
                why=str(error),
                fix=f'send microseconds at most, or have them cut off: sources.{source.name}.truncate = "us"',
            ) from error
        except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError, TypeError, OverflowError) as error:
            raise DataError(
                f"column {field.name!r} of the rows is not {field.type}",
                code="MS-2304",
                why=str(error),
                fix="send moments as 2013-07-01T12:00:00Z, numbers as numbers",
            ) from error
    return pa.table(columns)


def arrow_to_table(source: SourceTable, data: bytes, most: int, *, truncate: bool = False) -> pa.Table:
    """An Arrow stream or file as a table of a source's columns; absent columns are null, unknown ones are refused.

    Args:
        source: what the rows should look like.
        data: Arrow IPC, as a stream or as a file.
        most: most rows.
        truncate: as in `rows_to_table`.

    Raises:
        DataError: MS-2304, it cannot be read, or has a column that the source does not have.
        Fault: 413, too many rows.
    """
    try:
        opened = pa.ipc.open_file(data) if data.startswith(_ARROW_FILE) else pa.ipc.open_stream(data)
        table = opened.read_all()
        table.validate(full=True)  # it came over the wire: lengths and offsets may say anything
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            "the rows cannot be read as Arrow",
            code="MS-2304",
            why=str(error).partition("\n")[0],
            fix="send an Arrow IPC stream, whole, without compression that is not Arrow's own",
        ) from error
    if len(table) > most:
        raise Fault(413, f"{len(table)} rows; at most {most} are taken at once")
    known = [field.name for field in source.fields]
    extra = sorted(set(table.column_names) - set(known))
    if extra or len(set(table.column_names)) < len(table.column_names):
        raise DataError(
            f"the rows have {', '.join(extra[:5]) or 'a column twice'}, which source {source.name!r} does not have",
            code="MS-2304",
            fix=f"send {', '.join(known)}",
        )
    columns = {}
    for field in source.fields:
        if field.name not in table.column_names:
            columns[field.name] = pa.chunked_array([pa.nulls(len(table), arrow_type(field.type))])
            continue
        column = table.column(field.name)
        fine = pa.types.is_timestamp(column.type) and column.type.unit == "ns"
        columns[field.name] = (
            column.cast(pa.timestamp("us", column.type.tz), safe=False) if truncate and fine else column
        )
    return pa.table(columns)


class _TooFineError(Exception):
    """A moment has digits beyond microseconds."""


def _moment(value: object, truncate: bool) -> datetime:
    if not truncate and _FINE.search(str(value)):
        raise _TooFineError(f"{value!r} has digits beyond microseconds, which would be lost")
    found = datetime.fromisoformat(str(value))
    if found.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone")
    return found
