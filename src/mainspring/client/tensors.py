"""Tensors of the Open Inference Protocol's binary extension, to and from NumPy.

Source of the format: the Open Inference Protocol v2 and Triton's binary tensor data extension: little-endian,
row-major, a BYTES element has its length before it, as 4 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from mainspring.errors import DataError
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    np = lazy("numpy")

__all__ = ["Arrays", "array_of", "read_tensors", "write_tensors", "written"]

Arrays = Mapping[str, "npt.NDArray[np.generic]"]

_DATATYPES = {
    "?": "BOOL", "i1": "INT8", "i2": "INT16", "i4": "INT32", "i8": "INT64", "u1": "UINT8", "u2": "UINT16",
    "u4": "UINT32", "u8": "UINT64", "f2": "FP16", "f4": "FP32", "f8": "FP64",
}  # fmt: skip
_TYPES = {datatype: kind for kind, datatype in _DATATYPES.items()}


def write_tensors(
    inputs: Arrays, outputs: Sequence[str] = (), timeout_us: int | None = None, identity: str = ""
) -> tuple[bytes, int]:
    """A request: its bytes, and how many of them are JSON.

    Args:
        inputs: arrays of numbers, of booleans, or of text; by the name of the tensor.
        outputs: the tensors that are wanted; none is all.
        timeout_us: after how long nobody waits any more.
        identity: of the request.

    Raises:
        DataError: MS-2791, an array is of no type that the protocol has.
    """
    described, parts = [], []
    for name, given in inputs.items():
        array = np.asarray(given)
        datatype, data = written(name, array)
        described.append(
            {
                "name": name,
                "datatype": datatype,
                "shape": array.shape,
                "parameters": {"binary_data_size": len(data)},
            }
        )
        parts.append(data)
    head: dict[str, Any] = {"inputs": described, "parameters": {"binary_data_output": True}}
    if identity:
        head["id"] = identity
    if timeout_us is not None:
        head["parameters"]["timeout"] = timeout_us
    if outputs:
        head["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    told = orjson.dumps(head)
    return b"".join((told, *parts)), len(told)


def written(name: str, array: npt.NDArray[np.generic]) -> tuple[str, bytes]:
    """An array's datatype and its bytes.

    Args:
        name: of its tensor.
        array: of numbers, of booleans, or of text.

    Raises:
        DataError: MS-2791, it is of no type that the protocol has.
    """
    if array.dtype.kind in "OSU":
        elements = [one if isinstance(one, bytes) else str(one).encode() for one in array.ravel().tolist()]
        return "BYTES", b"".join([len(one).to_bytes(4, "little") + one for one in elements])
    little = array.dtype.newbyteorder("<").str.lstrip("<|").replace("b1", "?")
    datatype = _DATATYPES.get(little)
    if datatype is None:
        raise DataError(
            f"array {name!r} is of {array.dtype}, which no tensor is made of",
            code="MS-2791",
            fix="array.astype('float32'), or a list of text",
        )
    return datatype, np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def read_tensors(described: Sequence[Mapping[str, Any]], tail: memoryview) -> dict[str, npt.NDArray[np.generic]]:
    """The tensors of an answer.

    Args:
        described: its ``outputs``.
        tail: what follows its JSON.

    Raises:
        ValueError: it is none of the protocol.
    """
    found, place = {}, 0
    for one in described:
        datatype, shape = str(one["datatype"]), tuple(one["shape"])
        size = one.get("parameters", {}).get("binary_data_size")
        if size is None:
            kind = object if datatype == "BYTES" else np.dtype(_TYPES[datatype])
            found[one["name"]] = np.array(one["data"], kind).reshape(shape)
            continue
        data = tail[place : place + size]
        place += size
        found[one["name"]] = array_of(datatype, data, shape)
    return found


def array_of(datatype: str, data: memoryview, shape: Sequence[int]) -> npt.NDArray[np.generic]:
    """A tensor of its bytes.

    Raises:
        ValueError: they are not of this shape.
        KeyError: the datatype is none.
    """
    if datatype == "BYTES":
        return np.array(_elements(data), object).reshape(shape)
    return np.frombuffer(data, "<" + _TYPES[datatype].replace("?", "b1")).reshape(shape)


def _elements(data: memoryview) -> list[bytes]:
    found, place = [], 0
    while place < len(data):
        end = place + 4 + int.from_bytes(data[place : place + 4], "little")
        found.append(bytes(data[place + 4 : end]))
        place = end
    return found
