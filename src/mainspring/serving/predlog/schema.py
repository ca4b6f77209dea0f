"""What a record of the prediction log holds, and the bytes it is written as.

A record is ``id 16 | weight f4 | version u4 | flags u2 | slice u4 | nulls u8.. | outputs f8.. | columns.. | ts i8``,
little-endian and packed. ``ts`` (event time, ns) comes last: a record whose ts is 0 was never finished.
"""

from __future__ import annotations

import functools
import struct
from typing import TYPE_CHECKING, Literal

import msgspec

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["NUMERIC", "ROLES", "UNFIT", "ColumnKind", "LogSchema"]

ColumnKind = Literal["f4", "f8", "i8", "bool", "category", "text"]
"""How a column is kept: a number, a truth, a category as an 8-byte hash, a text as its length and hash."""

NUMERIC = frozenset({"f4", "f8", "i8"})
"""Kinds whose Python values go into a record as they are."""

UNFIT = 1
"""A flag of a record: some value did not fit its column and is null instead."""

ROLES = {"stable": 0, "canary": 2, "shadow": 4}
"""The flag of a record by what its version was to a rollout then; no flag is the version that answers the rest."""

_CODES = {"f4": "f", "f8": "d", "i8": "q", "bool": "B", "category": "Q", "text": "IQ"}
_DTYPES = {"f4": ["<f4"], "f8": ["<f8"], "i8": ["<i8"], "bool": ["u1"], "category": ["<u8"], "text": ["<u4", "<u8"]}
_WORD = 64


class LogSchema(msgspec.Struct, frozen=True):
    """What the records of an endpoint hold.

    Attributes:
        endpoint: the endpoint's name.
        model: the model's name.
        columns: the model's columns, in order, then those that are logged beside them.
        kinds: the kind of each column; empty means that all are ``f8``.
        outputs: the model's outputs, in order, each one number.
    """

    endpoint: str
    model: str
    columns: tuple[str, ...]
    kinds: tuple[ColumnKind, ...] = ()
    outputs: tuple[str, ...] = ("score",)

    def encoded(self) -> bytes:
        """As JSON, the same bytes for equal schemas."""
        return msgspec.json.encode(self, order="sorted")

    def kinds_of(self) -> tuple[ColumnKind, ...]:
        """The kind of each column."""
        every: ColumnKind = "f8"
        return self.kinds or (every,) * len(self.columns)

    @property
    def null_words(self) -> int:
        """How many 64-bit words of null bits a record has; column i is bit i % 64 of word i // 64."""
        return max(1, -(-len(self.columns) // _WORD))

    def record(self) -> struct.Struct:
        """A record, ts included; `struct.Struct.pack_into` writes its fields in order, so that ts is written last."""
        columns = "".join(_CODES[kind] for kind in self.kinds_of())
        return struct.Struct(f"<16sfIHI{self.null_words}Q{len(self.outputs)}d{columns}q")

    def dtype(self) -> np.dtype[np.void]:
        """A record as NumPy reads it: ``id weight version flags slice n0.. o0.. c0.. (h0.. for texts) ts``."""
        return _dtype(self.kinds_of(), self.null_words, len(self.outputs))


@functools.lru_cache(maxsize=256)
def _dtype(kinds: tuple[ColumnKind, ...], words: int, outputs: int) -> np.dtype[np.void]:
    fields = [("id", "V16"), ("weight", "<f4"), ("version", "<u4"), ("flags", "<u2"), ("slice", "<u4")]
    fields += [(f"n{word}", "<u8") for word in range(words)]
    fields += [(f"o{output}", "<f8") for output in range(outputs)]
    for place, kind in enumerate(kinds):
        fields += zip((f"c{place}", f"h{place}"), _DTYPES[kind], strict=False)
    return np.dtype([*fields, ("ts", "<i8")])
