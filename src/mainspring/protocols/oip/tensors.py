"""OIP v2 tensors in JSON: datatypes, shapes and data, both ways (specification: Open Inference Protocol, REST)."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from mainspring.protocols.http import Fault

__all__ = ["DATATYPES", "Tensor", "decode_json", "encode_json", "read_tensor", "write_tensor"]

DATATYPES: Mapping[str, str] = {
    "BOOL": "?",
    "UINT8": "u1",
    "UINT16": "u2",
    "UINT32": "u4",
    "UINT64": "u8",
    "INT8": "i1",
    "INT16": "i2",
    "INT32": "i4",
    "INT64": "i8",
    "FP32": "f4",
    "FP64": "f8",
    "BYTES": "O",
}
"""OIP datatype to NumPy; FP16 and BF16 have no JSON form."""

MAX_ELEMENTS = 1 << 26


@dataclass(frozen=True, slots=True)
class Tensor:
    """What a model takes or gives: name, OIP datatype and shape; -1 is a free dimension."""

    name: str
    datatype: str
    shape: tuple[int, ...]


def decode_json(body: bytes) -> Any:
    """A JSON document; bare NaN and Infinity are let in.

    Raises:
        Fault: 400, it is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if any(word in body for word in (b"NaN", b"Infinity")):
            with contextlib.suppress(ValueError, RecursionError):
                return json.loads(body)
        raise Fault(400, f"the body is not JSON: {error.msg} at byte {error.pos}") from None


def encode_json(value: Any, *, finite: bool) -> bytes:
    """A JSON document; with `finite` False non-finite numbers are written bare, which orjson would make null."""
    return orjson.dumps(value) if finite else json.dumps(value, separators=(",", ":")).encode()


def read_tensor(item: Any, declared: Tensor, max_rows: int = MAX_ELEMENTS) -> np.ndarray[Any, Any]:
    """A request's tensor as an array of its shape, (rows, ..).

    Raises:
        Fault: 400, the datatype, shape or data do not fit; nothing is allocated for a shape that lies. 413, it has more
            than `max_rows` rows or 2^26 elements.
    """
    name = declared.name
    datatype, shape, data = item.get("datatype"), item.get("shape"), item.get("data")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise Fault(400, f"input {name!r} has datatype {datatype!r}; known: {', '.join(DATATYPES)}")
    if (datatype == "BYTES") != (declared.datatype == "BYTES"):
        raise Fault(400, f"input {name!r} has datatype {datatype}; the model takes {declared.datatype}")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise Fault(400, f"input {name!r} has no shape of whole numbers")
    _shape_fits(name, shape, declared)
    if not isinstance(data, list):
        raise Fault(400, f"input {name!r} has no data")
    if shape and shape[0] > max_rows:
        raise Fault(413, f"input {name!r} has {shape[0]} rows; at most {max_rows} are served at once")
    count = math.prod(shape)
    if count > MAX_ELEMENTS:
        raise Fault(413, f"input {name!r} has {count} elements; at most {MAX_ELEMENTS} are served")
    flat = _flat(data)
    if len(flat) != count:
        raise Fault(400, f"input {name!r} has {len(flat)} values for shape {shape}")
    return _array(name, datatype, flat).reshape(shape)


def _shape_fits(name: str, shape: Sequence[int], declared: Tensor) -> None:
    fits = len(shape) == len(declared.shape) and all(
        wanted in (-1, got) for got, wanted in zip(shape, declared.shape, strict=False)
    )
    if not fits:
        raise Fault(400, f"input {name!r} has shape {list(shape)}; the model takes {list(declared.shape)}")


def _flat(data: list[Any]) -> list[Any]:
    while data and isinstance(data[0], list):
        try:
            data = [value for row in data for value in row]
        except TypeError:
            raise Fault(400, "nested data must be nested alike in every row") from None
    return data


def _array(name: str, datatype: str, flat: list[Any]) -> np.ndarray[Any, Any]:
    kind = DATATYPES[datatype]
    wanted: tuple[type, ...] = (
        (bool,) if kind == "?" else (str,) if kind == "O" else (int,) if kind[0] in "iu" else (int, float)
    )
    allowed = (*wanted, type(None)) if kind[0] == "f" else wanted
    for value in flat:
        if type(value) not in allowed:
            raise Fault(400, f"input {name!r} holds {value!r}, which is no {datatype}")
    values = [math.nan if value is None else value for value in flat] if kind[0] == "f" else flat
    with np.errstate(over="ignore"), contextlib.suppress(OverflowError):
        found = np.array(values, dtype=kind)
        grown = kind == "f4" and np.isinf(found) & np.isfinite(np.array(values, dtype="f8"))
        if not np.any(grown):
            return found
    raise Fault(400, f"input {name!r} holds a value outside {datatype}")


def write_tensor(tensor: Tensor, values: np.ndarray[Any, Any]) -> tuple[dict[str, Any], bool]:
    """An answer's tensor, and whether all of it is finite."""
    finite = values.dtype.kind != "f" or bool(np.isfinite(values).all())
    data = values.ravel().tolist()
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(values.shape), "data": data}, finite
