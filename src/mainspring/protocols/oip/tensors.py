"""OIP v2 tensors both ways, in JSON and in the binary tensor extension (Open Inference Protocol, REST)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mainspring.protocols.arrays import array_of, as_declared, finite, flattened
from mainspring.protocols.http import Fault
from mainspring.serving.calls import DATATYPES, MAX_ELEMENTS, Array, Tensor, check_shape

__all__ = ["SIZES", "read_bytes", "read_tensor", "write_bytes", "write_tensor"]

_BINARY_ONLY = ("FP16", "BF16")
"""The datatypes without a form in JSON."""
SIZES: Mapping[str, int] = {
    name: 2 if name == "BF16" else np.dtype(kind).itemsize for name, kind in DATATYPES.items() if name != "BYTES"
}
"""Bytes of an element in the binary tensor extension."""


def read_tensor(
    item: Mapping[str, Any], declared: Tensor, raw: memoryview | None = None, max_rows: int = MAX_ELEMENTS
) -> Array:
    """A request's tensor as an array of its shape, (rows, ..).

    Args:
        item: the tensor in JSON.
        declared: what the model takes.
        raw: its bytes, when they come behind the JSON.
        max_rows: the most rows.

    Raises:
        Fault: 400, the datatype or data do not fit.
        Rejected: as `check_shape` raises; nothing is allocated for a shape that lies.
    """
    name = declared.name
    datatype, shape = item.get("datatype"), item.get("shape")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise Fault(400, f"input {name!r} has datatype {datatype!r}; known: {', '.join(DATATYPES)}")
    if (datatype == "BYTES") != (declared.datatype == "BYTES"):
        raise Fault(400, f"input {name!r} has datatype {datatype}; the model takes {declared.datatype}")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise Fault(400, f"input {name!r} has no shape of whole numbers")
    count = check_shape(name, as_declared(shape, declared), declared, max_rows)
    if raw is not None:
        return read_bytes(name, datatype, raw, count).reshape(shape)
    data = item.get("data")
    if not isinstance(data, list):
        raise Fault(400, f"input {name!r} has no data")
    if datatype in _BINARY_ONLY:
        raise Fault(400, f"input {name!r} has datatype {datatype}, which has no form in JSON; send it as binary data")
    flat, _ = flattened(data)
    if len(flat) != count:
        raise Fault(400, f"input {name!r} has {len(flat)} values for shape {shape}")
    return array_of(name, datatype, flat).reshape(shape)


def read_bytes(name: str, datatype: str, raw: memoryview, count: int) -> Array:
    """Elements in the binary tensor extension: little-endian, row-major; a view of `raw` where it can be one.

    Raises:
        Fault: 400, there are more or fewer bytes than `count` elements have.
    """
    if datatype == "BYTES":
        return _texts(name, raw, count)
    if len(raw) != count * SIZES[datatype]:
        raise Fault(400, f"input {name!r} has {len(raw)} bytes for {count} elements of {datatype}")
    if datatype == "BF16":
        return np.asarray((np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4"))
    if datatype == "BOOL":
        return np.asarray(np.frombuffer(raw, "u1") != 0)
    return np.frombuffer(raw, np.dtype(DATATYPES[datatype]).newbyteorder("<"))


def _texts(name: str, raw: memoryview, count: int) -> Array:
    found: list[bytes] = []
    place = 0
    while place < len(raw):
        end = place + 4 + int.from_bytes(raw[place : place + 4], "little")
        if place + 4 > len(raw) or end > len(raw) or len(found) == count:
            break
        found.append(bytes(raw[place + 4 : end]))
        place = end
    if place != len(raw) or len(found) != count:
        raise Fault(400, f"input {name!r} has no {count} elements of BYTES in its {len(raw)} bytes")
    texts = np.empty(count, object)
    texts[:] = found
    return texts


def write_tensor(tensor: Tensor, values: Array) -> tuple[dict[str, Any], bool]:
    """An answer's tensor in JSON, and whether all of it is finite.

    Raises:
        Fault: 400, its datatype has no form in JSON; 501, its bytes are no text.
    """
    if tensor.datatype in _BINARY_ONLY:
        raise Fault(400, f"output {tensor.name!r} has datatype {tensor.datatype}; ask for it as binary data")
    all_finite = finite(values)
    data = values.ravel().tolist()
    if tensor.datatype == "BYTES":
        try:
            data = [value.decode() if isinstance(value, bytes) else str(value) for value in data]
        except UnicodeDecodeError:
            raise Fault(400, f"output {tensor.name!r} is no text; ask for it as binary data") from None
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(values.shape), "data": data}, all_finite


def write_bytes(tensor: Tensor, values: Array) -> bytes:
    """An answer's elements in the binary tensor extension."""
    if tensor.datatype == "BYTES":
        texts = [value if isinstance(value, bytes) else str(value).encode() for value in values.ravel().tolist()]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    if tensor.datatype == "BF16":
        return bytes((np.ascontiguousarray(values, "<f4").view("<u4") >> 16).astype("<u2").tobytes())
    return bytes(np.ascontiguousarray(values, np.dtype(DATATYPES[tensor.datatype]).newbyteorder("<")).tobytes())
