"""Performance before the labels come: what the model's own probabilities promise (CBPE), when they can be believed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import NormalDist
from typing import TYPE_CHECKING

import msgspec

from mainspring.errors import UsageError
from mainspring.lazy import lazy
from mainspring.metrics.classification import ece, equal_count_bins, roc_auc
from mainspring.metrics.intervals import Interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from mainspring.metrics.arrays import Floats
else:
    np = lazy("numpy")

__all__ = ["ASSUMPTION", "ESTIMATED", "Estimate", "calibration_refusal", "cbpe"]

ASSUMPTION = "assumes P(y|x) unchanged"
"""Shown beside every estimate."""

ESTIMATED = ("accuracy", "precision", "recall", "f1", "roc_auc")
"""The metrics that can be estimated."""

_LABELS = 1000
_ECE = 0.02
_DRAWS = 200
_CHUNK = 1 << 21


class Estimate(msgspec.Struct, frozen=True):
    """An estimate without labels, or why there is none.

    Args:
        metric: its name.
        interval: the estimate; NaN when refused.
        refused: why it is refused; empty when it is not.
        assumes: what must hold for it.
    """

    metric: str
    interval: Interval
    refused: str
    assumes: str = ASSUMPTION


def calibration_refusal(y: ArrayLike, p: ArrayLike, *, seed: int = 0) -> str:
    """Why the probabilities of the last mature window cannot be believed; empty when they can.

    Args:
        y: labels of that window (n,), 0 or 1.
        p: its probabilities (n,).
        seed: of the 200 draws y ~ Bernoulli(p) that show what ECE a calibrated model would have there.
    """
    truth, scores = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    if len(truth) < _LABELS:
        return f"{len(truth)} labels in the last mature window, {_LABELS} are needed"
    found = ece(truth, scores)
    if not found > _ECE:
        return "" if found == found else "a label or a probability is missing"
    limit = float(np.quantile(_drawn_ece(scores, seed), 0.99))
    if found <= limit:
        return ""
    return f"calibration error {found:.3f} in the last mature window; a calibrated model would stay below {limit:.3f}"


def cbpe(p: ArrayLike, metric: str, *, threshold: float = 0.5, refused: str = "", seed: int = 0) -> Estimate:
    """The expected metric of predictions without labels, with a 95 % interval.

    Expected counts: TP = sum of p over the predicted, FP = sum of 1 - p over them, FN and TN alike over the others; the
    AUC with each row as a positive of weight p and a negative of weight 1 - p. The interval of accuracy has variance
    sum of p(1 - p) / n^2; the others are percentiles over 200 draws y ~ Bernoulli(p).

    Args:
        p: probabilities (n,).
        metric: one of `ESTIMATED`.
        threshold: p at or above it is a yes.
        refused: from `calibration_refusal`; when not empty there is no estimate.
        seed: of the draws.

    Raises:
        UsageError: MS-2692, a metric that cannot be estimated.
    """
    if metric not in ESTIMATED:
        raise UsageError(
            f'"{metric}" cannot be estimated without labels',
            code="MS-2692",
            why="estimated are " + ", ".join(ESTIMATED),
            fix="watch one of them, or wait for labels",
        )
    scores = np.asarray(p, dtype=np.float64)
    nan = math.nan
    if refused or not len(scores) or np.isnan(scores).any():
        why = refused or ("no predictions" if not len(scores) else "a probability is missing")
        return Estimate(metric, Interval(nan, nan, nan, len(scores), why), why)
    if metric == "roc_auc":
        value = _expected_auc(scores)
        draws = np.concatenate([_drawn_auc(scores, y) for y in _draws(scores, seed)])
        return Estimate(metric, _interval(value, draws, len(scores)), "")
    yes = scores >= threshold
    tp, fn = scores[yes].sum(), scores[~yes].sum()
    value = float(_ratio(metric, np.array(tp), np.array(fn), int(yes.sum()), len(scores)))
    if metric == "accuracy":
        reach = NormalDist().inv_cdf(0.975) * math.sqrt(float((scores * (1 - scores)).sum())) / len(scores)
        return Estimate(metric, Interval(value, max(value - reach, 0.0), min(value + reach, 1.0), len(scores)), "")
    drawn = [
        _ratio(metric, y[:, yes].sum(axis=1), y[:, ~yes].sum(axis=1), int(yes.sum()), len(scores))
        for y in _draws(scores, seed)
    ]
    return Estimate(metric, _interval(value, np.concatenate(drawn), len(scores)), "")


def _ratio(metric: str, tp: Floats, fn: Floats, predicted: int, rows: int) -> Floats:
    """The metric from (expected or drawn) true positives and false negatives."""
    over, under = {
        "accuracy": (tp + (rows - predicted - fn), 0 * tp + rows),
        "precision": (tp, 0 * tp + predicted),
        "recall": (tp, tp + fn),
        "f1": (2 * tp, tp + fn + predicted),
    }[metric]
    out: Floats = np.divide(over, under, out=np.full(np.shape(over), np.nan), where=under > 0)
    return out


def _expected_auc(p: Floats) -> float:
    labels = np.repeat([1.0, 0.0], len(p))
    return roc_auc(labels, np.concatenate([p, p]), np.concatenate([p, 1 - p]))


def _draws(p: Floats, seed: int) -> Iterator[NDArray[np.bool_]]:
    """Chunks (b, n) of 200 draws y ~ Bernoulli(p)."""
    generator = np.random.Generator(np.random.PCG64(seed))
    step = max(1, _CHUNK // max(len(p), 1))
    for start in range(0, _DRAWS, step):
        yield generator.random((min(step, _DRAWS - start), len(p))) < p


def _drawn_ece(p: Floats, seed: int) -> Floats:
    bins = equal_count_bins(p)
    order = np.argsort(bins, kind="stable")
    ends = np.searchsorted(bins[order], np.arange(10))
    expected = np.bincount(bins, weights=p, minlength=10)
    gaps = []
    for y in _draws(p, seed):
        upto = np.pad(np.cumsum(y[:, order], axis=1), ((0, 0), (1, 0)))
        hits = np.diff(upto[:, np.append(ends, len(p))], axis=1)
        gaps.append(np.abs(hits - expected).sum(axis=1) / len(p))
    return np.concatenate(gaps)


def _drawn_auc(p: Floats, y: NDArray[np.bool_]) -> Floats:
    """The AUC of scores p (n,) under each draw (b, n), by the sum of the positives' mid-ranks."""
    _, inverse, counts = np.unique(p, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[inverse]
    high = y.sum(axis=1).astype(np.float64)
    pairs = high * (len(p) - high)
    wins = y.astype(np.float64) @ ranks - high * (high + 1) / 2
    out: Floats = np.divide(wins, pairs, out=np.full(len(y), np.nan), where=pairs > 0)
    return out


def _interval(value: float, draws: Floats, n: int) -> Interval:
    draws = draws[~np.isnan(draws)]
    if not len(draws) or math.isnan(value):
        return Interval(value, math.nan, math.nan, n, "undefined on these rows")
    low, high = np.quantile(draws, [0.025, 0.975])
    return Interval(value, float(low), float(high), n)
