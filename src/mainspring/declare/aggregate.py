"""Aggregates: what a feature view keeps of the rows of its source."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from mainspring.declare.duration import Duration, microseconds, spell
from mainspring.declare.origin import here
from mainspring.declare.record import ColumnType, Kind
from mainspring.errors import DeclarationError

__all__ = ["Aggregate", "Function", "avg", "count", "highest", "last", "lowest", "stddev", "total", "variance"]


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


_NUMERIC = frozenset({Function.TOTAL, Function.AVG, Function.VARIANCE, Function.STDDEV})


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One feature: a function of one column over a window that ends at the moment of the question.

    Args:
        function: what is computed.
        column: the column it is computed of; None counts rows.
        window_us: length of the window (t - w, t] in microseconds; None is the newest row alone.
    """

    function: Function
    column: str | None
    window_us: int | None

    def __str__(self) -> str:
        parts = [self.column or "*"]
        if self.window_us is not None:
            parts.append(spell(self.window_us))
        return f"{self.function.value}({', '.join(parts)})"

    def result_type(self, column: ColumnType | None) -> ColumnType:
        """The type of the feature, from the type of its column (None for a count of rows).

        Raises:
            DeclarationError: MS-1008, the function needs numbers.
        """
        if self.function is Function.COUNT:
            return ColumnType(Kind.INTEGER)
        assert column is not None
        if self.function in _NUMERIC and column.kind not in (Kind.INTEGER, Kind.FLOAT):
            raise DeclarationError(
                f"{self} needs a column of numbers, and {self.column!r} is {column}",
                code="MS-1008",
                origin=str(here()),
                fix="use last, lowest, highest or count, or another column",
            )
        if self.function is Function.TOTAL:
            return ColumnType(column.kind, nullable=True)
        if self.function in (Function.AVG, Function.VARIANCE, Function.STDDEV):
            return ColumnType(Kind.FLOAT, nullable=True)
        return ColumnType(column.kind, True, column.precision, column.scale, column.length)


def _windowed(function: Function, column: str, window: Duration) -> Aggregate:
    return Aggregate(function, column, microseconds(window, what="window"))


def last(column: str) -> Aggregate:
    """The column's value in the newest row known at the moment of the question; null values count."""
    return Aggregate(Function.LAST, column, None)


def count(column_or_window: str, window: Duration | None = None) -> Aggregate:
    """``count("1h")`` counts the rows of the window, ``count("x", "1h")`` those where x is not null; 0 if none."""
    if window is None:
        return Aggregate(Function.COUNT, None, microseconds(column_or_window, what="window"))
    return _windowed(Function.COUNT, column_or_window, window)


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
