"""From the rows of each window to the features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import msgspec

from mainspring.declare.aggregate import Function
from mainspring.errors import DataError
from mainspring.features.view import FeatureDef, View, arrow_type
from mainspring.features.windows.different import different, different_by_pairs
from mainspring.features.windows.kernels import Ranges, affordable
from mainspring.features.windows.question import SORTED, Question
from mainspring.features.windows.sketch import bits_of, bucket_values, buckets, number_hashes, place_of, text_hashes
from mainspring.features.windows.timeline import CHUNK, Array, Values
from mainspring.features.windows.wavelet import smallest
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
else:
    np, pa = lazy("numpy"), lazy("pyarrow")

__all__ = ["answer"]

_LOW = (1 << 32) - 1
_CANCELLED = 1e-5
"""Sums are right to 1e-15, and a variance is to be to 1e-10."""


class _Asked(msgspec.Struct, frozen=True):
    question: Question
    view: View
    feature: FeatureDef
    values: Values
    window_us: int

    @property
    def whole(self) -> bool:
        return bool(self.values.data.dtype.kind == "i")

    def count(self) -> Array:
        """The non-null values of each window, (moments,) int64."""
        return self.question.total(self.values.valid.astype(np.int64), self.window_us)


def answer(question: Question, view: View, feature: FeatureDef, rows: int) -> pa.Array:
    """One feature at all moments, in the spine's order.

    Args:
        question: the log's rows and the moments.
        view: whose feature it is.
        feature: a windowed feature.
        rows: rows of the spine; those without a moment (a null key or time) count nothing.

    Raises:
        DataError: MS-2117, a total does not fit int64.
    """
    assert feature.window_us is not None
    everything = Values(np.zeros(len(question.events.event), np.int64), np.ones(len(question.events.event), np.bool_))
    values = everything if feature.column is None else question.events.columns[feature.column]
    asked = _Asked(question, view, feature, values, feature.window_us)
    with np.errstate(over="ignore", invalid="ignore"):  # infinity and NaN are answers
        if (by_row := _BY_ROW.get(feature.aggregate.function)) is not None:
            return _in_order(asked, by_row(asked), rows)
        found, known = _FUNCTIONS[feature.aggregate.function](asked)
    labels = values.labels if feature.aggregate.function in _LABELLED else None
    kind = arrow_type(feature.type)
    if feature.aggregate.function is Function.COUNT:  # where nothing is asked, nothing is counted
        data = np.zeros(rows, np.int64)
        data[question.moments.rid] = found
        return pa.array(data, kind)
    return _in_order(asked, _as_arrow(Values(found, known, labels), kind), rows)


def _in_order(asked: _Asked, found: pa.Array, rows: int) -> pa.Array:
    """From the order of the moments to that of the spine; null where it asks nothing."""
    place = np.full(rows, -1, np.int64)
    place[asked.question.moments.rid] = np.arange(len(found))
    return found.take(pa.array(place, mask=place < 0))


def _as_arrow(values: Values, kind: pa.DataType) -> pa.Array:
    if values.labels is not None:
        places = pa.array(np.where(values.valid, values.data, 0), mask=~values.valid)
        return pa.chunked_array([values.labels]).take(places).combine_chunks().cast(kind)
    if pa.types.is_boolean(kind):
        return pa.array(values.data.astype(np.bool_), mask=~values.valid)
    if pa.types.is_date(kind):
        return pa.array(values.data.astype(np.int32), mask=~values.valid).cast(kind)
    return pa.array(values.data, mask=~values.valid).cast(kind)


def _count(asked: _Asked) -> tuple[Array, Array]:
    n = asked.count()
    return n, np.ones(len(n), np.bool_)


def _total(asked: _Asked) -> tuple[Array, Array]:
    n = asked.count()
    if not asked.whole:
        return _sum(asked).astype(np.float64), n > 0
    high, low = _halves(asked)
    high += low >> 32
    if np.any((high < -(1 << 31)) | (high >= 1 << 31)):
        raise DataError(
            f"feature {asked.view.name}.{asked.feature.name} does not fit 64 bits",
            code="MS-2117",
            why=f"{asked.feature.aggregate} passes 9223372036854775807 in some window",
            fix="declare the column as float, or use avg",
        )
    return (high << 32) + (low & _LOW), n > 0


def _avg(asked: _Asked) -> tuple[Array, Array]:
    n = asked.count()
    return (_sum(asked) / np.maximum(n, 1)).astype(np.float64), n > 0


def _variance(asked: _Asked) -> tuple[Array, Array]:
    """Sums of centred values and of their squares, by entity; where that cancels, in two passes by window."""
    n = asked.count()
    data = _finite(asked.values)
    x = np.where(asked.values.valid, data - _means(asked, data), 0)
    ones = asked.question.total(x, asked.window_us)
    squares = asked.question.total(x * x, asked.window_us)
    spread = squares - ones * ones / np.maximum(n, 1)
    lost = ~(spread >= squares * _CANCELLED)
    lo, hi = asked.question.range(asked.window_us)
    again = affordable(np.flatnonzero(lost & (n > 1)), hi - lo, len(x))
    if len(again):
        spread[again] = _two_passes(asked, np.where(asked.values.valid, data, 0), again)
    found = np.maximum(spread, 0) / np.maximum(n - 1, 1)
    return _with_specials(asked, found.astype(np.float64), spread=True), n > 1


def _stddev(asked: _Asked) -> tuple[Array, Array]:
    found, valid = _variance(asked)
    return np.sqrt(found), valid


def _lowest(asked: _Asked) -> tuple[Array, Array]:
    values = asked.values
    return asked.question.lowest(values.data, asked.window_us, values.valid), asked.count() > 0


def _highest(asked: _Asked) -> tuple[Array, Array]:
    def turn(values: Array) -> Array:
        return ~values if asked.whole else -values

    found = asked.question.lowest(turn(asked.values.data), asked.window_us, asked.values.valid)
    return turn(found), asked.count() > 0


def _distinct(asked: _Asked) -> tuple[Array, Array]:
    question, values = asked.question, asked.values
    if values.labels is None:
        codes, hashes = bits_of(values.data), number_hashes(values.data)
    else:
        codes = values.data
        hashes = np.append(text_hashes(values.labels.to_pylist()), np.uint64(0))[codes]  # all may be null
    if question.kernel(asked.window_us, SORTED).name == Ranges.name:
        found = different_by_pairs(question, asked.window_us, codes, hashes, values.valid)
    else:
        found = different(question.spans(asked.window_us).only(values.valid), question.events.entity, codes, hashes)
    return found, found > 0


def _quantile(asked: _Asked) -> tuple[Array, Array]:
    question, share = asked.question, asked.feature.aggregate.share
    data = asked.values.data.astype(np.float64)
    nan = np.isnan(data)
    use = asked.values.valid & ~nan
    keys, ranks = np.unique(buckets(np.where(use, data, 0.0)), return_inverse=True)
    spans = question.spans(asked.window_us).only(use)
    sizes = spans.sizes()
    asking = np.flatnonzero(sizes)
    place = place_of(share, sizes[asking])
    found = np.full(len(sizes), np.nan)
    if not len(asking):
        pass
    elif question.kernel(asked.window_us, SORTED).name == Ranges.name:
        found[asking] = bucket_values(keys[_picked(asked, ranks, use, sizes, place)])
    else:
        lo, hi, starts = spans.of(asking).pieces()
        found[asking] = bucket_values(keys[smallest(ranks[spans.rows], lo, np.maximum(lo, hi), starts, place)])
    nans = question.total((asked.values.valid & nan).astype(np.int64), asked.window_us) if nan.any() else 0
    return np.where(nans > 0, np.nan, found), (sizes > 0) | (nans > 0)


def _picked(asked: _Asked, ranks: Array, use: Array, sizes: Array, place: Array) -> Array:
    """By sorting the pairs (moment, row): the rank at a place of each moment that has any."""
    width, found = len(ranks) + 1, []
    firsts = np.cumsum(sizes) - sizes

    def visit(moments: Array, rows: Array) -> None:
        used = use[rows]
        found.append(np.sort(moments[used] * width + ranks[rows[used]]) % width)

    def chosen(which: Array) -> Array:
        found.clear()
        asked.question.each(asked.window_us, which, visit)
        return np.concatenate(found)[firsts[which] - firsts[which[0]] + place[np.searchsorted(asking, which)]]

    asking = np.flatnonzero(sizes)
    groups = np.flatnonzero(np.diff(np.cumsum(sizes[asking]) // CHUNK, prepend=-1))
    return np.concatenate([chosen(which) for which in np.split(asking, groups[1:])])


def _first(asked: _Asked) -> pa.Array:
    spans = asked.question.spans(asked.window_us)
    lo, hi, starts = spans.segments()
    none = len(asked.values.valid)
    rows = np.append(spans.rows, none)
    found = np.minimum.reduceat(np.where(lo < hi, rows[lo], none), starts) if len(starts) else starts
    np.minimum.at(found, spans.more_of, spans.rows[spans.more])
    return _of_rows(asked, found, found < none)


def _last(asked: _Asked) -> pa.Array:
    spans = asked.question.spans(asked.window_us)
    lo, hi, starts = spans.segments()
    rows = np.append(spans.rows, -1)
    found = np.maximum.reduceat(np.where(lo < hi, rows[hi - 1], -1), starts) if len(starts) else starts
    np.maximum.at(found, spans.more_of, spans.rows[spans.more])
    return _of_rows(asked, found, found >= 0)


def _last_n(asked: _Asked) -> pa.Array:
    spans = asked.question.spans(asked.window_us)
    moments, rows = spans.ends(asked.feature.aggregate.size)
    counts = np.bincount(moments, minlength=len(spans.lo)) if len(moments) else np.zeros(len(spans.lo), np.int64)
    offsets = pa.array(np.append(0, np.cumsum(counts)), pa.int32())
    elements = _column(asked, rows, np.ones(len(rows), np.bool_), arrow_type(asked.feature.type.element))
    return pa.ListArray.from_arrays(offsets, elements, mask=pa.array(counts == 0))


def _of_rows(asked: _Asked, rows: Array, known: Array) -> pa.Array:
    return _column(asked, rows, known, arrow_type(asked.feature.type))


def _column(asked: _Asked, rows: Array, known: Array, kind: pa.DataType) -> pa.Array:
    values = asked.values
    if not len(values.data):
        return pa.nulls(len(rows), kind)
    at = np.where(known, rows, 0)
    return _as_arrow(Values(values.data[at], known & values.valid[at], values.labels), kind)


_FUNCTIONS: Mapping[Function, Callable[[_Asked], tuple[Array, Array]]] = {
    Function.COUNT: _count,
    Function.TOTAL: _total,
    Function.AVG: _avg,
    Function.VARIANCE: _variance,
    Function.STDDEV: _stddev,
    Function.LOWEST: _lowest,
    Function.HIGHEST: _highest,
    Function.DISTINCT: _distinct,
    Function.QUANTILE: _quantile,
}
_BY_ROW: Mapping[Function, Callable[[_Asked], pa.Array]] = {
    Function.FIRST: _first,
    Function.LAST: _last,
    Function.LAST_N: _last_n,
}
_LABELLED = frozenset({Function.LOWEST, Function.HIGHEST})


def _halves(asked: _Asked) -> tuple[Array, Array]:
    data = np.where(asked.values.valid, asked.values.data, 0)
    total = asked.question.total
    return total(data >> 32, asked.window_us), total(data & _LOW, asked.window_us)


def _sum(asked: _Asked) -> Array:
    """The sum of each window, (moments,) longdouble."""
    if asked.whole:
        high, low = _halves(asked)
        return high.astype(np.longdouble) * (1 << 32) + low
    found = asked.question.total(np.where(asked.values.valid, _finite(asked.values), 0), asked.window_us)
    return _with_specials(asked, found, spread=False)


def _finite(values: Values) -> Array:
    data = values.data.astype(np.longdouble)
    return np.where(np.isfinite(data), data, 0)


def _means(asked: _Asked, data: Array) -> Array:
    """Each row's entity's mean, (rows,); any value near the data would do."""
    entity = asked.question.events.entity
    if not len(entity):
        return data
    starts = np.flatnonzero(np.diff(entity, prepend=-1))
    sizes = np.diff(np.append(starts, len(entity)))
    n = np.add.reduceat(asked.values.valid.astype(np.int64), starts)
    return np.repeat(np.add.reduceat(np.where(asked.values.valid, data, 0), starts) / np.maximum(n, 1), sizes)


def _two_passes(asked: _Asked, x: Array, which: Array) -> Array:
    size = len(asked.question.moments.t)
    n, ones, spread = np.zeros(size, np.int64), np.zeros(size, np.longdouble), np.zeros(size, np.longdouble)
    valid = asked.values.valid

    def first(moments: Array, rows: Array) -> None:
        np.add.at(n, moments, valid[rows])
        np.add.at(ones, moments, x[rows])

    def second(moments: Array, rows: Array) -> None:
        away = np.where(valid[rows], x[rows] - ones[moments], 0)
        np.add.at(spread, moments, away * away)

    asked.question.each(asked.window_us, which, first)
    ones /= np.maximum(n, 1)
    asked.question.each(asked.window_us, which, second)
    return spread[which]


def _with_specials(asked: _Asked, found: Array, *, spread: bool) -> Array:
    """NaN and infinities, counted apart so that they spoil only the windows they are in."""
    if asked.whole:
        return found
    data, valid = asked.values.data, asked.values.valid
    nan, up, down = (valid & special for special in (np.isnan(data), data == np.inf, data == -np.inf))
    if not (nan.any() or up.any() or down.any()):
        return found
    nans, ups, downs = (asked.question.total(special.astype(np.int64), asked.window_us) for special in (nan, up, down))
    found = np.where(ups > 0, np.inf, np.where(downs > 0, -np.inf, found))
    none = (nans > 0) | ((ups > 0) & (downs > 0))
    if spread:
        none |= (ups > 0) | (downs > 0)
    return np.where(none, np.nan, found)
