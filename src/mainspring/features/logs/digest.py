"""Digests of rows by content, taken whole or part by part."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    from numpy.typing import NDArray
else:
    np, pa, pc = lazy("numpy"), lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = ["ContentDigest", "content_digest"]

_SIZE = 16


def content_digest(table: pa.Table) -> str:
    """A digest of a table's names, types and values, whatever its chunks, offsets and bytes under nulls; 32 hex."""
    digest = ContentDigest(table.schema)
    digest.add(table)
    return digest.hexdigest()


class ContentDigest:
    """The digest of rows that come in parts; however they are cut, it is that of all of them in one table.

    Args:
        schema: the names and types of their columns.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._rows = 0
        self._columns = [_Column(field.type) for field in schema]

    def add(self, part: pa.Table) -> None:
        """Take the next rows."""
        self._rows += len(part)
        for digest, column in zip(self._columns, part.columns, strict=True):
            digest.add(column)

    def hexdigest(self) -> str:
        """The digest of what was taken so far, 32 hex digits; nothing can be taken after it."""
        hashed = hashlib.blake2b(digest_size=_SIZE)
        for field, column in zip(self._schema, self._columns, strict=True):
            hashed.update(f"{field.name}\0{field.type}\0{self._rows}\0".encode())
            hashed.update(column.digest())
        return hashed.hexdigest()


class _Column:
    """One column: which values there are, how long they are, and the values, each hashed by itself."""

    def __init__(self, kind: pa.DataType) -> None:
        self._valid, self._bits = _Bits(), _Bits()
        self._lengths, self._values = (hashlib.blake2b(digest_size=_SIZE) for _ in range(2))
        self._items = _Column(kind.value_type) if _is_list(kind) else None

    def add(self, column: pa.ChunkedArray) -> None:
        self._valid.add(pc.is_valid(column).to_numpy())
        kept = column.drop_null()
        if self._items is not None:
            self._lengths.update(np.ascontiguousarray(pc.list_value_length(kept).to_numpy()).tobytes())
            self._items.add(pc.list_flatten(kept))
        elif pa.types.is_string(kept.type) or pa.types.is_binary(kept.type):
            self._lengths.update(np.ascontiguousarray(pc.binary_length(kept).to_numpy()).tobytes())
            joined = pc.binary_join(_one_list(kept.cast(pa.binary())), b"") if len(kept) else None
            self._values.update(b"" if joined is None else joined[0].as_buffer())
        elif pa.types.is_decimal(kept.type):
            self._values.update("".join(f"{value}\0" for value in kept.to_pylist()).encode())
        elif pa.types.is_boolean(kept.type):
            self._bits.add(kept.to_numpy())
        else:
            width = kept.type.bit_width
            self._values.update(np.ascontiguousarray(kept.cast(_number(kept.type, width)).to_numpy()).tobytes())

    def digest(self) -> bytes:
        """Of all parts."""
        items = b"" if self._items is None else self._items.digest()
        return b"".join(
            [self._valid.digest(), self._bits.digest(), self._lengths.digest(), self._values.digest(), items]
        )


class _Bits:
    """Truths, eight a byte, wherever the parts end."""

    def __init__(self) -> None:
        self._hashed = hashlib.blake2b(digest_size=_SIZE)
        self._left: NDArray[np.bool_] = np.zeros(0, np.bool_)

    def add(self, truths: NDArray[np.bool_]) -> None:
        truths = np.concatenate([self._left, truths.astype(np.bool_)])
        whole = len(truths) // 8 * 8
        self._hashed.update(np.packbits(truths[:whole]).tobytes())
        self._left = truths[whole:]

    def digest(self) -> bytes:
        hashed = self._hashed.copy()
        hashed.update(np.packbits(self._left).tobytes())
        return hashed.digest()


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind))


def _number(kind: pa.DataType, width: int) -> pa.DataType:
    if pa.types.is_temporal(kind):
        return pa.int64() if width == 64 else pa.int32()
    return kind


def _one_list(values: pa.ChunkedArray) -> pa.Array:
    flat = values.combine_chunks()
    return pa.LargeListArray.from_arrays(pa.array([0, len(flat)], pa.int64()), flat)
