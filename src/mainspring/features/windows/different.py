"""How many different values are in each window: exactly, and beyond `EXACT` by HyperLogLog.

A value is counted in a range at its first place there: the place whose predecessor with the same value lies before the
range, or nowhere. That is a count of order in a range, which a wavelet matrix gives at any skew. HyperLogLog asks no
more: how many registers have at least some rank is how many different registers are among the rows of that rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainspring.features.windows.question import Question
from mainspring.features.windows.sketch import EXACT, RANKS, REGISTERS, estimate, registers
from mainspring.features.windows.spans import Spans
from mainspring.features.windows.timeline import Array
from mainspring.features.windows.wavelet import count_below
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["different", "different_by_pairs"]


def different(spans: Spans, entity: Array, codes: Array, hashes: Array) -> Array:
    """How many different values each window has, (moments,) int64.

    Args:
        spans: the windows' rows.
        entity: (rows of the log,) int64, sorted.
        codes: (rows of the log,) int64, equal where values are.
        hashes: (rows of the log,) uint64, equal where values are.
    """
    found = _exactly(spans, entity, codes)
    many = np.flatnonzero(found > EXACT)
    if len(many):
        register, rank = registers(hashes)
        wide = spans.of(many)
        above = np.zeros((len(many), RANKS + 1), np.int64)
        above[:, 0] = REGISTERS
        for least in range(1, RANKS):
            wide = wide.only(rank >= least)
            if not len(wide.rows):
                break
            above[:, least] = _exactly(wide, entity, register)
        found[many] = estimate(above[:, :-1] - above[:, 1:])
    return found


def _exactly(spans: Spans, entity: Array, codes: Array) -> Array:
    if not len(spans.rows):
        return np.zeros(len(spans.lo), np.int64)
    ranks = np.unique(codes[spans.rows], return_inverse=True)[1].astype(np.int64)
    base = ranks[: spans.base]
    order = np.argsort(base, kind="stable")
    first = _first_places(entity[spans.rows[: spans.base]])
    before = np.zeros(spans.base, np.int64)
    again = np.flatnonzero(base[order[1:]] == base[order[:-1]])
    before[order[again + 1]] = order[again] + 1
    lo, hi = spans.lo, np.maximum(spans.hi, spans.lo)
    asked = np.flatnonzero(hi > lo)
    found = np.zeros(len(lo), np.int64)
    if len(asked):
        # Counted from the entity's first place: fewer bits. One place further on, so that 0 is none.
        limit = lo[asked] - first[lo[asked]] + 1
        found[asked] = count_below(np.maximum(before - first, 0), lo[asked], hi[asked], limit)
    if len(spans.holes) or len(spans.more):
        _correct(found, spans, ranks, order)
    return found


def _first_places(entity: Array) -> Array:
    starts = np.flatnonzero(np.diff(entity, prepend=-1))
    return np.repeat(starts, np.diff(np.append(starts, len(entity))))


def _correct(found: Array, spans: Spans, ranks: Array, order: Array) -> None:
    """Take off the values of which all places are holes, and add those of further rows that are not there."""
    width = len(ranks) + 1
    line = ranks[order] * width + order

    def in_range(moments: Array, values: Array) -> Array:
        lo, hi = spans.lo[moments], np.maximum(spans.hi, spans.lo)[moments]
        return np.searchsorted(line, values * width + hi) - np.searchsorted(line, values * width + lo)

    gone, times = np.unique(spans.hole_of * width + ranks[spans.holes], return_counts=True)
    moments, values = gone // width, gone % width
    lost = times == in_range(moments, values)
    np.subtract.at(found, moments[lost], 1)
    further = np.unique(spans.more_of * width + ranks[spans.more])
    moments, values = further // width, further % width
    there = in_range(moments, values) > 0
    at = np.minimum(np.searchsorted(gone, further), max(len(gone) - 1, 0))
    taken = (gone[at] == further) & lost[at] if len(gone) else np.zeros(len(further), np.bool_)
    new = ~there | taken
    np.add.at(found, moments[new], 1)


def different_by_pairs(question: Question, window_us: int, codes: Array, hashes: Array, valid: Array) -> Array:
    """As `different`, by sorting the pairs (moment, row): right where they are few.

    Args:
        question: the log's rows and the moments.
        window_us: the window.
        codes: (rows of the log,) int64, equal where values are.
        hashes: (rows of the log,) uint64, equal where values are.
        valid: (rows of the log,) bool, whether there is a value.
    """
    _, one, ranks = np.unique(codes, return_index=True, return_inverse=True)
    width = len(one) + 1
    found = np.zeros(len(question.moments.t), np.int64)

    def visit(moments: Array, rows: Array) -> None:
        rows_valid = valid[rows]
        pairs = np.unique(moments[rows_valid] * width + ranks[rows[rows_valid]])
        owner = pairs // width
        if not len(owner):
            return
        first = int(owner[0])
        counts = np.bincount(owner - first)
        found[first : first + len(counts)] += counts
        many = np.flatnonzero(counts > EXACT)
        if len(many):
            mine = np.isin(owner - first, many)
            found[first + many] = _estimated(
                np.searchsorted(many, owner[mine] - first), hashes[one[pairs[mine] % width]]
            )

    question.each(window_us, np.arange(len(found)), visit)
    return found


def _estimated(owner: Array, hashes: Array) -> Array:
    register, rank = registers(hashes)
    place = owner * REGISTERS + register
    greatest = np.zeros((int(owner[-1]) + 1) * REGISTERS, np.int64)
    np.maximum.at(greatest, place, rank)
    windows = greatest.reshape(-1, REGISTERS)
    return estimate(np.stack([np.bincount(row, minlength=RANKS) for row in windows]))
