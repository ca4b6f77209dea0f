"""Sketches that depend on nothing but the values: offline and online, in whatever order they came, the same number.

*Different values* are told by 64-bit hashes: numbers by a mixing that is one to one, so that they are never confused;
texts, bytes and decimals by blake2b. Above `EXACT` of them HyperLogLog with 16,384 registers and Ertl's estimator
("New cardinality estimation algorithms for HyperLogLog sketches", 2017) answers. *Quantiles* are read from a histogram
whose buckets are float64 cut to 8 significant bits: a bucket is less than 0.8 % wide, and which one a value is in takes
no logarithm, whose last bit may differ between machines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from mainspring.features.windows.timeline import Array
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = [
    "EXACT",
    "RANKS",
    "REGISTERS",
    "bits_of",
    "bucket_values",
    "buckets",
    "estimate",
    "number_hashes",
    "place_of",
    "registers",
    "text_hash",
    "text_hashes",
]

EXACT = 4096
"""Up to so many different values the count is exact."""
_REGISTER_BITS = 14
REGISTERS = 1 << _REGISTER_BITS
_REST_BITS = 64 - _REGISTER_BITS
RANKS = _REST_BITS + 2
"""Ranks of a register: 0 is untouched, the last one all zeros."""
_REST = (1 << _REST_BITS) - 1
_CUT = 52 - 7
_MAGNITUDE = (1 << 63) - 1
_CONVERGED = 64
"""Rounds after which the series of the estimator have long stopped changing."""


def bits_of(data: Array) -> Array:
    """Numbers as int64 that are equal when the numbers are: 0.0 is -0.0, and all NaN are one."""
    if data.dtype.kind == "i":
        return data.astype(np.int64, copy=False)
    plain = np.where(data == 0, 0.0, np.where(np.isnan(data), np.nan, data))
    return np.ascontiguousarray(plain).view(np.int64)


def number_hashes(data: Array) -> Array:
    """uint64 hashes of numbers, int64 or float64, by splitmix64's finisher, which is one to one."""
    mixed = bits_of(data).view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def text_hash(value: object) -> int:
    """The 64-bit hash of a text, bytes, or anything else by how it is written."""
    data = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def text_hashes(values: Iterable[object]) -> Array:
    """uint64 hashes of texts, bytes or decimals."""
    return np.array([text_hash(value) for value in values], np.uint64)


def registers(hashes: Array) -> tuple[Array, Array]:
    """For each hash the register it falls into and its rank from 1 on, both int64."""
    rest = hashes & np.uint64(_REST)
    length = np.frexp(rest.astype(np.float64))[1]  # exact: 50 bits
    return (hashes >> np.uint64(_REST_BITS)).astype(np.int64), _REST_BITS + 1 - length.astype(np.int64)


def estimate(counts: Array) -> Array:
    """How many different values there are, int64, more than `EXACT`.

    Args:
        counts: (n, `RANKS`) how many of the registers have each rank.
    """
    share = counts / float(REGISTERS)
    found = REGISTERS * _tau(1.0 - share[:, -1])
    for rank in range(RANKS - 2, 0, -1):
        found = 0.5 * (found + counts[:, rank])
    found = found + REGISTERS * _sigma(share[:, 0])
    numbers = np.rint(REGISTERS * float(REGISTERS) / (2.0 * np.log(2.0)) / found)
    return np.maximum(numbers.astype(np.int64), EXACT + 1)


def _sigma(x: Array) -> Array:
    found, weight = x, 1.0
    for _ in range(_CONVERGED):
        x = x * x
        found, weight = found + x * weight, weight * 2.0
    return found


def _tau(x: Array) -> Array:
    found, weight, same = 1.0 - x, 1.0, (x == 0.0) | (x == 1.0)
    for _ in range(_CONVERGED):
        x, weight = np.sqrt(x), weight * 0.5
        found = found - (1.0 - x) ** 2 * weight
    return np.where(same, 0.0, found / 3.0)


def buckets(values: Array) -> Array:
    """The bucket of each float64 that is no NaN: int64, in the values' order."""
    bits = np.ascontiguousarray(values).view(np.int64)
    size = (bits & _MAGNITUDE) >> _CUT
    return np.where(bits < 0, -size, size)


def bucket_values(keys: Array) -> Array:
    """The value that stands for each bucket: its end towards zero, float64."""
    return np.copysign((np.abs(keys) << _CUT).view(np.float64), keys)


def place_of(share: float, n: Array) -> Array:
    """Which of n values in order is the quantile, counted from 0, int64."""
    return np.floor(share * np.maximum(n - 1, 0)).astype(np.int64)
