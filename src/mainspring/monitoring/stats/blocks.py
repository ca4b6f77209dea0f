"""Rows into blocks of event time, in UTC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from mainspring.lazy import lazy
from mainspring.monitoring.stats.columns import whole_numbers

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from mainspring.metrics.arrays import Ints
    from mainspring.monitoring.stats.columns import Column
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")

__all__ = ["BLOCK_US", "Blocks", "block_class", "split"]

BLOCK_US = {"hour": 3_600_000_000, "day": 86_400_000_000}
"""The length of a block in microseconds."""

_HOUR = BLOCK_US["hour"]
_THURSDAY = 3  # 1970-01-01, counting from Monday


class Blocks(msgspec.Struct, frozen=True, eq=False):
    """Rows grouped into nonempty blocks.

    Args:
        size_us: length of a block in microseconds.
        starts: start of each block, microseconds since 1970 UTC, rising (K,).
        bounds: first row of each block in the order below, and the end (K + 1,).
        order: row numbers by block; None when the rows come in that order.
    """

    size_us: int
    starts: Ints
    bounds: Ints
    order: Ints | None

    @property
    def rows(self) -> Ints:
        """Rows of each block (K,)."""
        return np.diff(self.bounds)

    def arranged(self, column: Column) -> Column:
        """The column with the rows of a block next to each other."""
        if self.order is None:
            return column
        # Not `pa.array(order)`: that imports pandas.
        return column.take(pa.Array.from_buffers(pa.int64(), len(self.order), [None, pa.py_buffer(self.order)]))


def split(times: Column, block: Literal["hour", "day"]) -> Blocks:
    """Group rows by the block of their event time.

    Args:
        times: timestamps with or without a zone (naive ones are UTC), dates, or int64 microseconds.
        block: the length of a block.

    Raises:
        DataError: MS-2406, a null time.
    """
    size = BLOCK_US[block]
    place = np.floor_divide(whole_numbers(times), size)
    order = None
    if len(place) > 1 and (np.diff(place) < 0).any():
        order = np.argsort(place, kind="stable")
        place = place[order]
    first = np.flatnonzero(np.diff(place, prepend=place[:1] - 1)) if len(place) else np.empty(0, np.int64)
    return Blocks(size, place[first] * size, np.append(first, len(place)), order)


def block_class(starts: Ints, size_us: int) -> Ints:
    """The season of each block: its weekday (0 = Monday, UTC), and for hours weekday x 24 + hour."""
    hours = np.asarray(starts) // _HOUR
    weekday = (hours // 24 + _THURSDAY) % 7
    return weekday if size_us >= BLOCK_US["day"] else weekday * 24 + hours % 24
