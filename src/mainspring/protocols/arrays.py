"""JSON values to arrays and back: nested lists, numbers with a missing one as null, texts, and bytes as base64."""

from __future__ import annotations

import base64
import binascii
import contextlib
import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from mainspring.protocols.http import Fault
from mainspring.serving.calls import DATATYPES, Array, Tensor, check_shape
from mainspring.serving.served import ServedModel

__all__ = [
    "FLOATS",
    "array_of",
    "as_declared",
    "finite",
    "flattened",
    "floats",
    "inputs_of_columns",
    "inputs_of_rows",
    "read_nested",
]

_DEEPEST = 16
_FEW = 64
"""Values that are looked at one by one: for so few, NumPy's own means cost more than the values."""
FLOATS: Mapping[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "FP64": np.dtype("<f8")}
"""The datatypes of nearly all models."""
_FLOAT32_MOST = (2 - 2**-23) * 2.0**127
_TAKEN: Mapping[str, frozenset[type]] = {
    "b": frozenset({bool}),
    "i": frozenset({int}),
    "u": frozenset({int}),
    "f": frozenset({int, float, type(None)}),
    "O": frozenset({str, dict}),
}
"""The JSON types of each kind of datatype; a missing number is null."""


def flattened(data: list[Any]) -> tuple[list[Any], list[int]]:
    """The values of nested lists in row-major order, and the shape that the lists have.

    Raises:
        Fault: 400, they are nested differently, or too deeply.
    """
    shape = [len(data)]
    while data and isinstance(data[0], list):
        if len(shape) > _DEEPEST:
            raise Fault(400, f"data is nested deeper than {_DEEPEST} lists")
        if set(map(type, data)) != {list} or len(set(map(len, data))) != 1:
            raise Fault(400, "nested data must be nested alike in every row")
        shape.append(len(data[0]))
        data = list(chain.from_iterable(data))
    return data, shape


def array_of(name: str, datatype: str, flat: list[Any]) -> Array:
    """Values as an array of a datatype.

    Raises:
        Fault: 400, a value is of another type, or outside the datatype.
    """
    kind = np.dtype(DATATYPES[datatype])
    types = set(map(type, flat))
    taken = _TAKEN[kind.kind]
    if not types <= taken:
        strange = next(value for value in flat if type(value) not in taken)
        raise Fault(400, f"input {name!r} holds {str(strange)[:40]!r}, which is no {datatype}")
    if kind.kind == "O":
        texts = np.empty(len(flat), object)
        texts[:] = [_bytes(name, value) for value in flat]
        return texts
    if datatype == "FP32" and type(None) not in types and _plainly_fit(flat):
        return np.array(flat, dtype=kind)
    if type(None) in types:
        flat = [math.nan if value is None else value for value in flat]
    with np.errstate(over="ignore"), contextlib.suppress(OverflowError):
        found = np.array(flat, dtype=kind)
        grown = kind.kind == "f" and kind.itemsize < 8 and np.isinf(found).any()
        if not grown or bool((np.isinf(found) == np.isinf(np.array(flat, dtype="f8"))).all()):
            return found
    raise Fault(400, f"input {name!r} holds a value outside {datatype}")


def floats(datatype: str, flat: list[float]) -> Array | None:
    """Finite numbers as an array of FP32 or FP64; None where one is outside of it."""
    if datatype == "FP64" or _plainly_fit(flat):
        return np.array(flat, FLOATS[datatype])
    with np.errstate(over="ignore"):
        found = np.array(flat, FLOATS[datatype])
    return None if np.isinf(found).any() else found


def _plainly_fit(flat: list[Any]) -> bool:
    """Whether a few numbers surely fit float32; one that is NaN may hide nothing: it is the extreme, or passed over."""
    return 0 < len(flat) <= _FEW and min(flat) >= -_FLOAT32_MOST and max(flat) <= _FLOAT32_MOST


def _bytes(name: str, value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if list(value) != ["b64"] or not isinstance(value["b64"], str):
        raise Fault(400, f'input {name!r} holds an object that is no {{"b64": text}}')
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError):
        raise Fault(400, f"input {name!r} holds text that is not in base64") from None


def as_declared(shape: list[int], declared: Tensor) -> list[int]:
    """A shape as it is declared: [rows, 1] is taken where a column has [rows]."""
    return shape[:1] if len(declared.shape) == 1 and len(shape) == 2 and shape[1] == 1 else shape


def read_nested(value: Any, declared: Tensor, max_rows: int) -> Array:
    """A JSON value as the array that a model takes; its shape is that of its lists.

    Raises:
        Fault: 400.
        Rejected: as `check_shape` raises.
    """
    flat, shape = flattened(value) if isinstance(value, list) else ([value], [])
    check_shape(declared.name, as_declared(shape, declared), declared, max_rows)
    return array_of(declared.name, declared.datatype, flat).reshape(shape)


def inputs_of_rows(rows: Any, served: ServedModel, max_rows: int) -> dict[str, Array]:
    """Rows as a model's inputs: each is the value of the only input, or an object of named inputs or columns.

    Raises:
        Fault: 400, they are no rows of this model; 413, there are too many.
        Rejected: as `read_nested` raises.
    """
    if not isinstance(rows, list) or not rows:
        raise Fault(400, "instances is a list of a row or more")
    if len(rows) > max_rows:
        raise Fault(413, f"{len(rows)} rows; at most {max_rows} are served at once")
    first = rows[0]
    if not isinstance(first, dict) or "b64" in first:
        return {served.inputs[0].name: read_nested(rows, _only(served), max_rows)}
    if set(map(type, rows)) != {dict} or any(row.keys() != first.keys() for row in rows):
        raise Fault(400, "every instance must have the same names")
    found = {}
    for tensor in _named(first, served):
        found[tensor.name] = read_nested([row[tensor.name] for row in rows], tensor, max_rows)
    return found


def inputs_of_columns(value: Any, served: ServedModel, max_rows: int) -> dict[str, Array]:
    """A value of the only input, or an object of named inputs or columns, as a model's inputs.

    Raises:
        Fault: 400, they are not this model's.
        Rejected: as `read_nested` raises.
    """
    if not isinstance(value, dict) or "b64" in value:
        return {served.inputs[0].name: read_nested(value, _only(served), max_rows)}
    return {tensor.name: read_nested(value[tensor.name], tensor, max_rows) for tensor in _named(value, served)}


def _only(served: ServedModel) -> Tensor:
    if len(served.inputs) != 1:
        names = ", ".join(tensor.name for tensor in served.inputs)
        raise Fault(400, f"model {served.name!r} has several inputs: {names}; name them")
    return served.inputs[0]


def _named(value: Mapping[str, Any], served: ServedModel) -> Sequence[Tensor]:
    """The tensors of an object's names.

    Raises:
        Fault: 400, one is unknown or missing.
    """
    declared = served.taken(tuple(value))
    names = [tensor.name for tensor in declared]
    if strange := next((name for name in value if name not in names), None):
        raise Fault(400, f"model {served.name!r} has no input {strange[:80]!r}; it takes {', '.join(names)}")
    if missing := [name for name in names if name not in value]:
        raise Fault(400, f"inputs are missing: {', '.join(missing)}")
    return declared


def finite(values: Array) -> bool:
    """Whether no value is NaN or infinite."""
    if values.dtype.kind != "f":
        return True
    if values.size <= _FEW:
        few = values.ravel().tolist()
        return math.isfinite(sum(few)) or all(map(math.isfinite, few))  # great ones may have a sum that is not
    return bool(np.isfinite(values).all())
