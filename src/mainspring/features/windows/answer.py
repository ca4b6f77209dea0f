"""From the rows of each window to the features: count, total, avg, variance, stddev, lowest, highest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mainspring.declare.aggregate import Function
from mainspring.declare.record import Kind
from mainspring.errors import DataError
from mainspring.features.view import FeatureDef, View, arrow_type
from mainspring.features.windows.kernels import affordable
from mainspring.features.windows.question import Question
from mainspring.features.windows.timeline import Array, Values
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
else:
    np, pa = lazy("numpy"), lazy("pyarrow")

__all__ = ["answer"]

_LOW = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class _Asked:
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
    everything = Values(None, np.ones(len(question.events.event), np.bool_))
    values = everything if feature.column is None else question.events.columns[feature.column]
    asked = _Asked(question, view, feature, values, feature.window_us)
    with np.errstate(over="ignore", invalid="ignore"):  # infinity and NaN are answers
        found, valid = _FUNCTIONS[feature.aggregate.function](asked)
    return _in_order(asked, found, valid, rows)


def _in_order(asked: _Asked, found: Array, valid: Array, rows: int) -> pa.Array:
    data, known = np.zeros(rows, found.dtype), np.zeros(rows, np.bool_)
    data[asked.question.moments.rid], known[asked.question.moments.rid] = found, valid
    if asked.feature.aggregate.function is Function.COUNT:
        return pa.array(data)
    kind = arrow_type(asked.feature.type)
    if asked.values.labels is not None and _is_extreme(asked.feature):
        places = pa.array(np.where(known, data, 0), mask=~known)
        return pa.chunked_array([asked.values.labels]).take(places).combine_chunks().cast(kind)
    if asked.feature.type.kind is Kind.BOOLEAN:
        return pa.array(data.astype(np.bool_), mask=~known)
    if asked.feature.type.kind is Kind.DATE:
        return pa.array(data.astype(np.int32), mask=~known).cast(kind)
    return pa.array(data, mask=~known).cast(kind)


def _is_extreme(feature: FeatureDef) -> bool:
    return feature.aggregate.function in (Function.LOWEST, Function.HIGHEST)


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
    lost = ~(spread >= squares * (np.finfo(np.longdouble).eps * 1e11))
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
    return asked.question.lowest(_masked(asked, asked.values.data), asked.window_us), asked.count() > 0


def _highest(asked: _Asked) -> tuple[Array, Array]:
    def turn(values: Array) -> Array:
        return ~values if asked.whole else -values

    return turn(asked.question.lowest(_masked(asked, turn(asked.values.data)), asked.window_us)), asked.count() > 0


_FUNCTIONS: Mapping[Function, Callable[[_Asked], tuple[Array, Array]]] = {
    Function.COUNT: _count,
    Function.TOTAL: _total,
    Function.AVG: _avg,
    Function.VARIANCE: _variance,
    Function.STDDEV: _stddev,
    Function.LOWEST: _lowest,
    Function.HIGHEST: _highest,
}


def _masked(asked: _Asked, data: Array) -> Array:
    nothing = np.iinfo(np.int64).max if asked.whole else np.inf
    return np.where(asked.values.valid, data, nothing)


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
