"""Aggregates: what a feature view keeps of the rows of its source."""

from __future__ import annotations

import enum

import msgspec

from mainspring.declare.duration import Duration, microseconds, spell
from mainspring.declare.origin import here
from mainspring.declare.record import ColumnType, Kind
from mainspring.errors import DeclarationError

__all__ = [
    "Aggregate",
    "Function",
    "avg",
    "count",
    "distinct",
    "first",
    "highest",
    "last",
    "last_n",
    "lowest",
    "quantile",
    "stddev",
    "total",
    "variance",
]


class Function(enum.StrEnum):
    """The aggregate functions."""

    LAST = "last"
    COUNT = "count"
    TOTAL = "total"
    AVG = "avg"
    VARIANCE = "variance"
    STDDEV = "stddev"
    LOWEST = "lowest"
    HIGHEST = "highest"
    FIRST = "first"
    LAST_N = "last_n"
    DISTINCT = "distinct"
    QUANTILE = "quantile"


_NUMERIC = frozenset({Function.TOTAL, Function.AVG, Function.VARIANCE, Function.STDDEV, Function.QUANTILE})
_FLOATS = _NUMERIC - {Function.TOTAL}
_MOST = 1024
"""Elements of a `last_n`: a row online holds them all."""


class Aggregate(msgspec.Struct, frozen=True):
    """One feature: a function of one column over a window that ends at the moment of the question.

    Args:
        function: what is computed.
        column: the column it is computed of; None counts rows.
        window_us: length of the window (t - w, t] in microseconds; None is the newest row alone.
        size: how many rows `last_n` takes; 0 for all others.
        share: which quantile, from 0 (the least) to 1 (the greatest); 0 for all others.
    """

    function: Function
    column: str | None
    window_us: int | None
    size: int = 0
    share: float = 0.0

    def __str__(self) -> str:
        parts = [self.column or "*"]
        if self.function is Function.LAST_N:
            parts.append(str(self.size))
        if self.function is Function.QUANTILE:
            parts.append(repr(self.share))
        if self.window_us is not None:
            parts.append(spell(self.window_us))
        return f"{self.function.value}({', '.join(parts)})"

    def result_type(self, column: ColumnType | None) -> ColumnType:
        """The type of the feature, from the type of its column (None for a count of rows).

        Raises:
            DeclarationError: MS-1008, the function needs numbers, or values that a list can hold.
        """
        if self.function is Function.COUNT:
            return ColumnType(Kind.INTEGER)
        assert column is not None
        if self.function in _NUMERIC and column.kind not in (Kind.INTEGER, Kind.FLOAT):
            raise _unfit(self, column, "a column of numbers", "use last, lowest, highest or count, or another column")
        if self.function is Function.DISTINCT:
            return ColumnType(Kind.INTEGER, nullable=True)
        if self.function is Function.TOTAL:
            return ColumnType(column.kind, nullable=True)
        if self.function in _FLOATS:
            return ColumnType(Kind.FLOAT, nullable=True)
        if self.function is Function.LAST_N:
            if column.kind is Kind.VECTOR:
                raise _unfit(self, column, "single values", "use last, or another column")
            return ColumnType(Kind.LIST, True, column.precision, column.scale, self.size, column.kind)
        return ColumnType(column.kind, True, column.precision, column.scale, column.length)


def _unfit(aggregate: Aggregate, column: ColumnType, needs: str, fix: str) -> DeclarationError:
    return DeclarationError(
        f"{aggregate} needs {needs}, and {aggregate.column!r} is {column}", code="MS-1008", origin=str(here()), fix=fix
    )


def _not_within(name: str, value: object, wanted: str) -> DeclarationError:
    return DeclarationError(
        f"{name}={value!r} is not {wanted}", code="MS-1035", origin=str(here()), fix=f"give {name} {wanted}"
    )


def _windowed(function: Function, column: str, window: Duration) -> Aggregate:
    return Aggregate(function, column, microseconds(window, what="window"))


def last(column: str, window: Duration | None = None) -> Aggregate:
    """The column's value in the newest row known at the moment of the question; null values count.

    With a window, in the newest row of that; null if there is none. Only without one does the view's ``ttl`` bound
    the row's age, and a deleted row hide those before it.
    """
    return Aggregate(Function.LAST, column, None) if window is None else _windowed(Function.LAST, column, window)


def first(column: str, window: Duration) -> Aggregate:
    """The column's value in the oldest row of the window; null values count, and null if there is no row."""
    return _windowed(Function.FIRST, column, window)


def last_n(column: str, n: int, window: Duration) -> Aggregate:
    """The column's values in the newest `n` rows of the window, a list with the newest last; null if there is no row.

    Null values count, as in `last`. A window of fewer rows gives a shorter list.

    Raises:
        DeclarationError: MS-1035, `n` is no whole number from 1 to 1,024.
    """
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= _MOST:
        raise _not_within("n", n, f"a whole number from 1 to {_MOST:,}")
    return Aggregate(Function.LAST_N, column, microseconds(window, what="window"), size=n)


def count(column_or_window: str, window: Duration | None = None) -> Aggregate:
    """``count("1h")`` counts the rows of the window, ``count("x", "1h")`` those where x is not null; 0 if none."""
    if window is None:
        return Aggregate(Function.COUNT, None, microseconds(column_or_window, what="window"))
    return _windowed(Function.COUNT, column_or_window, window)


def distinct(column: str, window: Duration) -> Aggregate:
    """How many different non-null values are in the window, int64; null if there are none.

    Exact to 4,096; beyond, an estimate by HyperLogLog, which is off by 0.8 % as a rule. All NaN are one value, and 0.0
    is -0.0.
    """
    return _windowed(Function.DISTINCT, column, window)


def quantile(column: str, share: float, window: Duration) -> Aggregate:
    """A quantile of the non-null values in the window, float64, within 1 % of the value there; null if there are none.

    Of n values in order, counted from 0, the one at ``floor(share * (n - 1))``, to 8 significant bits: whole numbers
    up to 256 come out exactly. NaN if one is in the window.

    Args:
        column: a column of numbers.
        share: from 0 (the least) over 0.5 (the median) to 1 (the greatest).
        window: how far back.

    Raises:
        DeclarationError: MS-1035, `share` is no number from 0 to 1.
    """
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 <= share <= 1:
        raise _not_within("share", share, "a number from 0 to 1")
    return Aggregate(Function.QUANTILE, column, microseconds(window, what="window"), share=float(share))


def total(column: str, window: Duration) -> Aggregate:
    """The sum of the non-null values in the window, int64 or float64 as the column; null if there are none."""
    return _windowed(Function.TOTAL, column, window)


def avg(column: str, window: Duration) -> Aggregate:
    """The mean of the non-null values in the window, float64; null if there are none."""
    return _windowed(Function.AVG, column, window)


def variance(column: str, window: Duration) -> Aggregate:
    """The sample variance (ddof 1) of the non-null values in the window, float64; null below two values."""
    return _windowed(Function.VARIANCE, column, window)


def stddev(column: str, window: Duration) -> Aggregate:
    """The sample standard deviation (ddof 1) of the non-null values in the window, float64; null below two values."""
    return _windowed(Function.STDDEV, column, window)


def lowest(column: str, window: Duration) -> Aggregate:
    """The least non-null value in the window; null if there are none."""
    return _windowed(Function.LOWEST, column, window)


def highest(column: str, window: Duration) -> Aggregate:
    """The greatest non-null value in the window; null if there are none."""
    return _windowed(Function.HIGHEST, column, window)
