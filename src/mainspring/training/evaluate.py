"""Evaluation on the newest rows: every metric with its interval, calibration, and slices."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.declare.check import METRICS
from mainspring.declare.frame import Frame
from mainspring.lazy import lazy
from mainspring.metrics.classification import delong, ece
from mainspring.metrics.interval import Interval
from mainspring.metrics.intervals import poisson_resample
from mainspring.training.sets import LABEL, SLICE, TrainingShape

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["CalibrationBin", "Estimate", "Evaluation", "evaluate", "metric_names"]

_BINARY = ("roc_auc", "log_loss", "brier", "accuracy")
_BINS = 10
_SMALLEST_SLICE = 50


class Estimate(msgspec.Struct, frozen=True):
    """A metric with its 95 % interval; None where it is undefined."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    why: str = ""


class CalibrationBin(msgspec.Struct, frozen=True):
    """A tenth of the rows by score: their mean score and the share that came true."""

    n: int
    score: float
    share: float


class Evaluation(msgspec.Struct, frozen=True):
    """What a model version achieved on rows it has not seen.

    Attributes:
        rows: how many rows.
        metrics: by name.
        calibration: ten equal-count bins, for a boolean label.
        slices: ``column=value`` to the metrics of those rows.
    """

    rows: int
    metrics: dict[str, Estimate]
    calibration: tuple[CalibrationBin, ...] = ()
    slices: dict[str, dict[str, Estimate]] = {}


def metric_names(task: str) -> tuple[str, ...]:
    """The metrics of a kind of label."""
    return _BINARY if task == "binary" else tuple(name for name in METRICS if name not in _BINARY)


def evaluate(shape: TrainingShape, judged: Frame, scores: Any, metric: str) -> Evaluation:
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
        metrics["ece"] = _plain(float(ece(y, scores, _BINS)), len(y))
        calibration = _calibration(y, scores)
    slices = {}
    for name in shape.slices:
        values = judged.arrow().column(SLICE + name)
        for value in values.unique().to_pylist():
            mask = np.asarray([item == value for item in values.to_pylist()])
            if mask.sum() >= _SMALLEST_SLICE:
                slices[f"{name}={value}"] = {metric: _estimate(metric, y[mask], scores[mask])}
    return Evaluation(len(y), metrics, calibration, slices)


def _estimate(name: str, y: Any, scores: Any) -> Estimate:
    found = delong(y, scores) if name == "roc_auc" else poisson_resample(y, scores, name, n=200)
    return _of(found)


def _of(found: Interval) -> Estimate:
    return Estimate(_finite(found.value), _finite(found.low), _finite(found.high), found.n, found.why)


def _plain(value: float, n: int) -> Estimate:
    return Estimate(_finite(value), None, None, n)


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _calibration(y: Any, scores: Any) -> tuple[CalibrationBin, ...]:
    order = np.argsort(scores, kind="stable")
    return tuple(
        CalibrationBin(len(part), float(scores[part].mean()), float(y[part].mean()))
        for part in np.array_split(order, _BINS)
        if len(part)
    )
