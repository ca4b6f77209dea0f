"""How far a scoring is, while it goes on: parts and rows, how quick it is, and how long the rest may take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import msgspec

from mainspring.engine.runs.progress import Progress
from mainspring.server.scoring.shape import Part

__all__ = ["Standing", "Telling"]


class Standing(msgspec.Struct, frozen=True):
    """How far a scoring is.

    Attributes:
        parts: of the table.
        parts_done: those that are scored, before or now.
        parts_kept: those of them that had been scored before.
        rows: of the table.
        rows_done: those that are scored, the ones of parts under way included.
        rows_per_second: how many have been scored a second, of this run's own; 0 before the first.
        seconds_left: how long the rest takes at that rate; None before the first row.
    """

    parts: int
    parts_done: int
    parts_kept: int
    rows: int
    rows_done: int
    rows_per_second: float
    seconds_left: float | None

    def line(self) -> str:
        """In words."""
        kept = f" ({self.parts_kept:,} kept)" if self.parts_kept else ""
        rest = "" if self.seconds_left is None else f", about {self.seconds_left:,.0f} s left"
        rate = f", {self.rows_per_second:,.0f} rows/s" if self.rows_per_second else ""
        done = f"{self.parts_done:,} of {self.parts:,} parts{kept}, {self.rows_done:,} of {self.rows:,} rows"
        return f"{done}{rate}{rest}"


class Telling:
    """Watches the run of a scoring, and tells how far it is.

    Args:
        step: the step that scores parts.
        parts_of: the parts of the table, by the run's id; asked once, when the step begins.
        told: told at most every `every` seconds, and when a part is done.
        every: seconds.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        step: str,
        parts_of: Callable[[str], Sequence[Part]],
        told: Callable[[Standing], None],
        every: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._step = step
        self._parts_of = parts_of
        self._told = told
        self._every = every
        self._clock = clock
        self._sizes: list[int] = []
        self._done: dict[int, float] = {}
        self._over: set[int] = set()
        self._kept: set[int] = set()
        self._begun = self._next = 0.0

    def __call__(self, event: Progress) -> None:
        """Take notice of what happened in the run."""
        if event.step != self._step or event.item is None:
            return
        now = self._clock()
        if not self._sizes:
            self._sizes = [part.stop - part.start for part in self._parts_of(event.run_id)]
            self._begun = now
        self._note(event, event.item)
        if event.what in ("ok", "hit") or now >= self._next:
            self._next = now + self._every
            self._told(self._standing(now))

    def _note(self, event: Progress, item: int) -> None:
        if event.what == "moved":
            self._done[item] = event.done
        elif event.what in ("ok", "hit"):
            self._over.add(item)
            self._done[item] = self._sizes[item]
            if event.what == "hit":
                self._kept.add(item)
        elif event.what != "metric":  # begun, or to be begun anew
            self._done[item] = 0

    def _standing(self, now: float) -> Standing:
        done, whole = round(sum(self._done.values())), sum(self._sizes)
        own = done - sum(self._sizes[item] for item in self._kept)
        spent = now - self._begun
        rate = own / spent if own and spent > 0 else 0.0
        left = (whole - done) / rate if rate else None
        return Standing(len(self._sizes), len(self._over), len(self._kept), whole, done, rate, left)
