"""Two kernels for sums and extremes over ranges of a sorted log.

*Ranges* adds up the rows of each range: linear in the pairs (moment, row). *Prefix* keeps running sums and takes
differences: linear in moments and rows, at any skew. Integers are added up as two halves of 32 bits, exactly; other
numbers in extended precision (`numpy.longdouble`) or as integers of their leading bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from mainspring.features.windows.timeline import Array
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["Kernel", "Prefix", "Ranges", "affordable", "lowest_of_all"]

_RELATIVE = 1e-15
_PATIENCE = 100


class Kernel(Protocol):
    """Sums and lowest values over ranges ``[lo, hi)`` of rows."""

    name: str

    def add(self, channel: Array, lo: Array, hi: Array) -> Array:
        """The sum of each range, of the channel's type; 0 for an empty one."""

    def lowest(self, channel: Array, lo: Array, hi: Array) -> Array:
        """The least of each range; the greatest value of the type for an empty one."""


class Ranges:
    """Each range is added up by itself."""

    name = "ranges"

    def add(self, channel: Array, lo: Array, hi: Array) -> Array:
        """The sum of each range."""
        return self._reduce(np.add, channel, lo, hi, channel.dtype.type(0))

    def lowest(self, channel: Array, lo: Array, hi: Array) -> Array:
        """The least of each range."""
        return self._reduce(np.minimum, channel, lo, hi, lowest_of_all(channel))

    @staticmethod
    def _reduce(operation: np.ufunc, channel: Array, lo: Array, hi: Array, nothing: Array) -> Array:
        if len(lo) == 0:
            return np.empty(0, channel.dtype)
        # reduceat takes starts; every second result is the gap up to the next range, and the end needs a start too.
        bounds = np.empty(2 * len(lo), np.int64)
        bounds[0::2], bounds[1::2] = lo, hi
        found = operation.reduceat(np.append(channel, nothing), bounds)[0::2]
        return np.where(lo < hi, found, nothing)


class Prefix:
    """Running sums for `add`; for `lowest`, the lowest of overlapping runs of 2^k rows, a power at a time."""

    name = "prefix"

    def add(self, channel: Array, lo: Array, hi: Array) -> Array:
        """The difference of the running sums; int64 may wrap on the way and still be right.

        Numbers with a point are added as integers too, in two parts of their leading bits, so that no running sum,
        however great, spoils a small difference. What is cut off can matter only where one row is huge beside the sum
        of a range without it; such ranges are added up by themselves.
        """
        lo = np.minimum(lo, hi)
        if channel.dtype.kind == "i":
            return _difference(channel, lo, hi)
        length = hi - lo
        spare = int(length.max(initial=1)).bit_length()  # the sum of a range fits
        size = int(np.frexp(np.abs(channel).max(initial=0))[1])
        scaled = np.ldexp(channel, 62 - spare - size)
        leading = np.floor(scaled)
        rest = np.floor(np.ldexp(scaled - leading, 62 - spare))
        found = _difference(leading.astype(np.int64), lo, hi).astype(channel.dtype)
        found += np.ldexp(_difference(rest.astype(np.int64), lo, hi).astype(channel.dtype), spare - 62)
        found = np.ldexp(found, size + spare - 62)
        filled = _difference((channel != 0).astype(np.int64), lo, hi)
        error = np.ldexp(filled.astype(channel.dtype), size + 2 * spare - 124)
        doubtful = affordable(np.flatnonzero(error > _RELATIVE * np.abs(found)), length, len(channel))
        found[doubtful] = Ranges().add(channel, lo[doubtful], hi[doubtful])
        return found

    def lowest(self, channel: Array, lo: Array, hi: Array) -> Array:
        """The least of two runs that cover the range."""
        found = np.full(len(lo), lowest_of_all(channel), channel.dtype)
        length = hi - lo
        asked = np.flatnonzero(length > 0)
        power = np.frexp(length[asked].astype(np.float64))[1] - 1  # exact: lengths are below 2^53
        runs, size = channel, 1
        for level in range(int(power.max(initial=-1)) + 1):
            if level:
                runs = np.minimum(runs[:-size], runs[size:])
                size *= 2
            mine = asked[power == level]
            found[mine] = np.minimum(runs[lo[mine]], runs[hi[mine] - size])
        return found


def affordable(which: Array, cost: Array, rows: int) -> Array:
    """As many of `which` as may be done the slow way: their cost adds up to a few times the linear work."""
    return which[np.cumsum(cost[which]) <= _PATIENCE * (len(cost) + rows)]


def _difference(channel: Array, lo: Array, hi: Array) -> Array:
    running = np.zeros(len(channel) + 1, np.int64)
    np.cumsum(channel, out=running[1:])
    return running[hi] - running[lo]


def lowest_of_all(channel: Array) -> Array:
    """What loses against every value of the channel's type."""
    return np.iinfo(channel.dtype).max if channel.dtype.kind == "i" else channel.dtype.type(np.inf)
