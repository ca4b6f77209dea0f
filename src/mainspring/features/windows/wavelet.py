"""Order within ranges of an array, for all ranges at once: a wavelet matrix, a level at a time.

From the highest bit down, the array is parted stably by that bit, and each range is followed into the half that its
question leads to (Claude, Navarro, Ordóñez, "The wavelet matrix", 2015). Only one level is held at a time: the work is
(rows + ranges) for each bit, at any skew, the memory that of a few arrays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mainspring.features.windows.timeline import Array
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["count_below", "smallest"]


def count_below(values: Array, lo: Array, hi: Array, limit: Array) -> Array:
    """How many of ``values[lo:hi]`` are below each limit, int64.

    Args:
        values: (rows,) int64, none negative.
        lo: (ranges,) where each range begins.
        hi: (ranges,) one past its end; not before `lo`.
        limit: (ranges,) int64, none negative.
    """
    found = np.zeros(len(lo), np.int64)
    for bit, rank in _levels(values, int(limit.max(initial=0))):
        upper = (limit >> bit) & 1 == 1
        at_lo, at_hi = rank[lo], rank[hi]
        found += np.where(upper, at_hi - at_lo, 0)
        lo, hi = _follow(rank, upper, lo, at_lo), _follow(rank, upper, hi, at_hi)
    return found


def smallest(values: Array, lo: Array, hi: Array, starts: Array, place: Array) -> Array:
    """The value at a place in order of each question's ranges together, int64.

    Args:
        values: (rows,) int64, none negative.
        lo: (ranges,) where each range begins.
        hi: (ranges,) one past its end; not before `lo`.
        starts: (questions,) the first of the ranges of each question; all have one at least.
        place: (questions,) counted from 0; below the lengths of the ranges together.
    """
    found, place = np.zeros(len(starts), np.int64), place.copy()
    single = len(starts) == len(lo)
    counts = np.diff(np.append(starts, len(lo)))
    for bit, rank in _levels(values, 0):
        at_lo, at_hi = rank[lo], rank[hi]
        inside = at_hi - at_lo if single else np.add.reduceat(at_hi - at_lo, starts)
        upper = place >= inside
        place -= np.where(upper, inside, 0)
        found |= upper.astype(np.int64) << bit
        side = upper if single else np.repeat(upper, counts)
        lo, hi = _follow(rank, side, lo, at_lo), _follow(rank, side, hi, at_hi)
    return found


def _levels(values: Array, most: int) -> Iterator[tuple[int, Array]]:
    """Each bit from the highest on, with how many before each place have it not set."""
    for bit in range(max(int(values.max(initial=0)), most).bit_length() - 1, -1, -1):
        lower = (values >> bit) & 1 == 0
        rank = np.zeros(len(values) + 1, np.int64)
        np.cumsum(lower, out=rank[1:])
        yield bit, rank
        values = np.concatenate([values[lower], values[~lower]])


def _follow(rank: Array, upper: Array, place: Array, before: Array) -> Array:
    return np.where(upper, rank[-1] + place - before, before)
