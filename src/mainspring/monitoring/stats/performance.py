"""Performance on joined labels: the value, how sure it is, and whether the labels speak for all predictions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from mainspring.lazy import lazy
from mainspring.metrics.classification import delong
from mainspring.metrics.distance import chi_square, jensen_shannon
from mainspring.metrics.intervals import Interval, poisson_resample, wilson
from mainspring.monitoring.stats.grid import COARSE, cell_counts, cuts

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike
else:
    np = lazy("numpy")

__all__ = ["SELECTION_WARNING", "Performance", "Selection", "mature", "performance", "selection"]

SELECTION_WARNING = 0.05
"""Jensen-Shannon distance between the scores of labelled and unlabelled predictions that is warned of."""

_SURE = 1e-3


class Performance(msgspec.Struct, frozen=True):
    """A metric on the labelled predictions of a block.

    Args:
        metric: its name.
        interval: value, bounds, labels behind them, and why something is undefined.
        method: wilson, delong or poisson.
        coverage: share of the block's predictions that have a label.
    """

    metric: str
    interval: Interval
    method: str
    coverage: float


class Selection(msgspec.Struct, frozen=True):
    """Whether the labelled predictions look like the others.

    Args:
        js: Jensen-Shannon distance of their scores; NaN when either side is empty.
        p: chance of such a difference between samples of one population (two-sample chi-square).
        warned: the distance is above 0.05, and more than sampling would give.
    """

    js: float
    p: float
    warned: bool


def mature(block_end_us: int, now_us: int, horizon_us: int) -> bool:
    """Whether the labels of a block are due: its youngest prediction is as old as the horizon."""
    return now_us - block_end_us >= horizon_us


def performance(
    y: ArrayLike,
    p: ArrayLike,
    metric: str,
    *,
    predictions: int | None = None,
    groups: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    threshold: float = 0.5,
    seed: int = 0,
    level: float = 0.95,
) -> Performance:
    """A metric on joined labels, with the interval that suits it.

    Wilson's for accuracy, precision and recall, DeLong's for the AUC; 1000 Poisson resamples for other metrics, and for
    every metric once rows are grouped by entity or weighted by a sampled log.

    Args:
        y: labels (n,).
        p: predictions (n,), probabilities for a classifier.
        metric: a name of `mainspring.metrics.intervals.METRICS`.
        predictions: predictions of the block, labelled or not; by default n.
        groups: entity of each row (n,).
        weight: row weights (n,).
        threshold: p at or above it is a yes.
        seed: of the resamples.
        level: coverage of the interval.

    Raises:
        UsageError: MS-2691, no such metric.
        DataError: MS-2401, lengths differ.
    """
    truth, predicted = np.asarray(y, dtype=np.float64), np.asarray(p, dtype=np.float64)
    coverage = len(truth) / predictions if predictions else (1.0 if len(truth) else math.nan)
    plain = groups is None and weight is None and len(truth) == len(predicted) and predicted.ndim == 1
    if metric == "roc_auc" and plain:
        return Performance(metric, delong(truth, predicted, level), "delong", coverage)
    usable = not np.isnan(truth).any() and not np.isnan(predicted).any()
    yes = (predicted >= threshold).astype(np.float64) if predicted.ndim == 1 else predicted
    if metric in ("accuracy", "precision", "recall") and plain and usable:
        rows = {"accuracy": np.ones(len(truth), dtype=bool), "precision": yes == 1.0, "recall": truth == 1.0}[metric]
        hits = yes[rows] == truth[rows]
        return Performance(metric, wilson(int(hits.sum()), len(hits), level), "wilson", coverage)
    hard = metric in ("accuracy", "precision", "recall", "f1") and predicted.ndim == 1 and usable
    scores = yes if hard else predicted
    interval = poisson_resample(truth, scores, metric, groups=groups, seed=seed, level=level, weight=weight)
    return Performance(metric, interval, "poisson", coverage)


def selection(labelled: ArrayLike, unlabelled: ArrayLike) -> Selection:
    """Compare the scores of labelled (n,) and unlabelled (m,) predictions on 16 equal-count cells of both.

    Labels that come for some predictions only (loans that were granted, fraud that was looked at) measure those.
    """
    a, b = np.sort(np.asarray(labelled, dtype=np.float64)), np.sort(np.asarray(unlabelled, dtype=np.float64))
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    if not len(a) or not len(b):
        return Selection(math.nan, math.nan, False)
    edges = cuts(np.sort(np.concatenate([a, b])), COARSE)
    left, right = cell_counts(a, edges), cell_counts(b, edges)
    js, (_, _, p) = float(jensen_shannon(left, right)), chi_square(left, right)
    return Selection(js, p, js > SELECTION_WARNING and p < _SURE)
