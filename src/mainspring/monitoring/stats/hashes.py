"""Categories as 64-bit hashes: what a baseline and a prediction log keep instead of the text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = ["hash_categories", "hash_category"]


@lru_cache(maxsize=8192, typed=True)
def hash_category(value: object) -> int:
    """The hash of a category, 0 to 2^64 - 1: blake2b-64 of its type and text, little-endian, the same everywhere.

    The type is part of it, so that ``1``, ``"1"`` and ``True`` are three categories.
    """
    # A NumPy scalar is the Python value it holds.
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, str):
        data = b"s" + value.encode("utf-8", "surrogatepass")
    elif isinstance(value, bytes):
        data = b"y" + value
    elif isinstance(value, bool):
        data = b"b1" if value else b"b0"
    elif isinstance(value, int):
        data = b"i%d" % value
    else:
        data = b"o" + repr(value).encode()
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def hash_categories(values: Iterable[object]) -> NDArray[np.uint64]:
    """The hash of each value, in order: uint64 (n,)."""
    return np.array([hash_category(value) for value in values], dtype=np.uint64)
