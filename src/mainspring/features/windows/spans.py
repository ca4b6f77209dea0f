"""Which rows make up each window, where some were not known yet and others are known no more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from mainspring.features.windows.timeline import Array
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["Spans"]


class Spans(msgspec.Struct, frozen=True):
    """The rows of the windows of all moments, as places in an array of rows.

    A window is a range of the first `base` places, less some (*holes*: rows that were not known yet), and some of the
    places behind (*more*: rows that count only for a time). Holes and more are few when corrections are.

    Attributes:
        rows: (places,) the row of the log at each place; the first `base` of them in order, and so are the others.
        base: how many places are in ranges.
        lo: (moments,) where each range begins.
        hi: (moments,) one past its end; not before `lo`.
        hole_of: (holes,) the moment, sorted.
        holes: (holes,) the place, sorted within each moment.
        more_of: (more,) the moment, sorted.
        more: (more,) the place, sorted within each moment.
    """

    rows: Array
    base: int
    lo: Array
    hi: Array
    hole_of: Array
    holes: Array
    more_of: Array
    more: Array

    def only(self, keep: Array) -> Spans:
        """Without some rows.

        Args:
            keep: (rows of the log,) bool.
        """
        kept = keep[self.rows]
        if kept.all():
            return self
        place = np.zeros(len(kept) + 1, np.int64)
        np.cumsum(kept, out=place[1:])
        holes, more = kept[self.holes], kept[self.more]
        return replace(
            self,
            rows=self.rows[kept],
            base=int(place[self.base]),
            lo=place[self.lo],
            hi=place[self.hi],
            hole_of=self.hole_of[holes],
            holes=place[self.holes[holes]],
            more_of=self.more_of[more],
            more=place[self.more[more]],
        )

    def of(self, moments: Array) -> Spans:
        """Of some of the moments, which are numbered anew.

        Args:
            moments: their numbers, sorted.
        """
        number = np.full(len(self.lo), -1, np.int64)
        number[moments] = np.arange(len(moments))
        hole_of, more_of = number[self.hole_of], number[self.more_of]
        return replace(
            self,
            lo=self.lo[moments],
            hi=self.hi[moments],
            hole_of=hole_of[hole_of >= 0],
            holes=self.holes[hole_of >= 0],
            more_of=more_of[more_of >= 0],
            more=self.more[more_of >= 0],
        )

    def sizes(self) -> Array:
        """How many rows each window has, int64."""
        return self.ranged() + self._times(self.more_of)

    def ranged(self) -> Array:
        """How many of them are in the ranges, int64."""
        return self.hi - self.lo - self._times(self.hole_of)

    def segments(self) -> tuple[Array, Array, Array]:
        """The ranges without holes: where each begins, where it ends, and the first one of each moment."""
        if not len(self.holes):
            return self.lo, self.hi, np.arange(len(self.lo))
        every = np.arange(len(self.lo))
        # Stable: a range begins at `lo` or behind a hole, and ends at a hole or at `hi`.
        begins = np.argsort(np.concatenate([every, self.hole_of]), kind="stable")
        ends = np.argsort(np.concatenate([self.hole_of, every]), kind="stable")
        starts = every + np.searchsorted(self.hole_of, every, "left")
        return (
            np.concatenate([self.lo, self.holes + 1])[begins],
            np.concatenate([self.holes, self.hi])[ends],
            starts,
        )

    def pieces(self) -> tuple[Array, Array, Array]:
        """As `segments`, with the further rows as segments of one row."""
        lo, hi, starts = self.segments()
        if not len(self.more):
            return lo, hi, starts
        owner = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(lo))))
        order = np.argsort(np.concatenate([owner, self.more_of]), kind="stable")
        return (
            np.concatenate([lo, self.more])[order],
            np.concatenate([hi, self.more + 1])[order],
            starts + np.searchsorted(self.more_of, np.arange(len(starts)), "left"),
        )

    def ends(self, size: int) -> tuple[Array, Array]:
        """The newest rows of each window, `size` at most: the moment and the row of the log, sorted."""
        lo, hi, starts = self.segments()
        lengths = np.maximum(hi - lo, 0)
        done = np.append(0, np.cumsum(lengths))
        mine = done[np.append(starts, len(lo))]
        take = np.minimum(np.diff(mine), size)
        moments = np.repeat(np.arange(len(take)), take)
        steps = np.arange(len(moments)) - np.repeat(np.cumsum(take) - take, take)
        at = (mine[1:] - take)[moments] + steps
        segment = np.searchsorted(done, at, "right") - 1
        rows = self.rows[lo[segment] + at - done[segment]]
        if not len(self.more):
            return moments, rows
        moments, rows = np.concatenate([moments, self.more_of]), np.concatenate([rows, self.rows[self.more]])
        order = np.lexsort((rows, moments))
        moments, rows = moments[order], rows[order]
        stop = np.searchsorted(moments, moments, "right")
        newest = stop - np.arange(len(moments)) <= size
        return moments[newest], rows[newest]

    def _times(self, moments: Array) -> Array:
        return np.bincount(moments, minlength=len(self.lo)) if len(moments) else np.zeros(len(self.lo), np.int64)
