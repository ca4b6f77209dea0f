"""Labels that arrive as a file: CSV or Parquet with the columns ``id``, ``value``, ``at`` and perhaps ``name``."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from mainspring.errors import DataError
from mainspring.lazy import lazy
from mainspring.protocols.native.rest import moment_us

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq
else:
    pa, pc = lazy("pyarrow"), lazy("pyarrow.compute")
    pa_csv, pq = lazy("pyarrow.csv"), lazy("pyarrow.parquet")

__all__ = ["read_labels"]

_WANTED = ("id", "value", "at")


def read_labels(kind: Literal["csv", "parquet"], data: bytes) -> list[tuple[str, str, float, int]]:
    """The labels of a file, as (prediction id, name, value, at in UTC microseconds).

    ``value`` is a number or a truth; ``at`` a moment with its zone, or whole microseconds since 1970.

    Raises:
        DataError: MS-2305, it cannot be read, lacks a column, or a row has a null or no moment.
    """
    table = _table(kind, data)
    missing = [name for name in _WANTED if name not in table.column_names]
    if missing:
        raise _wrong(f"the labels have no column {', '.join(missing)}", f"there are {', '.join(table.column_names)}")
    for name in _WANTED:
        if table.column(name).null_count:
            row = pc.index(table.column(name).is_null(), True).as_py()
            raise _wrong(f"row {row} of the labels has no {name}", "all of id, value and at are needed")
    ids = table.column("id").cast(pa.string()).to_pylist()
    names = _names(table)
    return list(zip(ids, names, _values(table.column("value")), _moments(table.column("at")), strict=True))


def _table(kind: Literal["csv", "parquet"], data: bytes) -> pa.Table:
    try:
        if kind == "parquet":
            return pq.read_table(io.BytesIO(data))
        texts = {"id": pa.string(), "name": pa.string(), "at": pa.string()}
        return pa_csv.read_csv(io.BytesIO(data), convert_options=pa_csv.ConvertOptions(column_types=texts))
    except (pa.ArrowException, OSError) as error:
        raise _wrong("the labels cannot be read", str(error).partition("\n")[0]) from error


def _names(table: pa.Table) -> Sequence[str]:
    if "name" not in table.column_names:
        return [""] * len(table)
    return [name or "" for name in table.column("name").cast(pa.string()).to_pylist()]


def _values(column: pa.ChunkedArray) -> list[float]:
    if not (pa.types.is_boolean(column.type) or pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise _wrong(f"the labels' values are {column.type}", "a value is a number or a truth")
    values = [float(value) for value in column.to_pylist()]
    if not all(map(math.isfinite, values)):
        raise _wrong("a value of the labels is no finite number", "a value is a number or a truth")
    return values


def _moments(column: pa.ChunkedArray) -> list[int]:
    if pa.types.is_timestamp(column.type):
        if column.type.tz is None:
            raise _wrong("the labels' at has no time zone", "a moment without one may be any of 26")
        return [int(value) for value in column.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist()]
    if pa.types.is_integer(column.type):
        return [int(value) for value in column.to_pylist()]
    return [moment_us(int(text) if text.isdecimal() else text) for text in column.cast(pa.string()).to_pylist()]


def _wrong(what: str, why: str) -> DataError:
    return DataError(
        what, code="MS-2305", why=why, fix="send the columns id, value, at (2013-07-01T12:00:00Z) and perhaps name"
    )
