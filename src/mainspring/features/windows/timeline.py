"""Points of many entities on one sorted line, and where other points would go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["CHUNK", "FAR", "Array", "Events", "Moments", "Timeline", "Values", "pairs"]

Array = Any  # numpy.ndarray; the dtype is in the docstrings
FAR = 9_223_372_036_854_775_807
"""A moment that never comes: the end of a row that no other row supersedes."""

_LARGEST = FAR
CHUNK = 4_194_304
"""Pairs that are held at a time."""


class Values(msgspec.Struct, frozen=True):
    """A value column.

    Attributes:
        data: (rows,) int64 or float64; 0 where not valid.
        valid: (rows,) bool, whether there is a value.
        labels: what the numbers stand for, when they are ranks of texts or the like: an Arrow array, or None.
    """

    data: Array
    valid: Array
    labels: Any = None

    def empty(self) -> Values:
        """No values, of the same kind."""
        return Values(self.data[:0], self.valid[:0], self.labels)


class Events(msgspec.Struct, frozen=True):
    """The rows of a log that may count, sorted by (entity, event, ingest, seq).

    Attributes:
        entity: (rows,) int64, the entity's number.
        event: (rows,) int64 microseconds, when it happened.
        visible: (rows,) int64 microseconds, from when on the row counts; never before `event`.
        until: (rows,) int64 microseconds, when a newer version of the same event takes over; `FAR` when none does.
        columns: the value columns by name.
    """

    entity: Array
    event: Array
    visible: Array
    until: Array
    columns: dict[str, Values]


class Moments(msgspec.Struct, frozen=True):
    """The questions, sorted by (entity, t).

    Attributes:
        entity: (moments,) int64.
        t: (moments,) int64 microseconds.
        rid: (moments,) int64, the row of the spine that asks.
    """

    entity: Array
    t: Array
    rid: Array

    def bounds(self) -> tuple[int, int]:
        """The first and the last moment; zeros where there is none."""
        return (int(self.t.min()), int(self.t.max())) if len(self.t) else (0, 0)

    def entities(self) -> int:
        """One past the number of the last entity."""
        return int(self.entity[-1]) + 1 if len(self.t) else 0


class Timeline:
    """Points (entity, time), sorted, for binary search.

    Entity and time are one int64, ``entity * span + time - start``, so that one search serves all entities; where
    that would not fit, entities are searched in groups for which it does.

    Args:
        entity: (points,) int64, sorted, from 0.
        time: (points,) int64 microseconds, sorted within each entity.
    """

    def __init__(self, entity: Array, time: Array) -> None:
        self._entity = entity
        self._time = time

    def find(self, entity: Array, time: Array, side: Literal["left", "right"]) -> Array:
        """Where points would go: before equal ones (``left``) or after them, (needles,) int64."""
        if len(entity) == 0 or len(self._entity) == 0:
            return np.zeros(len(entity), np.int64)
        # A needle beyond all points goes where one just beyond them goes, and the span stays that of the points.
        start, end = int(self._time.min()) - 1, int(self._time.max()) + 1
        time = np.clip(time, start, end)
        span = end - start + 1
        most = int(max(self._entity[-1], entity.max())) + 1
        group = max(_LARGEST // span, 1)
        if most <= group:
            line = self._entity * span + (self._time - start)
            return np.searchsorted(line, entity * span + (time - start), side)
        found = np.empty(len(entity), np.int64)
        for first in range(0, most, group):
            begin, stop = np.searchsorted(self._entity, [first, first + group])
            mine = np.flatnonzero((entity >= first) & (entity < first + group))
            line = (self._entity[begin:stop] - first) * span + (self._time[begin:stop] - start)
            found[mine] = begin + np.searchsorted(line, (entity[mine] - first) * span + (time[mine] - start), side)
        return found


def pairs(first: Array, stop: Array, chunk: int = CHUNK) -> Iterator[tuple[Array, Array]]:
    """All (i, j) with ``first[i] <= j < stop[i]``, in order of i then j, as two int64 arrays a chunk."""
    lengths = np.maximum(stop - first, 0)
    ends = np.cumsum(lengths)
    begin, done = 0, 0
    while begin < len(lengths):
        # At least one i a chunk: a single one may be longer than the chunk.
        end = max(int(np.searchsorted(ends, done + chunk, "right")), begin + 1)
        counts = lengths[begin:end]
        size = int(counts.sum())
        if size:
            left = np.repeat(np.arange(begin, end), counts)
            offset = np.repeat(first[begin:end] - (ends[begin:end] - counts - done), counts)
            yield left, offset + np.arange(size)
        done = int(ends[end - 1])
        begin = end
