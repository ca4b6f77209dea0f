"""The area under the ROC curve: its value, its DeLong variance and its resamples."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

import msgspec

from mainspring.lazy import lazy
from mainspring.metrics.arrays import aligned
from mainspring.metrics.interval import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from mainspring.metrics.arrays import Floats, Ints
else:
    np = lazy("numpy")

__all__ = ["SortedScores", "delong", "roc_auc", "sort_scores", "weighted_auc"]


class SortedScores(msgspec.Struct, frozen=True):
    """Scores sorted once, for any number of weightings.

    Args:
        negatives: row numbers of the negatives, by rising score.
        positives: row numbers of the positives.
        below: for each positive, how many negatives score less.
        upto: for each positive, how many negatives score less or the same.
    """

    negatives: Ints
    positives: Ints
    below: Ints
    upto: Ints


def sort_scores(y: Floats, p: Floats) -> SortedScores:
    """Sort the scores p (n,) of the labels y (n,), 1 = positive, for `weighted_auc`."""
    positives = np.flatnonzero(y == 1.0)
    negatives = np.flatnonzero(y == 0.0)
    negatives = negatives[np.argsort(p[negatives], kind="stable")]
    scores = p[negatives]
    # Ascending positives read the cumulative weights in order, which is what makes a resample cheap.
    positives = positives[np.argsort(p[positives], kind="stable")]
    below = np.searchsorted(scores, p[positives], side="left")
    upto = np.searchsorted(scores, p[positives], side="right")
    return SortedScores(negatives, positives, below, upto)


def weighted_auc(scores: SortedScores, weights: NDArray[np.float64] | NDArray[np.uint8]) -> Floats:
    """The AUC (b,) under each row of weights (b, n); ties count one half; NaN where a class has no weight."""
    low = weights[:, scores.negatives]
    kind = np.int64 if weights.dtype.kind in "iu" else np.float64
    cumulative = np.zeros((len(weights), low.shape[1] + 1), dtype=kind)
    np.cumsum(low, axis=1, out=cumulative[:, 1:])
    high = weights[:, scores.positives].astype(np.float64)
    wins = np.take(cumulative, scores.below, axis=1) + np.take(cumulative, scores.upto, axis=1)
    pairs = high.sum(axis=1) * cumulative[:, -1]
    area = 0.5 * np.einsum("bi,bi->b", high, wins.astype(np.float64))
    out: Floats = np.divide(area, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)
    return out


def roc_auc(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Chance that a random positive outscores a random negative, ties one half; NaN when a class or a score is absent.

    Args:
        y: labels (n,), 0 or 1.
        p: scores (n,), any monotone scale.
        weight: row weights (n,), not negative.

    >>> roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75
    """
    truth, scores, weights = aligned(y, p, weight)
    if _why_undefined(truth, scores):
        return math.nan
    return float(weighted_auc(sort_scores(truth, scores), weights[None, :])[0])


def delong(y: ArrayLike, p: ArrayLike, level: float = 0.95) -> Interval:
    """The AUC with its DeLong interval, normal and cut to [0, 1].

    DeLong, DeLong, Clarke-Pearson 1988, by mid-ranks (Sun and Xu 2014). With one row in a class the variance, and so
    the interval, is undefined.
    """
    truth, scores, _ = aligned(y, p)
    rows = len(truth)
    why = _why_undefined(truth, scores)
    if why:
        return Interval(math.nan, math.nan, math.nan, rows, why)
    high, low = scores[truth == 1.0], scores[truth == 0.0]
    wins = _placements(high, low)
    losses = 1.0 - _placements(low, high)
    area = float(wins.mean())
    if min(len(high), len(low)) < 2:
        return Interval(area, math.nan, math.nan, rows, "one row only in a class")
    spread = math.sqrt(wins.var(ddof=1) / len(high) + losses.var(ddof=1) / len(low))
    reach = NormalDist().inv_cdf(0.5 + level / 2) * spread
    return Interval(area, max(area - reach, 0.0), min(area + reach, 1.0), rows)


def _placements(these: Floats, others: Floats) -> Floats:
    """For each of `these`, the share of `others` below it, ties one half."""
    ordered = np.sort(others)
    sides = np.searchsorted(ordered, these, side="left") + np.searchsorted(ordered, these, side="right")
    return sides / (2.0 * len(others))


def _why_undefined(y: Floats, p: Floats) -> str:
    if np.isnan(p).any():
        return "a prediction is missing"
    if not np.isin(y, (0.0, 1.0)).all():
        return "a label is neither 0 nor 1"
    if not len(y):
        return "no rows"
    return "" if 0 < y.sum() < len(y) else "one class only"
