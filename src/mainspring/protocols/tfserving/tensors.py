"""TensorProto both ways: the bytes of ``tensor_content``, or the values of the field of its type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mainspring.protocols.arrays import as_declared
from mainspring.protocols.http import Fault
from mainspring.protocols.oip.tensors import read_bytes
from mainspring.serving.calls import DATATYPES, Array, Tensor, check_shape

__all__ = ["TYPES", "read_proto", "write_proto"]

TYPES: Mapping[str, int] = {
    "FP32": 1, "FP64": 2, "INT32": 3, "UINT8": 4, "INT16": 5, "INT8": 6, "BYTES": 7, "INT64": 9, "BOOL": 10,
    "BF16": 14, "UINT16": 17, "FP16": 19, "UINT32": 22, "UINT64": 23,
}  # fmt: skip
"""Our datatypes as TensorFlow numbers its own."""

_DATATYPES = {number: name for name, number in TYPES.items()}
_FIELDS: Mapping[str, str] = {
    "FP32": "float_val",
    "FP64": "double_val",
    "INT8": "int_val",
    "INT16": "int_val",
    "INT32": "int_val",
    "UINT8": "int_val",
    "UINT16": "int_val",
    "BYTES": "string_val",
    "INT64": "int64_val",
    "BOOL": "bool_val",
    "FP16": "half_val",
    "BF16": "half_val",
    "UINT32": "uint32_val",
    "UINT64": "uint64_val",
}


def read_proto(proto: Any, declared: Tensor, max_rows: int) -> Array:
    """A tensor as an array of its shape, (rows, ..).

    Raises:
        Fault: 400, its type, shape or values do not fit.
        Rejected: as `check_shape` raises; nothing is allocated for a shape that lies.
    """
    name, datatype = declared.name, _DATATYPES.get(proto.dtype)
    if datatype is None:
        raise Fault(400, f"input {name!r} has no dtype that is taken: {proto.dtype}")
    if (datatype == "BYTES") != (declared.datatype == "BYTES"):
        raise Fault(400, f"input {name!r} is {datatype}; the model takes {declared.datatype}")
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if proto.tensor_shape.unknown_rank or (shape and min(shape) < 0):
        raise Fault(400, f"input {name!r} has no shape of whole numbers")
    count = check_shape(name, as_declared(shape, declared), declared, max_rows)
    content = proto.tensor_content
    if content and datatype == "BYTES":
        raise Fault(400, f"input {name!r} has its texts in tensor_content; send them in string_val")
    if content:
        return read_bytes(name, datatype, memoryview(content), count).reshape(shape)
    return _values(name, datatype, getattr(proto, _FIELDS[datatype]), count).reshape(shape)


def _values(name: str, datatype: str, values: Any, count: int) -> Array:
    """The values of a field; the last stands for those that are left out, and none for zeros (tensor.proto)."""
    given = len(values)
    if given > count:
        raise Fault(400, f"input {name!r} has {given} values for {count} elements")
    if datatype == "BYTES":
        texts = np.empty(count, object)
        texts[:] = [*values, *([values[-1] if given else b""] * (count - given))]
        return texts
    kind = np.dtype("u2" if datatype in ("FP16", "BF16") else DATATYPES[datatype])
    try:
        found = np.array(list(values), kind)
    except OverflowError:
        raise Fault(400, f"input {name!r} holds a value outside {datatype}") from None
    if given < count:
        rest = found[-1] if given else kind.type(0)
        found = np.concatenate((found, np.full(count - given, rest, kind)))
    if datatype == "FP16":
        return found.view("f2")
    if datatype == "BF16":
        return np.asarray((found.astype("u4") << 16).view("f4"))
    return found


def write_proto(into: Any, tensor: Tensor, values: Array) -> None:
    """Write an answer's tensor as the values of its type's field, which every client reads."""
    into.dtype = TYPES[tensor.datatype]
    for size in values.shape:
        into.tensor_shape.dim.add(size=size)
    flat = values.ravel()
    if tensor.datatype == "BYTES":
        into.string_val.extend([x if isinstance(x, bytes) else str(x).encode() for x in flat.tolist()])
        return
    if tensor.datatype == "FP16":
        flat = np.ascontiguousarray(flat, "f2").view("u2")
    elif tensor.datatype == "BF16":
        flat = np.ascontiguousarray(flat, "f4").view("u4") >> 16
    getattr(into, _FIELDS[tensor.datatype]).extend(flat.tolist())
