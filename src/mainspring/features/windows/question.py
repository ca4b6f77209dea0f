"""What is asked of a log at the moments of a spine: the rows of each window, and the choice of a kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from mainspring.features.windows.kernels import Kernel, Prefix, Ranges, lowest_of_all
from mainspring.features.windows.timeline import FAR, Array, Events, Moments, Timeline, pairs
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["Question"]

_WORTH = 20
"""Ranges costs about a nanosecond a pair, Prefix about this much for each moment and row."""


class Question:
    """The rows that count in the window (t - w, t] at each moment.

    A row counts when ``event`` lies in the window and ``visible <= t < until``. Most rows count from their event on
    for ever, and their windows are ranges of the sorted log. Rows that became known later (*late*) are counted with
    them and taken off again where they were not known yet; rows that a correction took over from (*replaced*) are
    left out and added where they did count. Both corrections are pairs (row, moment), few when corrections are.

    Args:
        events: the log's rows, sorted.
        moments: the questions, sorted.
        kernel: how ranges are added up; chosen by the number of pairs when left out.
        window_us: the longest window that will be asked for.
    """

    def __init__(self, events: Events, moments: Moments, window_us: int, kernel: Kernel | None = None) -> None:
        self.events = events
        self.moments = moments
        self._log = Timeline(events.entity, events.event)
        self._spine = Timeline(moments.entity, moments.t)
        self._stop = self._log.find(moments.entity, moments.t, "right")
        self._starts: dict[int, Array] = {}
        self.late = np.flatnonzero((events.visible > events.event) & (events.until == FAR))
        self.replaced = np.flatnonzero(events.until < FAR)
        self.kernel = kernel or self._choose(window_us)

    def _choose(self, window_us: int) -> Kernel:
        lo, hi = self.range(window_us)
        return Ranges() if int((hi - lo).sum()) < _WORTH * (len(lo) + len(self.events.event)) else Prefix()

    def range(self, window_us: int) -> tuple[Array, Array]:
        """For each moment the rows with ``t - w < event <= t``: first and one past the last, (moments,) int64."""
        if window_us not in self._starts:
            old = self.moments.t - window_us
            self._starts[window_us] = self._log.find(self.moments.entity, old, "right")
        return self._starts[window_us], self._stop

    def total(self, channel: Array, window_us: int) -> Array:
        """The sum of the channel over the rows that count, (moments,) of the channel's type.

        Args:
            channel: (rows,) int64 or longdouble, finite.
            window_us: the window.
        """
        lo, hi = self.range(window_us)
        base = channel
        if len(self.replaced):
            base = channel.copy()
            base[self.replaced] = 0
        found = self.kernel.add(base, lo, hi)
        for rows, moments in self._in_flight(window_us):
            np.subtract.at(found, moments, channel[rows])
        for rows, moments in self._counted(self.replaced, window_us):
            np.add.at(found, moments, channel[rows])
        return found

    def lowest(self, channel: Array, window_us: int) -> Array:
        """The least of the channel over the rows that count; the type's greatest value where none does."""
        lo, hi = self.range(window_us)
        base = channel
        if len(self._apart):
            base = channel.copy()
            base[self._apart] = lowest_of_all(channel)
        with np.errstate(invalid="ignore"):  # a NaN in the window is the answer, not a fault
            found = self.kernel.lowest(base, lo, hi)
            for rows, moments in self._counted(self._apart, window_us):
                np.minimum.at(found, moments, channel[rows])
        return found

    def each(self, window_us: int, which: Array, visit: Callable[[Array, Array], None]) -> None:
        """Call ``visit(moments, rows)`` with all pairs that count for some moments, a chunk at a time.

        Args:
            window_us: the window.
            which: positions of the moments.
            visit: takes two int64 arrays; the pairs of one moment come together, in the log's order.
        """
        lo, hi = self.range(window_us)
        late = len(self._apart) > 0
        for place, rows in pairs(lo[which], hi[which]):
            moments = which[place]
            if late:
                t = self.moments.t[moments]
                counts = (self.events.visible[rows] <= t) & (t < self.events.until[rows])
                moments, rows = moments[counts], rows[counts]
            visit(moments, rows)

    @cached_property
    def _apart(self) -> Array:
        return np.sort(np.concatenate([self.late, self.replaced]))

    def _in_flight(self, window_us: int) -> Iterator[tuple[Array, Array]]:
        """Pairs (row, moment) of late rows at moments when they were in the window but not known."""
        return self._between(self.late, self.events.event, self.events.visible, window_us)

    def _counted(self, which: Array, window_us: int) -> Iterator[tuple[Array, Array]]:
        """Pairs (row, moment) of those rows at moments when they count."""
        return self._between(which, self.events.visible, self.events.until, window_us)

    def _between(self, which: Array, since: Array, until: Array, window_us: int) -> Iterator[tuple[Array, Array]]:
        if not len(which):
            return
        entity = self.events.entity[which]
        # event > t - w is t < event + w
        leaves = self.events.event[which] + window_us
        first = self._spine.find(entity, since[which], "left")
        stop = self._spine.find(entity, np.minimum(until[which], leaves), "left")
        for place, moments in pairs(first, stop):
            yield which[place], moments
