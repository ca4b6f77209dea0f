"""Records of the prediction log as Arrow columns, made from buffers.

The convenient way, ``pa.array`` of a NumPy array, imports pandas where it is installed, which takes a second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mainspring.lazy import lazy
from mainspring.serving.predlog.schema import ROLES, LogSchema

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Records = np.ndarray[tuple[int], np.dtype[np.void]]
else:
    np, pa = lazy("numpy"), lazy("pyarrow")

__all__ = ["HASH", "ROLE", "to_arrow"]

ROLE = "__role"
"""The column with what the version was to a rollout: ``stable``, ``canary`` or ``shadow``."""

HASH = "__hash"
"""What the name of a text column is followed by in the name of its hashes' column."""


def to_arrow(schema: LogSchema, records: Records, names: Mapping[int, str]) -> pa.Table:
    """Records as a table.

    Its columns are ``prediction_id`` (32 hex digits), ``at`` (event time, us, UTC), ``version``, ``weight``, ``slice``,
    ``__role``, the outputs, and the model's columns: numbers, truths, categories by their text. A text column is its
    length in characters, and beside it ``NAME__hash`` (the bits of the hash as int64).

    Args:
        schema: the records' schema.
        records: of the schema's dtype, (rows,).
        names: texts of categories by hash; a category without one is called ``#`` and its hash in hex.
    """
    columns: dict[str, pa.Array] = {
        "prediction_id": _ids(records["id"]),
        "at": _plain(records["ts"] // 1000, pa.int64()).cast(pa.timestamp("us", "UTC")),
        "version": _plain(records["version"].astype(np.int32), pa.int32()),
        "weight": _plain(records["weight"], pa.float32()),
        "slice": _plain(records["slice"].astype(np.int64), pa.int64()),
        ROLE: _roles(records["flags"]),
    }
    for place, output in enumerate(schema.outputs):
        columns[output] = _plain(records[f"o{place}"], pa.float64())
    for place, (name, kind) in enumerate(zip(schema.columns, schema.kinds_of(), strict=True)):
        word, bit = divmod(place, 64)
        null = (records[f"n{word}"] >> np.uint64(bit)) & np.uint64(1) == 1
        values = records[f"c{place}"]
        if kind == "category":
            columns[name] = _categories(values, null, names)
        elif kind == "bool":
            columns[name] = _bits(values != 0, null)
        elif kind == "text":
            columns[name] = _plain(values.astype(np.int64), pa.int64(), null)
            columns[name + HASH] = _plain(records[f"h{place}"].astype(np.int64), pa.int64(), null)
        else:
            columns[name] = _plain(values, {"f4": pa.float32(), "f8": pa.float64(), "i8": pa.int64()}[kind], null)
    return pa.table(columns)


def _roles(flags: NDArray[np.uint16]) -> pa.Array:
    places = ((flags >> np.uint16(1)) & np.uint16(3)).astype(np.int32)
    names = sorted(ROLES, key=lambda name: ROLES[name])
    return pa.DictionaryArray.from_arrays(_plain(places, pa.int32()), _texts(names)).dictionary_decode()


def _texts(texts: Sequence[str]) -> pa.Array:
    encoded = [text.encode() for text in texts]
    offsets = np.concatenate(([0], np.cumsum([len(text) for text in encoded]))).astype(np.int32)
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded)))


def _ids(ids: NDArray[np.void]) -> pa.Array:
    text = np.ascontiguousarray(ids).tobytes().hex().encode()
    offsets = np.arange(len(ids) + 1, dtype=np.int32) * 32
    return pa.StringArray.from_buffers(len(ids), pa.py_buffer(offsets), pa.py_buffer(text))


def _plain(values: NDArray[Any], kind: pa.DataType, null: NDArray[np.bool_] | None = None) -> pa.Array:
    data = pa.py_buffer(np.ascontiguousarray(values))
    return pa.Array.from_buffers(kind, len(values), [_validity(null), data])


def _bits(values: NDArray[np.bool_], null: NDArray[np.bool_]) -> pa.Array:
    data = pa.py_buffer(np.packbits(values, bitorder="little"))
    return pa.Array.from_buffers(pa.bool_(), len(values), [_validity(null), data])


def _validity(null: NDArray[np.bool_] | None) -> pa.Buffer | None:
    if null is None or not null.any():
        return None
    return pa.py_buffer(np.packbits(~null, bitorder="little"))


def _categories(codes: NDArray[np.uint64], null: NDArray[np.bool_], names: Mapping[int, str]) -> pa.Array:
    distinct, places = np.unique(codes, return_inverse=True)
    words = [names.get(code, f"#{code:016x}") for code in distinct.tolist()]
    indices = _plain(places.astype(np.int32), pa.int32(), null)
    return pa.DictionaryArray.from_arrays(indices, _texts(words)).dictionary_decode()
