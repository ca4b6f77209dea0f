"""Rows in CSV, NPY, Arrow and Parquet to a model's inputs; what they claim is checked before anything is allocated."""

from __future__ import annotations

import csv
import io
import math
import struct
from tokenize import TokenError
from typing import TYPE_CHECKING, Any

import numpy as np

from mainspring.lazy import lazy
from mainspring.protocols.http import Fault
from mainspring.serving.calls import Array, check_shape
from mainspring.serving.served import ServedModel

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.ipc as ipc
    import pyarrow.parquet as pq
else:
    pa, ipc, pq = lazy("pyarrow"), lazy("pyarrow.ipc"), lazy("pyarrow.parquet")

__all__ = ["read_arrow", "read_csv", "read_npy", "read_parquet"]

_LONGEST_HEADER = 4096
"""Bytes of an NPY header; numbers need about a hundred."""
_THRIFT = 1 << 20
"""Bytes of a text, and members of a list, in the metadata of a Parquet file."""
_WIDEST = 64
"""Bytes of a value in an inflated Parquet file that are believed."""


def read_csv(body: bytes, served: ServedModel, max_rows: int) -> dict[str, Array]:
    """Rows of numbers with commas between; a first row of names says in which order they are. Nothing is missing.

    Raises:
        Fault: 400, it is no CSV of this model; 413, there are too many rows.
    """
    try:
        rows = [row for row in csv.reader(io.StringIO(body.decode("utf-8-sig"), newline="")) if row]
    except (UnicodeDecodeError, csv.Error):
        raise Fault(400, "the body is no CSV in UTF-8") from None
    names = [tensor.name for tensor in served.columns]
    if rows and any(cell.strip() in names for cell in rows[0]):
        head = [cell.strip() for cell in rows.pop(0)]
        if sorted(head) != sorted(names):
            raise Fault(400, f"the CSV has the columns {', '.join(head)[:200]}; the model takes {', '.join(names)}")
    else:
        head = names
    if len(rows) > max_rows:
        raise Fault(413, f"{len(rows)} rows; at most {max_rows} are served at once")
    if not rows:
        raise Fault(400, "the CSV has no rows")
    for number, row in enumerate(rows):
        if len(row) != len(head):
            raise Fault(400, f"row {number + 1} of the CSV has {len(row)} values; the model takes {len(head)}")
    places = [head.index(name) for name in names]
    matrix = np.array([[_number(row[place], number) for place in places] for number, row in enumerate(rows)], "f8")
    return {served.inputs[0].name: matrix}


def _number(text: str, row: int) -> float:
    text = text.strip()
    if not text:
        return math.nan
    try:
        if "_" in text:
            raise ValueError
        return float(text)
    except ValueError:
        raise Fault(400, f"row {row + 1} of the CSV holds {text[:40]!r}, which is no number") from None


def read_npy(body: bytes, served: ServedModel, max_rows: int) -> dict[str, Array]:
    """A NumPy array (rows, columns) of numbers.

    Raises:
        Fault: 400, it is no NPY file of numbers.
        Rejected: as `check_shape` raises.
    """
    file = io.BytesIO(body)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, fortran, kind = read(file, max_header_size=_LONGEST_HEADER)
    except (ValueError, KeyError, TypeError, SyntaxError, TokenError, RecursionError, MemoryError):
        raise Fault(400, "the body is no NPY file of version 1 or 2") from None
    if kind.kind not in "fiub":
        raise Fault(400, f"the NPY file holds {kind}; the model takes numbers")
    tensor = served.inputs[0]
    shape = (1, *shape) if len(shape) == 1 else shape
    count = check_shape(tensor.name, shape, tensor, max_rows)
    data = memoryview(body)[file.tell() :]
    if len(data) != count * kind.itemsize:
        raise Fault(400, f"the NPY file has {len(data)} bytes for the shape {list(shape)} of {kind}")
    return {tensor.name: np.frombuffer(data, kind).reshape(shape, order="F" if fortran else "C")}


def read_arrow(body: bytes, served: ServedModel, max_rows: int) -> dict[str, Array]:
    """Arrow's IPC, as a stream or a file, with a column a column of the model.

    Raises:
        Fault: 400, it is no Arrow, its buffers are compressed, or it does not fit the model; 413, too many rows.
    """
    try:
        if body.startswith(b"ARROW1"):
            body = body[8:]  # behind the magic word a file is a stream, whose end it repeats
        _refuse_compressed(body)
        batches, rows = [], 0
        with ipc.open_stream(pa.py_buffer(body)) as reader:
            names = _columns(reader.schema, served)
            for batch in reader:
                rows += batch.num_rows
                _few(rows, max_rows)
                batch.validate(full=True)
                batches.append(batch)
        return _arrays(pa.Table.from_batches(batches, reader.schema), names)
    except (pa.ArrowException, OSError, ValueError, MemoryError, struct.error, IndexError):
        raise Fault(400, "the body is no Arrow stream or file") from None


def _refuse_compressed(body: bytes) -> None:
    """Refuse buffers that are compressed: how large they become is known only when they have become so."""
    source = pa.BufferReader(pa.py_buffer(body))
    while True:
        try:
            message = ipc.read_message(source)
        except EOFError:
            return
        if message.type != "schema" and _has_compression(message.metadata.to_pybytes()):
            raise Fault(400, "the Arrow buffers are compressed; send them plain, and the request with gzip")


def _has_compression(flat: bytes) -> bool:
    """Whether a record batch's message says that its buffers are compressed (Arrow's Message.fbs, RecordBatch)."""
    message = struct.unpack_from("<I", flat, 0)[0]
    header = _field(flat, message, 2)
    if header is None:
        return False
    batch = header + struct.unpack_from("<I", flat, header)[0]
    return _field(flat, batch, 3) is not None


def _field(flat: bytes, table: int, slot: int) -> int | None:
    """Where a field of a FlatBuffers table is; None when it is not there."""
    vtable = table - struct.unpack_from("<i", flat, table)[0]
    if vtable < 0 or 4 + 2 * slot >= struct.unpack_from("<H", flat, vtable)[0]:
        return None
    offset: int = struct.unpack_from("<H", flat, vtable + 4 + 2 * slot)[0]
    return table + offset if offset else None


def read_parquet(body: bytes, served: ServedModel, max_rows: int) -> dict[str, Array]:
    """A Parquet file with a column a column of the model.

    Raises:
        Fault: 400, it is no Parquet file, or does not fit the model; 413, it has too many rows, or is too large.
    """
    try:
        limits = {"thrift_string_size_limit": _THRIFT, "thrift_container_size_limit": _THRIFT}
        with pq.ParquetFile(pa.py_buffer(body), pre_buffer=False, **limits) as file:
            names = _columns(file.schema_arrow, served)
            _few(file.metadata.num_rows, max_rows)
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
            if sum(group.total_byte_size for group in groups) > _WIDEST * max_rows * len(names):
                raise Fault(413, "the Parquet file is larger than what is taken, when it is inflated")
            batches, rows = [], 0
            for batch in file.iter_batches(batch_size=max_rows + 1, columns=names, use_threads=False):
                rows += batch.num_rows
                _few(rows, max_rows)
                batches.append(batch)
            return _arrays(pa.Table.from_batches(batches, batches[0].schema) if batches else _none(), names)
    except (pa.ArrowException, OSError, ValueError, MemoryError):
        raise Fault(400, "the body is no Parquet file") from None


def _few(rows: int, max_rows: int) -> None:
    if rows > max_rows:
        raise Fault(413, f"{rows} rows; at most {max_rows} are served at once")


def _none() -> Any:
    raise Fault(400, "the table has no rows")


def _columns(schema: Any, served: ServedModel) -> list[str]:
    """The model's columns, all of them numbers in a schema."""
    names = [tensor.name for tensor in served.columns]
    if missing := [name for name in names if schema.names.count(name) != 1]:
        raise Fault(400, f"the table has no column {missing[0]!r}, or has it twice; the model takes {', '.join(names)}")
    for name in names:
        kind = schema.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise Fault(400, f"column {name!r} of the table is {kind}; the model takes numbers")
    return names


def _arrays(table: Any, names: list[str]) -> dict[str, Array]:
    if not table.num_rows:
        _none()
    found = {}
    for name in names:
        column = table.column(name)
        values = column.to_numpy() if not pa.types.is_boolean(column.type) else column.cast(pa.int8()).to_numpy()
        found[name] = values.astype("f8") if column.null_count else values
    return found
