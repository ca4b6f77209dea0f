"""What is asked of a log at the moments of a spine: the rows of each window, and the choice of a kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TYPE_CHECKING

from mainspring.features.windows.kernels import Kernel, Prefix, Ranges, lowest_of_all
from mainspring.features.windows.spans import Spans
from mainspring.features.windows.timeline import FAR, Array, Events, Moments, Timeline, pairs
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["SORTED", "Question"]

_WORTH = 20
"""Ranges costs about a nanosecond a pair, Prefix about this much for each moment and row."""
SORTED = 0.05
"""Of `_WORTH`, where pairs are sorted instead of added up: a pair costs so much more."""


class Question:
    """The rows that count in the window (t - w, t] at each moment.

    A row counts when ``event`` lies in the window and ``visible <= t < until``. Most rows count from their event on
    for ever, and their windows are ranges of the sorted log. Rows that became known later (*late*) are counted with
    them and taken off again where they were not known yet; rows that a correction took over from (*replaced*) are
    left out and added where they did count. Both corrections are pairs (row, moment), few when corrections are.

    Args:
        events: the log's rows, sorted.
        moments: the questions, sorted.
        kernel: how ranges are added up; chosen for each window by the number of pairs when left out.

    Attributes:
        used: the names of the kernels that were used.
    """

    def __init__(self, events: Events, moments: Moments, kernel: Kernel | None = None) -> None:
        self.events = events
        self.moments = moments
        self.used: set[str] = set()
        self._forced = kernel
        self._log = Timeline(events.entity, events.event)
        self._spine = Timeline(moments.entity, moments.t)
        self._stop = self._log.find(moments.entity, moments.t, "right")
        self._starts: dict[int, Array] = {}
        self._spans: dict[int, Spans] = {}
        self.late = np.flatnonzero((events.visible > events.event) & (events.until == FAR))
        self.replaced = np.flatnonzero(events.until < FAR)

    def kernel(self, window_us: int, weight: float = 1.0) -> Kernel:
        """The kernel for a window: `Ranges` where there are few pairs (moment, row) beside moments and rows.

        Args:
            window_us: the window.
            weight: how much cheaper than a range's sum a pair must be for the answer that is wanted.
        """
        found = self._forced
        if found is None:
            lo, hi = self.range(window_us)
            few = int((hi - lo).sum()) < _WORTH * weight * (len(lo) + len(self.events.event))
            found = Ranges() if few else Prefix()
        self.used.add(found.name)
        return found

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
        found = self.kernel(window_us).add(base, lo, hi)
        for rows, moments in self._in_flight(self.late, window_us):
            np.subtract.at(found, moments, channel[rows])
        for rows, moments in self._counted(self.replaced, window_us):
            np.add.at(found, moments, channel[rows])
        return found

    def lowest(self, channel: Array, window_us: int, valid: Array) -> Array:
        """The least of the channel over the valid rows that count; the type's greatest value where none does.

        Args:
            channel: (rows,) int64 or float64.
            window_us: the window.
            valid: (rows,) bool.
        """
        spans = self.spans(window_us)
        lo, hi, starts = spans.segments()
        values = np.where(valid, channel, lowest_of_all(channel))[spans.rows]
        with np.errstate(invalid="ignore"):  # a NaN in the window is the answer, not a fault
            found = self.kernel(window_us).lowest(values[: spans.base], lo, hi)
            if len(starts) < len(lo):
                found = np.minimum.reduceat(found, starts)
            np.minimum.at(found, spans.more_of, values[spans.more])
        return found

    def spans(self, window_us: int) -> Spans:
        """The rows of each moment's window.

        A row that was late by less than half the window is a hole where it was not known yet; one that was later, or
        was replaced, is added where it did count: whichever is fewer.
        """
        if window_us not in self._spans:
            events = self.events
            rows = np.arange(len(events.event))
            lo, hi = self.range(window_us)
            apart = (events.until < FAR) | (events.visible - events.event > window_us // 2)
            base, further = rows[~apart], rows[apart]
            place = np.zeros(len(rows) + 1, np.int64)
            np.cumsum(~apart, out=place[1:])
            holes = _joined(self._in_flight(np.setdiff1d(self.late, further, assume_unique=True), window_us))
            more = _joined(self._counted(further, window_us))
            self._spans[window_us] = Spans(
                np.concatenate([base, further]),
                len(base),
                place[lo],
                place[np.maximum(lo, hi)],
                holes[1],
                place[holes[0]],
                more[1],
                len(base) + np.searchsorted(further, more[0]),
            )
        return self._spans[window_us]

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

    def _in_flight(self, which: Array, window_us: int) -> Iterator[tuple[Array, Array]]:
        """Pairs (row, moment) of late rows at moments when they were in the window but not known."""
        return self._between(which, self.events.event, self.events.visible, window_us)

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


def _joined(parts: Iterator[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Pairs (row, moment) in order of moment then row."""
    found = list(parts)
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    rows, moments = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((rows, moments))
    return rows[order], moments[order]
