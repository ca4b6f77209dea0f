"""What became of the calls of a version: counts that add up over processes and restarts."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable

import msgspec

__all__ = ["CELLS", "STEPS_A_DOUBLING", "WORDS", "Counted", "Evidence", "cell_of", "summed", "worst_of"]

STEPS_A_DOUBLING = 8
"""Cells of a histogram between a value and its double: each is 9 % wide."""

CELLS = 40 * STEPS_A_DOUBLING
"""Cells of a histogram; the first ends at one unit (of time: a microsecond), the last is open."""


WORDS = 2 + CELLS
"""Whole numbers of eight bytes that a version's evidence takes: calls that failed, those under way, the histogram."""

_ERRORS, _OPEN, _FIRST = 0, 1, 2


def cell_of(value: float) -> int:
    """The cell of a value: the same ratio wide everywhere, so that "a quarter slower" is a shift of cells."""
    if not value > 1.0:
        return 0
    return min(1 + int(math.log2(value) * STEPS_A_DOUBLING), CELLS - 1)


class Counted(msgspec.Struct, frozen=True):
    """Evidence at rest.

    Attributes:
        calls: calls that were answered or failed by the model's own fault.
        errors: those that failed.
        latency: calls by the cell of their microseconds; only those from `CELLS` that are not 0.
    """

    calls: int = 0
    errors: int = 0
    latency: dict[int, int] = {}

    def since(self, before: Counted) -> Counted:
        """What has come since an earlier moment of the same counts."""
        gone = before.latency
        latency = {cell: count - gone.get(cell, 0) for cell, count in self.latency.items()}
        return Counted(
            max(self.calls - before.calls, 0),
            max(self.errors - before.errors, 0),
            {cell: count for cell, count in latency.items() if count > 0},
        )

    def cells(self) -> list[int]:
        """The histogram, cell by cell."""
        found = [0] * CELLS
        for cell, count in self.latency.items():
            found[cell] = count
        return found


class Evidence:
    """Counts the calls of one version in this process; every call counts, whatever wire it came by.

    Args:
        words: where they are counted, `WORDS` of them; a mapped file outlives the process.
    """

    __slots__ = ("_lock", "_words")

    def __init__(self, words: memoryview | None = None) -> None:
        self._words = memoryview(bytearray(8 * WORDS)).cast("q") if words is None else words
        self._lock = threading.Lock()  # calls come from several threads, and none may be lost between them

    def begun(self) -> None:
        """A call is under way, until `ended`."""
        with self._lock:
            self._words[_OPEN] += 1

    def ended(self) -> None:
        """It is no more, whatever came of it."""
        with self._lock:
            self._words[_OPEN] -= 1

    def answered(self, ns: int) -> None:
        """A call was answered after so many nanoseconds."""
        with self._lock:
            self._words[_FIRST + cell_of(ns / 1e3)] += 1

    def failed(self) -> None:
        """A call failed, and not by the caller's fault."""
        with self._lock:
            self._words[_ERRORS] += 1

    def recover(self) -> None:
        """The process that counted here has died: what it had under way has failed."""
        with self._lock:
            self._words[_ERRORS] += max(self._words[_OPEN], 0)
            self._words[_OPEN] = 0

    def counted(self) -> Counted:
        """The counts so far."""
        words = self._words.tolist()
        errors, cells = words[_ERRORS], words[_FIRST:]
        return Counted(sum(cells) + errors, errors, {cell: count for cell, count in enumerate(cells) if count})


def summed(parts: Iterable[Counted]) -> Counted:
    """The evidence of several processes together."""
    calls = errors = 0
    cells: dict[int, int] = {}
    for part in parts:
        calls, errors = calls + part.calls, errors + part.errors
        for cell, count in part.latency.items():
            cells[cell] = cells.get(cell, 0) + count
    return Counted(calls, errors, cells)


def worst_of(counted: Counted, share: float) -> float | None:
    """A quantile of the latencies in microseconds: the upper end of its cell; None without an answered call."""
    total, seen = sum(counted.latency.values()), 0
    for cell in sorted(counted.latency):
        seen += counted.latency[cell]
        if seen >= share * total:
            return float(2 ** (cell / STEPS_A_DOUBLING))
    return None
