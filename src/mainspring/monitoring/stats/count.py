"""The counting kernel: a column in, a `BlockState` out.

Values are sorted in pieces that fit the cache. NumPy sorts with vector instructions at 3 to 4 ns a value; after that
every count is a handful of binary searches for edges, not one search for each value. This is 10 times faster than
searching for the cell of each value, and needs no compiler.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from msgspec.structs import replace

from mainspring.lazy import lazy
from mainspring.monitoring.stats.columns import Tally, Vocabulary, numbers, tallied
from mainspring.monitoring.stats.layout import Layout, Rules
from mainspring.monitoring.stats.state import UNIT, BlockState, empty_state, merge

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import ArrayLike, NDArray

    from mainspring.metrics.arrays import Floats, Ints
    from mainspring.monitoring.stats.columns import Column
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")

__all__ = ["count", "count_numbers", "count_tally", "invalid_words"]

_PIECE = 32768
_CUT = float(1 << 15)


def count(column: Column, layout: Layout, *, fine: bool = False, weight: ArrayLike | None = None) -> BlockState:
    """Count an Arrow column, all of one block.

    Args:
        column: an Arrow array or chunked array.
        layout: the feature's cells, from its baseline.
        fine: whether to count the fine cells too.
        weight: how many rows each row stands for (n,), from a sampled log; rounded to whole numbers, at least 1.
    """
    if weight is not None:
        return _weighted(column, layout, fine, np.maximum(np.rint(np.asarray(weight)), 1).astype(np.int64))
    if layout.numeric:
        found = numbers(column)
        state = count_numbers(found.values, layout, fine=fine)
        return replace(state, rows=len(column), n=len(column), n_null=found.nulls)
    words, tally = tallied(column, layout.kind)
    return count_tally(words, tally, layout, invalid_words(words, layout.rules))


def count_numbers(values: Floats, layout: Layout, *, fine: bool = False) -> BlockState:
    """Count non-null numbers (n,), float64; the array is not changed."""
    edges = layout.edges if fine else layout.edges[layout.coarse]
    upto = np.zeros(len(edges), dtype=np.int64)
    parts = []
    for start in range(0, len(values), _PIECE):
        below, part = _piece(np.sort(values[start : start + _PIECE]), layout, edges)
        upto += below
        parts.append(part)
    whole = merge(parts) if parts else empty_state(layout.digest, 0)
    coarse = upto[layout.coarse] if fine else upto
    return replace(whole, counts=_steps(coarse, whole.finite), fine=_steps(upto, whole.finite) if fine else ())


def _steps(upto: Ints, total: int) -> tuple[int, ...]:
    """Counts per cell from counts up to each edge."""
    bounds = [0, *upto.tolist(), total]
    return tuple(map(int.__sub__, bounds[1:], bounds[:-1]))


def count_tally(
    words: Vocabulary, tally: Tally, layout: Layout, invalid: NDArray[np.bool_] | None = None
) -> BlockState:
    """Count tallied categories; `invalid` says of each word whether it breaks a rule."""
    hashes, counts = words.hashes[tally.places], tally.counts
    known = _among(hashes, layout.known)
    cells = np.zeros(layout.cells, dtype=np.int64)
    np.add.at(cells, _cell(hashes[known], layout.common), counts[known])
    rows = int(counts.sum()) + tally.nulls
    return BlockState(
        layout.digest,
        tuple(cells.tolist()),
        rows=rows,
        n=rows,
        n_null=tally.nulls,
        n_unseen=int(counts[~known].sum()),
        n_invalid=0 if invalid is None else int(counts[invalid[tally.places]].sum()),
    )


def invalid_words(words: Vocabulary, rules: Rules) -> NDArray[np.bool_] | None:
    """For each word whether it breaks a rule: (words,); None when there is no rule."""
    if not rules.one_of and rules.matches is None:
        return None
    wrong = np.zeros(len(words.hashes), dtype=bool)
    if rules.one_of:
        wrong |= ~np.isin(words.hashes, np.array(sorted(rules.one_of), dtype=np.uint64))
    if rules.matches is not None and len(words.values):
        form = re.compile(rules.matches)
        wrong |= np.array([isinstance(v, str) and form.fullmatch(v) is None for v in words.values], dtype=bool)
    return wrong


def _weighted(column: Column, layout: Layout, fine: bool, weight: Ints) -> BlockState:
    """Each distinct weight is counted once and multiplied: a log has few, one for each sampling rate."""
    parts = []
    for factor in np.unique(weight).tolist() or [1]:
        part = count(column.filter(_mask(weight == factor)), layout, fine=fine)
        parts.append(_times(part, factor))
    return merge(parts)


def _mask(rows: NDArray[np.bool_]) -> pa.BooleanArray:
    bits = np.packbits(rows, bitorder="little")
    return pa.Array.from_buffers(pa.bool_(), len(rows), [None, pa.py_buffer(bits)])


def _times(state: BlockState, factor: int) -> BlockState:
    scaled = {
        name: getattr(state, name) * factor
        for name in BlockState.__struct_fields__
        if name.startswith(("n_", "sum", "csum")) or name == "n"
    }
    counts = tuple(cell * factor for cell in state.counts)
    return replace(state, counts=counts, fine=tuple(cell * factor for cell in state.fine), **scaled)


def _piece(ordered: Floats, layout: Layout, edges: Floats) -> tuple[Ints, BlockState]:
    """Counts up to each edge, and the rest of the state, of a sorted piece: -inf, finite values, +inf, NaN."""
    bottom = int(np.searchsorted(ordered, -math.inf, side="right"))
    top, numeric = np.searchsorted(ordered, [math.inf, math.nan], side="left").tolist()
    finite = ordered[bottom:top]
    size = len(finite)
    upto = np.searchsorted(finite, edges, side="right")
    below = np.searchsorted(finite, [0.0, layout.vmin, _or(layout.rules.ge, -math.inf)], side="left").tolist()
    within = np.searchsorted(finite, [0.0, layout.vmax, _or(layout.rules.le, math.inf)], side="right").tolist()
    total, squares, clipped = _sums(finite, layout)
    return upto, BlockState(
        layout.digest,
        (),
        rows=len(ordered),
        n=len(ordered),
        n_nan=len(ordered) - numeric,
        n_inf=bottom + numeric - top,
        n_zero=within[0] - below[0],
        n_neg=below[0],
        n_unseen=min(below[1] + size - within[1], size),
        n_invalid=min(below[2] + size - within[2], size),
        vmin=float(finite[0]) if size else math.inf,
        vmax=float(finite[-1]) if size else -math.inf,
        sum=total,
        sum2=squares,
        csum=clipped,
    )


def _sums(finite: Floats, layout: Layout) -> tuple[int, int, int]:
    """Sum, sum of squares and clipped sum in units.

    Each value is rounded by itself and whole numbers do the adding, so the order cannot matter. Between -1 and 2 spans
    (nearly everything) they are floats: a piece's sum of whole numbers below 2^33 stays exact in 53 bits.
    """
    with np.errstate(over="ignore"):
        spans = finite - layout.low
        spans *= 1.0 / layout.span
    # Sorted values clip at two places, so the clipped sum is that of the middle and two products.
    first = int(np.searchsorted(spans, -1.0, side="left"))
    last = int(np.searchsorted(spans, 2.0, side="right"))
    core = spans[first:last]
    scaled = core * UNIT
    middle = int(np.rint(scaled, out=scaled).sum())
    np.multiply(core, core, out=scaled)
    scaled *= UNIT
    squares = int(np.rint(scaled, out=scaled).sum())
    # A constant reference has no range to clip to: its clipped sum is zero, and location is off.
    clipped = middle + UNIT * (2 * (len(spans) - last) - first) if layout.high > layout.low else 0
    for tail in (spans[:first], spans[last:]):
        if len(tail):
            far = np.clip(tail, -_CUT, _CUT)
            middle += int(np.rint(far * UNIT).astype(np.int64).sum())
            squares += _exact(np.rint(far * far * UNIT).astype(np.int64))
    return middle, squares, clipped


def _exact(values: Ints) -> int:
    """The sum of up to 2^15 numbers below 2^61, which one int64 could not hold."""
    return int((values >> 30).sum()) * UNIT + int((values & (UNIT - 1)).sum())


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def _among(hashes: NDArray[np.uint64], ordered: NDArray[np.uint64]) -> NDArray[np.bool_]:
    if not len(ordered):
        return np.zeros(len(hashes), dtype=bool)
    at = np.minimum(np.searchsorted(ordered, hashes), len(ordered) - 1)
    found: NDArray[np.bool_] = ordered[at] == hashes
    return found


def _cell(hashes: NDArray[np.uint64], common: NDArray[np.uint64]) -> Ints:
    """The cell of each known category: its place among the common ones, else the last."""
    order = np.argsort(common)
    cell = np.full(len(hashes), len(common), dtype=np.int64)
    found = _among(hashes, common[order])
    cell[found] = order[np.searchsorted(common[order], hashes[found])]
    return cell
