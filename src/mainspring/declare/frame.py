"""Tables as the user's functions see them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pandas as pd
    import polars as pl
    import pyarrow as pa
    from pyarrow import parquet
else:
    duckdb, np, pd, pl, pa = lazy("duckdb"), lazy("numpy"), lazy("pandas"), lazy("polars"), lazy("pyarrow")
    parquet = lazy("pyarrow.parquet")

__all__ = ["Frame"]


class Frame:
    """An immutable Arrow table with the views that libraries want.

    Args:
        data: a `pyarrow.Table`, a mapping of columns, or anything with the Arrow PyCapsule interface
            (`polars.DataFrame`, `duckdb` relations, `pandas.DataFrame`, ...).

    A frame is itself readable through the Arrow PyCapsule interface, without a copy.
    """

    __slots__ = ("_table", "_vector")

    def __init__(self, data: object) -> None:
        self._vector = False
        if isinstance(data, pa.Table):
            self._table = data
        elif isinstance(data, Mapping):
            self._table = pa.table(dict(data))
        elif hasattr(data, "collect"):  # polars.LazyFrame
            self._table = data.collect().to_arrow()
        else:
            self._table = pa.table(data)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __repr__(self) -> str:
        return f"Frame({len(self)} rows: {', '.join(self.columns)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and bool(self._table.equals(other._table))

    __hash__ = None  # type: ignore[assignment]

    def __getitem__(self, columns: str | list[str]) -> Frame:
        """The named columns, as a frame; of one name alone, ``frame["late"]``, `numpy` gives a vector."""
        found = Frame(self._table.select([columns] if isinstance(columns, str) else columns))
        found._vector = isinstance(columns, str)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    @property
    def columns(self) -> list[str]:
        """The column names, in order."""
        return list(self._table.column_names)

    def arrow(self) -> pa.Table:
        """The frame as a `pyarrow.Table`; no copy."""
        return self._table

    def polars(self) -> pl.DataFrame:
        """The frame as a `polars.DataFrame`; no copy where the types allow."""
        return pl.DataFrame(self._table)

    def pandas(self) -> pd.DataFrame:
        """The frame as a `pandas.DataFrame`; needs pandas, which Mainspring does not install."""
        return self._table.to_pandas()

    def parquet(self, path: Path | str) -> Path:
        """Write the frame to a Parquet file, whole or not at all: it is there at once, or what was there stays.

        Returns:
            The file.

        Raises:
            OSError: it cannot be written.
        """
        file = Path(path)
        beside = file.with_name(f".{file.name}.{os.getpid()}.part")
        try:
            parquet.write_table(self._table, beside)
            beside.replace(file)
        finally:
            beside.unlink(missing_ok=True)
        return file

    def numpy(self) -> np.ndarray[Any, np.dtype[Any]]:
        """The frame as a matrix (rows, columns) float64; of one column by its name, a vector (rows,) float64.

        A trainer's inputs are a matrix, however few they are, and its label is a vector: ``frame[["distance"]]`` and
        ``frame["late"]``.

        Nulls become NaN, booleans 0 and 1, timestamps and dates microseconds and days since 1970. A vector of k
        numbers becomes k columns, and alone a matrix (rows, k). Text becomes
        the position of the value among the sorted distinct ones only through an encoder of the model's own, so
        it is refused here.

        Raises:
            TypeError: a column holds text, bytes or lists.
        """
        vectors = [_numbers(name, column) for name, column in zip(self.columns, self._table.columns, strict=True)]
        if self._vector:
            return vectors[0]
        return np.column_stack(vectors) if vectors else np.empty((len(self), 0))

    def sql(self, query: str) -> Frame:
        """The answer of a DuckDB query over this frame, which the query calls ``frame``."""
        with duckdb.connect(":memory:") as connection:
            connection.execute("set timezone = 'UTC'")
            connection.register("frame", self._table)
            return Frame(connection.sql(query).to_arrow_table())


def _number_tests() -> tuple[Callable[[pa.DataType], bool], ...]:
    return (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)


def _numbers(name: str, column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[Any]]:
    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date64(kind):
        column = column.cast(pa.timestamp("us", tz=getattr(kind, "tz", None))).cast(pa.int64())
    elif pa.types.is_date32(kind):
        column = column.cast(pa.int32())
    elif pa.types.is_null(kind):
        column = column.cast(pa.float64())
    elif pa.types.is_fixed_size_list(kind) and any(is_number(kind.value_type) for is_number in _number_tests()):
        found = np.full((len(column), kind.list_size), np.nan)
        there = column.drop_null().combine_chunks()
        found[column.is_valid().to_numpy()] = _numbers(name, pa.chunked_array([there.flatten()])).reshape(
            -1, kind.list_size
        )
        return found
    elif not any(is_number(kind) for is_number in _number_tests()):
        raise TypeError(f"column {name!r} is {kind}, not a number; encode it first (.polars() or .arrow())")
    return _floats(column.cast(pa.float64(), safe=False).combine_chunks())


def _floats(numbers: pa.Array) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Numbers (rows,) with NaN for nulls, from the buffers: Arrow's own way imports pandas where it is installed."""
    valid, data = numbers.buffers()
    if data is None or not len(numbers):
        return np.full(len(numbers), np.nan)
    found = np.frombuffer(data, np.float64, len(numbers), numbers.offset * 8).copy()
    if numbers.null_count:
        stop = numbers.offset + len(numbers)
        found[np.unpackbits(np.frombuffer(valid, np.uint8), count=stop, bitorder="little")[numbers.offset :] == 0] = (
            np.nan
        )
    return found
