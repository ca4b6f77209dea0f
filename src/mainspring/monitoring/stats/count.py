"""The counting kernel: a column in, a `BlockState` out.

Values are sorted in pieces that fit the cache. NumPy sorts with vector instructions at 3 to 4 ns a value; after that
every count is a handful of binary searches for edges, not one search for each value. This is 10 times faster than
searching for the cell of each value, and needs no compiler.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING

from mainspring.lazy import lazy
from mainspring.monitoring.stats.columns import Encoded, encoded, numbers
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

__all__ = ["count", "count_encoded", "count_numbers", "invalid_codes"]

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
    codes = encoded(column, layout.kind)
    return count_encoded(codes, layout, invalid=invalid_codes(codes, layout.rules))


def count_numbers(values: Floats, layout: Layout, *, fine: bool = False) -> BlockState:
    """Count non-null numbers (n,), float64; the array is not changed."""
    edges = layout.edges if fine else layout.edges[layout.coarse]
    cells = np.zeros(len(edges) + 1, dtype=np.int64)
    parts = [empty_state(layout.digest, 0)]
    for start in range(0, len(values), _PIECE):
        counts, part = _piece(np.sort(values[start : start + _PIECE]), layout, edges)
        cells += counts
        parts.append(part)
    coarse = cells
    if fine:
        coarse = np.diff(np.cumsum(cells)[layout.coarse], prepend=0, append=cells.sum())
    return replace(merge(parts), counts=tuple(coarse.tolist()), fine=tuple(cells.tolist()) if fine else ())


def count_encoded(codes: Encoded, layout: Layout, invalid: NDArray[np.bool_] | None = None) -> BlockState:
    """Count categories given as codes; `invalid` says of each code whether it breaks a rule."""
    rows = len(codes.codes)
    tally = np.bincount(codes.codes + 1, minlength=len(codes.hashes) + 1)
    seen = np.flatnonzero(tally[1:])
    hashes, counts = codes.hashes[seen], tally[1:][seen]
    known = _among(hashes, layout.known)
    cells = np.zeros(layout.cells, dtype=np.int64)
    np.add.at(cells, _cell(hashes[known], layout.common), counts[known])
    return BlockState(
        layout.digest,
        tuple(cells.tolist()),
        rows=rows,
        n=rows,
        n_null=int(tally[0]),
        n_unseen=int(counts[~known].sum()),
        n_invalid=0 if invalid is None else int(counts[invalid[seen]].sum()),
    )


def invalid_codes(codes: Encoded, rules: Rules) -> NDArray[np.bool_] | None:
    """For each code whether it breaks a rule: (codes,); None when there is no rule."""
    if not rules.one_of and rules.matches is None:
        return None
    wrong = np.zeros(len(codes.hashes), dtype=bool)
    if rules.one_of:
        wrong |= ~np.isin(codes.hashes, np.array(sorted(rules.one_of), dtype=np.uint64))
    if rules.matches is not None and len(codes.values):
        form = re.compile(rules.matches)
        wrong |= np.array([isinstance(v, str) and form.fullmatch(v) is None for v in codes.values], dtype=bool)
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
        for name in BlockState.__dataclass_fields__
        if name.startswith(("n_", "sum", "csum")) or name == "n"
    }
    counts = tuple(cell * factor for cell in state.counts)
    return replace(state, counts=counts, fine=tuple(cell * factor for cell in state.fine), **scaled)


def _piece(ordered: Floats, layout: Layout, edges: Floats) -> tuple[Ints, BlockState]:
    """Cell counts and the rest of the state of a sorted piece: -inf first, then finite values, +inf, NaN."""
    bottom = int(np.searchsorted(ordered, -math.inf, side="right"))
    top, numeric = np.searchsorted(ordered, [math.inf, math.nan], side="left").tolist()
    finite = ordered[bottom:top]
    size = len(finite)
    upto = np.searchsorted(finite, edges, side="right")
    below = np.searchsorted(finite, [0.0, layout.vmin, _or(layout.rules.ge, -math.inf)], side="left").tolist()
    within = np.searchsorted(finite, [0.0, layout.vmax, _or(layout.rules.le, math.inf)], side="right").tolist()
    total, squares, clipped = _sums(finite, layout)
    return np.diff(upto, prepend=0, append=size), BlockState(
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
