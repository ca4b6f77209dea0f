"""Evaluation on the newest rows: every metric with its interval, calibration, and slices."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from mainspring.declare.check import METRICS
from mainspring.declare.frame import Frame
from mainspring.lazy import lazy
from mainspring.metrics.classification import delong, equal_count_bins
from mainspring.metrics.interval import Interval
from mainspring.metrics.intervals import poisson_resample, wilson
from mainspring.training.sets import LABEL, SLICE, TrainingShape

if TYPE_CHECKING:
    import numpy as np
    import pyarrow.compute as pc
    from numpy.typing import NDArray
else:
    np, pc = lazy("numpy"), lazy("pyarrow.compute")

__all__ = ["CalibrationBin", "Estimate", "Evaluation", "evaluate", "metric_names", "slices_of"]

_BINARY = ("roc_auc", "log_loss", "brier", "accuracy")
_BINS = 10
_SMALLEST_SLICE = 50
_MOST_SLICES = 50
_RESAMPLES = 1000


class Estimate(msgspec.Struct, frozen=True):
    """A metric with its 95 % interval; None where it is undefined, and then why."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    why: str = ""


class CalibrationBin(msgspec.Struct, frozen=True):
    """A tenth of the rows by score: their mean score and the share that came true, with its 95 % interval."""

    n: int
    score: float
    share: float
    low: float
    high: float


class Evaluation(msgspec.Struct, frozen=True):
    """What a model version achieved on rows it has not seen.

    Attributes:
        rows: how many rows.
        metrics: by name; DeLong's interval for roc_auc, Wilson's for accuracy, else of 1,000 Poisson resamples.
        calibration: ten equal-count bins, for a boolean label; ties in score share a bin.
        slices: ``column=value`` to the metrics of those rows, for the 50 largest of each column from 50 rows on.
    """

    rows: int
    metrics: dict[str, Estimate]
    calibration: tuple[CalibrationBin, ...] = ()
    slices: dict[str, dict[str, Estimate]] = {}


def metric_names(task: str) -> tuple[str, ...]:
    """The metrics of a kind of label."""
    return _BINARY if task == "binary" else tuple(name for name in METRICS if name not in _BINARY)


def evaluate(shape: TrainingShape, judged: Frame, scores: NDArray[np.float64], metric: str) -> Evaluation:
    """Judge scores against labels.

    Args:
        shape: the training set's shape.
        judged: the rows to judge on.
        scores: (rows,) float64.
        metric: the metric that decides; slices get this one alone.
    """
    y = np.asarray(judged.arrow().column(LABEL))
    metrics = {name: _estimate(name, y, scores) for name in metric_names(shape.task)}
    calibration: tuple[CalibrationBin, ...] = ()
    if shape.task == "binary":
        metrics["ece"] = _estimate("ece", y, scores)
        calibration = _calibration(y, scores)
    slices = {
        name: {metric: _estimate(metric, y[rows], scores[rows])}
        for name, rows in slices_of(shape, judged)
        if len(rows) >= _SMALLEST_SLICE
    }
    return Evaluation(len(y), metrics, calibration, slices)


def slices_of(shape: TrainingShape, frame: Frame) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """The slices of a frame, the largest of each column first: ``column=value`` and the numbers of its rows."""
    for name in shape.slices:
        column = frame.arrow().column(SLICE + name)
        codes = pc.fill_null(column.combine_chunks().dictionary_encode().indices, -1).to_numpy(zero_copy_only=False)
        kinds, first, counts = np.unique(codes, return_index=True, return_counts=True)
        for number in np.argsort(-counts, kind="stable")[:_MOST_SLICES]:
            yield f"{name}={column[int(first[number])].as_py()}", np.flatnonzero(codes == kinds[number])


def _estimate(name: str, y: NDArray[np.float64], scores: NDArray[np.float64]) -> Estimate:
    return _of(_interval(name, y, scores))


def _interval(name: str, y: NDArray[np.float64], scores: NDArray[np.float64]) -> Interval:
    if name == "roc_auc":
        return delong(y, scores)
    if name == "accuracy" and not np.isnan(scores).any():
        return wilson(int(np.count_nonzero((scores >= 0.5) == (y == 1.0))), len(y))
    return poisson_resample(y, scores, name, n=_RESAMPLES)


def _of(found: Interval) -> Estimate:
    return Estimate(_finite(found.value), _finite(found.low), _finite(found.high), found.n, found.why)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _calibration(y: NDArray[np.float64], scores: NDArray[np.float64]) -> tuple[CalibrationBin, ...]:
    bins = equal_count_bins(scores, _BINS)
    found = []
    for number in np.unique(bins):
        rows = bins == number
        n, hits = int(rows.sum()), int(y[rows].sum())
        share = wilson(hits, n)
        found.append(CalibrationBin(n, float(scores[rows].mean()), share.value, share.low, share.high))
    return tuple(found)
