"""The rules of point-in-time features as a loop over rows: slow, and easy to believe."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from mainspring.declare.aggregate import Aggregate, Function

MISSING, EXPIRED, PRESENT = "MISSING", "EXPIRED", "PRESENT"


@dataclass(frozen=True)
class Row:
    """One row of a log; times in microseconds."""

    key: object
    event: int
    ingest: int
    seq: int
    values: dict[str, object] = field(default_factory=dict)
    deleted: bool = False
    valid_to: int | None = None
    id: object = None
    retracts: int | None = None


@dataclass(frozen=True)
class Answer:
    status: str
    event: int | None
    values: dict[str, object]


def standing(rows, t, as_known):
    """Without what had been taken away at t, and what only takes away; without `as_known`, whenever it was."""
    gone = {row.retracts for row in rows if row.retracts is not None and (row.ingest <= t or not as_known)}
    return [row for row in rows if row.retracts is None and row.seq not in gone]


def known(rows, key, t, as_known):
    if key is None or t is None:
        return []
    rows = standing(rows, t, as_known)
    return [row for row in rows if row.key == key and row.event <= t and (row.ingest <= t or not as_known)]


def newest(rows, key, t, *, as_known=True, ttl=None):
    """Rule 1: the greatest (event, ingest, seq) among what had happened and was known."""
    found = max(known(rows, key, t, as_known), key=lambda row: (row.event, row.ingest, row.seq), default=None)
    if found is None or found.deleted:
        return Answer(MISSING, None if found is None else found.event, {})
    if ttl is not None and found.event < t - ttl:
        return Answer(EXPIRED, found.event, {})
    if found.valid_to is not None and t >= found.valid_to:
        return Answer(EXPIRED, found.event, {})
    return Answer(PRESENT, found.event, found.values)


def in_window(rows, key, t, window, *, as_known=True, versioned=False):
    """Rule 3: the rows of (t - w, t]; of a versioned event, the newest version that stood at t."""
    if key is None or t is None:
        return []
    seen = [row for row in rows if row.key == key and (row.ingest <= t or not as_known)]
    gone = {row.retracts for row in seen}
    seen = [row for row in seen if row.retracts is None and row.seq not in gone]
    if versioned:
        latest = {}
        for row in sorted(seen, key=lambda row: (row.ingest, row.seq)):
            latest[row.seq if row.id is None else ("id", row.id)] = row
        seen = list(latest.values())
    inside = [row for row in seen if not row.deleted and t - window < row.event <= t]
    return sorted(inside, key=lambda row: (row.event, row.ingest, row.seq))


def aggregate(rows, what: Aggregate):
    values = [row.values[what.column] for row in rows] if what.column is not None else list(rows)
    if what.function in _OF_ROWS:  # null values count
        return _OF_ROWS[what.function](values, what.size) if values else None
    values = [value for value in values if value is not None]
    n = len(values)
    if what.function is Function.COUNT:
        return n
    if n == 0 or (n == 1 and what.function in (Function.VARIANCE, Function.STDDEV)):
        return None
    if what.function is Function.QUANTILE:
        return _quantile(values, what.share)
    return _NUMBERS[what.function](values)


_OF_ROWS = {
    Function.FIRST: lambda values, _: values[0],
    Function.LAST: lambda values, _: values[-1],
    Function.LAST_N: lambda values, size: values[-size:],
}


def _quantile(values, share):
    """The value at its place; what is asked for is within 1 % of it."""
    if any(math.isnan(value) for value in values):
        return math.nan
    return Near(float(sorted(values)[math.floor(share * (len(values) - 1))]))


class Near(float):
    """A number that an answer is within 1 % of."""


def _distinct(values):
    different = []
    for value in values:
        if not any(value == other or (value != value and other != other) for other in different):
            different.append(value)
    return len(different)


def _sum(values):
    if all(isinstance(value, int) for value in values):
        return sum(values)
    special = (
        sum(value for value in values if not math.isfinite(value))
        if any(not math.isfinite(value) for value in values)
        else 0.0
    )
    return math.fsum(value for value in values if math.isfinite(value)) + special


def _variance(values):
    if any(not math.isfinite(value) for value in values):
        return math.nan
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def _lowest(values):
    return math.nan if any(isinstance(value, float) and math.isnan(value) for value in values) else min(values)


def _highest(values):
    return math.nan if any(isinstance(value, float) and math.isnan(value) for value in values) else max(values)


_NUMBERS = {
    Function.TOTAL: _sum,
    Function.AVG: lambda values: _sum(values) / len(values),
    Function.VARIANCE: _variance,
    Function.STDDEV: lambda values: math.sqrt(_variance(values)),
    Function.LOWEST: _lowest,
    Function.HIGHEST: _highest,
    Function.DISTINCT: _distinct,
}


def same(ours, expected, tolerance=1e-9):
    """Equal; floats to a relative 1e-9, integers exactly."""
    if ours is None or expected is None:
        return ours is expected
    if isinstance(expected, Near):
        return isinstance(ours, float) and (ours == expected or abs(ours - expected) <= 0.01 * abs(expected))
    if isinstance(ours, list):
        pairs = zip(ours, expected, strict=True) if len(ours) == len(expected) else [(0, 1)]
        return all(same(mine, other, tolerance) for mine, other in pairs)
    if isinstance(ours, float) and isinstance(expected, (int, float)):
        if math.isnan(ours) or math.isnan(expected):
            return math.isnan(ours) and math.isnan(expected)
        return ours == expected or math.isclose(ours, expected, rel_tol=tolerance, abs_tol=1e-9)
    return type(ours) is type(expected) and ours == expected
