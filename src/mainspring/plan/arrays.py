"""Arrays and tables as parts that can be encoded: equal content gives equal parts, however it lies in memory."""

from __future__ import annotations

import hashlib
import sys
from typing import TYPE_CHECKING, Any

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

__all__ = ["array_parts", "table_parts"]


def array_parts(value: Any) -> tuple[object, ...] | None:
    """Dtype, shape and a digest of the bytes of a NumPy array or scalar; None for anything else.

    Arrays of objects give their elements, structured ones their fields; every NaN is the same. Subclasses (masked
    arrays) are not looked at: they hold more than this.
    """
    numpy = sys.modules.get("numpy")
    if numpy is None or not (type(value) is numpy.ndarray or isinstance(value, numpy.generic)):
        return None
    array = numpy.asarray(value)
    if array.dtype.names is not None:
        return ("fields", array.shape, *((name, array_parts(array[name])) for name in array.dtype.names))
    if array.dtype.hasobject or array.dtype.kind == "T":
        return ("objects", array.shape, array.tolist())
    if array.dtype.kind in "fc":
        unknown = numpy.isnan(array)
        if unknown.any():  # NaNs have many bit patterns
            array = numpy.where(unknown, array.dtype.type(numpy.nan), array).astype(array.dtype)
    return (array.dtype.str, array.shape, _digest(array.tobytes()))


def table_parts(value: Any) -> tuple[object, ...] | None:
    """A digest of the Arrow IPC stream of a table, a frame or a column; None for anything else.

    What is read once or computed when it is read (readers, relations, lazy frames) is not looked at.
    """
    if not hasattr(type(value), "__arrow_c_stream__"):
        return _array(value)
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        table = pa.Table.from_pandas(value, preserve_index=True).replace_schema_metadata(None)
        return ("pandas", list(value.columns), list(value.index.names), dict(value.attrs), _stream(table))
    if hasattr(value, "read_next_batch") or type(value).__module__.partition(".")[0] in ("duckdb", "_duckdb"):
        return None
    if isinstance(value, pa.Table):
        return ("table", _stream(value))
    try:
        return ("table", _stream(pa.table(value)))
    except (TypeError, ValueError, pa.ArrowException):  # a column rather than a table
        return ("column", str(getattr(value, "name", "")), _stream(pa.table({"": pa.chunked_array(value)})))


def _array(value: Any) -> tuple[object, ...] | None:
    arrow = sys.modules.get("pyarrow")
    if arrow is None or not isinstance(value, arrow.Array):
        return None
    return ("array", _stream(pa.table({"": value})))


def _stream(table: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return _digest(sink.getvalue())


def _digest(content: Any) -> str:
    return hashlib.blake2b(content, digest_size=20).hexdigest()
