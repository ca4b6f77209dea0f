"""Intervals: Wilson's for a share, Poisson resamples for any metric, and the paired bootstrap of two models.

A resample gives each row (or each group of rows) an independent Poisson(1) count. Every metric divides by its own
weights, so this has the limit law of the multinomial bootstrap and needs no draw of n indices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeAlias

from mainspring.errors import UsageError
from mainspring.lazy import lazy
from mainspring.metrics.additive import ADDITIVE, point
from mainspring.metrics.arrays import aligned
from mainspring.metrics.interval import Interval, PairedResult
from mainspring.metrics.ranking import roc_auc, sort_scores, weighted_auc

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from mainspring.metrics.arrays import Floats, Ints

    Counts: TypeAlias = NDArray[np.uint8]
    Metric: TypeAlias = str | Callable[[Floats, Floats, Floats], float]
    Replicates: TypeAlias = Callable[[Counts], Floats]
else:
    np = lazy("numpy")

__all__ = [
    "METRICS",
    "Interval",
    "PairedResult",
    "evaluate",
    "greater_is_better",
    "paired_bootstrap",
    "poisson_resample",
    "wilson",
]

METRICS = ("roc_auc", *ADDITIVE)
"""The metrics that have a name, and a fast resample."""

_CHUNK = 1 << 21


def greater_is_better(metric: str) -> bool:
    """Whether a higher value of the named metric is the better one.

    Raises:
        UsageError: MS-2691, when no metric has that name.
    """
    _known(metric)
    return metric == "roc_auc" or ADDITIVE[metric].greater_is_better


def evaluate(metric: Metric, y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The metric, by name or as a function of (y, p, weight); NaN when undefined.

    Raises:
        UsageError: MS-2691, when no metric has that name.
        DataError: MS-2401, when the lengths differ.
    """
    if not isinstance(metric, str):
        return float(metric(*aligned(y, p, weight)))
    _known(metric)
    return roc_auc(y, p, weight) if metric == "roc_auc" else point(ADDITIVE[metric], y, p, weight)


def wilson(k: float, n: float, level: float = 0.95) -> Interval:
    """Wilson's score interval for the share k/n (Wilson 1927); undefined for n = 0."""
    if n <= 0:
        return Interval(math.nan, math.nan, math.nan, 0, "no rows")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = k / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if k == 0 else max(middle - reach, 0.0)
    high = 1.0 if k == n else min(middle + reach, 1.0)
    return Interval(share, low, high, int(n))


def poisson_resample(
    y: ArrayLike,
    p: ArrayLike,
    metric: Metric,
    groups: ArrayLike | None = None,
    n: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    weight: ArrayLike | None = None,
) -> Interval:
    """The metric with its percentile interval over n Poisson resamples.

    Args:
        y: truth (rows,).
        p: predictions (rows,), or (rows, classes) where the metric takes them.
        metric: a name of `METRICS`, or a function of (y, p, weight).
        groups: entity of each row (rows,), any type: rows of one entity are drawn together.
        n: resamples.
        seed: of the generator; equal seeds give equal intervals.
        level: coverage.
        weight: row weights (rows,).

    Raises:
        UsageError: MS-2691, when no metric has that name.
        DataError: MS-2401, when the lengths differ.
    """
    truth, predicted, weights = aligned(y, p, weight)
    value = evaluate(metric, truth, predicted, weights)
    if math.isnan(value):
        return Interval(value, math.nan, math.nan, len(truth), _why(truth))
    codes, size = _codes(groups, len(truth))
    replicate = _replicates(metric, truth, predicted, weights, codes, size)
    draws = np.concatenate([replicate(counts) for counts in _poisson(size, n, seed)])
    low, high = _percentiles(draws, level)
    return Interval(value, low, high, len(truth), "" if low == low else "no resample has a value")


def paired_bootstrap(
    y: ArrayLike,
    p_new: ArrayLike,
    p_live: ArrayLike,
    metric: Metric,
    groups: ArrayLike | None = None,
    n: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    weight: ArrayLike | None = None,
    higher_wins: bool | None = None,
) -> PairedResult:
    """The new model against the live one on the same rows, resampled together.

    Args:
        y: truth (rows,).
        p_new: predictions of the new model.
        p_live: predictions of the live model.
        metric: a name of `METRICS`, or a function of (y, p, weight).
        groups: entity of each row (rows,): rows of one entity are drawn together.
        n: resamples.
        seed: of the generator.
        level: two-sided coverage of low..high.
        weight: row weights (rows,).
        higher_wins: direction of the metric; by default that of the named metric, and True for a function.

    Raises:
        UsageError: MS-2691, when no metric has that name.
        DataError: MS-2401, when the lengths differ.
    """
    truth, new, weights = aligned(y, p_new, weight)
    _, live, _ = aligned(y, p_live)
    delta = evaluate(metric, truth, new, weights) - evaluate(metric, truth, live, weights)
    if math.isnan(delta):
        return PairedResult(delta, math.nan, math.nan, math.nan, len(truth), _why(truth))
    codes, size = _codes(groups, len(truth))
    first = _replicates(metric, truth, new, weights, codes, size)
    second = _replicates(metric, truth, live, weights, codes, size)
    draws = np.concatenate([first(counts) - second(counts) for counts in _poisson(size, n, seed)])
    draws = draws[~np.isnan(draws)]
    low, high = _percentiles(draws, level)
    if low != low:
        return PairedResult(delta, low, high, math.nan, len(truth), "no resample has a value")
    if higher_wins is None:
        higher_wins = greater_is_better(metric) if isinstance(metric, str) else True
    wins = np.mean(draws > 0) if higher_wins else np.mean(draws < 0)
    return PairedResult(delta, low, high, float(wins + 0.5 * np.mean(draws == 0)), len(truth))


def _replicates(metric: Metric, y: Floats, p: Floats, weight: Floats, codes: Ints | None, size: int) -> Replicates:
    """A function from group counts (b, size) to the metric under them (b,)."""
    if metric == "roc_auc":
        scores = sort_scores(y, p)
        even = bool((weight == 1.0).all())

        def area(counts: Counts) -> Floats:
            rows = counts if codes is None else counts[:, codes]
            return weighted_auc(scores, rows if even else rows * weight)

        return area
    if isinstance(metric, str):
        known = ADDITIVE[metric]
        terms = known.terms(y, p) * weight[:, None]
        if codes is not None:
            terms = np.stack([np.bincount(codes, weights=term, minlength=size) for term in terms.T], axis=1)
        return lambda counts: known.finish(counts.astype(np.float64) @ terms)
    function = metric

    def one_by_one(counts: Counts) -> Floats:
        rows = counts if codes is None else counts[:, codes]
        return np.array([function(y, p, weight * row) for row in rows], dtype=np.float64)

    return one_by_one


def _poisson(size: int, n: int, seed: int) -> Iterator[Counts]:
    """Chunks (b, size) of Poisson(1) counts, n rows in all.

    Drawn by inverting the distribution on 16 bits: 20 times faster than a generator's own, and off by at most 2^-16 in
    any probability.
    """
    total, term, cumulative = 0.0, math.exp(-1.0), []
    for k in range(10):
        total += term
        cumulative.append(round(total * 65536))
        term /= k + 1
    table = np.searchsorted(np.array(cumulative), np.arange(65536), side="right").astype(np.uint8)
    generator = np.random.Generator(np.random.PCG64(seed))
    step = max(1, _CHUNK // max(size, 1))
    for start in range(0, n, step):
        shape = (min(step, n - start), size)
        yield table[generator.integers(0, 65536, size=shape, dtype=np.uint16)]


def _codes(groups: ArrayLike | None, rows: int) -> tuple[Ints | None, int]:
    if groups is None:
        return None, rows
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    aligned(codes, np.zeros(rows))
    return codes, len(names)


def _percentiles(draws: Floats, level: float) -> tuple[float, float]:
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return math.nan, math.nan
    low, high = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2])
    return float(low), float(high)


def _why(y: Floats) -> str:
    if not len(y):
        return "no rows"
    if np.isnan(y).any():
        return "a label is missing"
    return "one class or value only" if (y == y[0]).all() else "undefined on these rows"


def _known(metric: str) -> None:
    if metric not in METRICS:
        raise UsageError(
            f'no metric is called "{metric}"',
            code="MS-2691",
            why="known: " + ", ".join(METRICS),
            fix="use one of them, or pass a function of (y, p, weight)",
        )
