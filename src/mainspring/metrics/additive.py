"""Metrics that are a function of sums over the rows, so that a resample costs one matrix product.

Each is written once, as the terms that a row adds and what is made of the sums; the point estimate and every bootstrap
replicate come from the same two functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from mainspring.lazy import lazy
from mainspring.metrics.arrays import aligned

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    from mainspring.metrics.arrays import Floats, Ints
else:
    np = lazy("numpy")

__all__ = [
    "ADDITIVE",
    "Additive",
    "accuracy",
    "brier",
    "ece",
    "equal_count_bins",
    "f1",
    "log_loss",
    "mae",
    "point",
    "precision",
    "r2",
    "recall",
    "rmse",
]

_TINY = 2.0**-52


class Additive(msgspec.Struct, frozen=True):
    """A metric as sums: `terms(y, p)` is (n, s), `finish(sums)` maps (..., s) to (...,), NaN where undefined."""

    terms: Callable[[Floats, Floats], Floats]
    finish: Callable[[Floats], Floats]
    greater_is_better: bool


def point(metric: Additive, y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """The metric over all rows; NaN when it is undefined there."""
    truth, predicted, weights = aligned(y, p, weight)
    return float(metric.finish(weights @ metric.terms(truth, predicted)))


def _columns(*terms: Floats) -> Floats:
    return np.stack(terms, axis=1)


def _ratio(sums: Floats) -> Floats:
    over, under = sums[..., 0], sums[..., 1]
    out: Floats = np.divide(over, under, out=np.full(over.shape, np.nan), where=under != 0)
    return out


def _hard(p: Floats, threshold: float) -> Floats:
    """The predicted class: argmax of (n, classes), else 1 where p >= threshold."""
    return p.argmax(axis=1).astype(np.float64) if p.ndim == 2 else (p >= threshold).astype(np.float64)


def _undefined_if_nan(value: NDArray[np.bool_], p: Floats) -> Floats:
    """A row without a prediction is not a miss: it makes the metric undefined."""
    return np.where(np.isnan(p if p.ndim == 1 else p.sum(axis=1)), np.nan, value)


def _log_loss_terms(y: Floats, p: Floats) -> Floats:
    q = np.clip(p, _TINY, 1.0 - _TINY)
    if p.ndim == 2:
        loss = -np.log(q[np.arange(len(y)), y.astype(np.int64)] / q.sum(axis=1))
    else:
        loss = -(y * np.log(q) + (1.0 - y) * np.log1p(-q))
    return _columns(loss, np.ones(len(y)))


def _brier_terms(y: Floats, p: Floats) -> Floats:
    if p.ndim == 2:
        hot = np.arange(p.shape[1])[None, :] == y[:, None]
        return _columns(((p - hot) ** 2).sum(axis=1), np.ones(len(y)))
    return _columns((p - y) ** 2, np.ones(len(y)))


def _accuracy_terms(y: Floats, p: Floats, threshold: float) -> Floats:
    right = _undefined_if_nan(_hard(p, threshold) == y, p)
    return _columns(np.where(np.isnan(y), np.nan, right), np.ones(len(y)))


def _precision_terms(y: Floats, p: Floats, threshold: float) -> Floats:
    yes = _undefined_if_nan(p >= threshold, p)
    return _columns(yes * y, yes)


def _recall_terms(y: Floats, p: Floats, threshold: float) -> Floats:
    return _columns(_undefined_if_nan(p >= threshold, p) * y, y)


def _f1_terms(y: Floats, p: Floats, threshold: float) -> Floats:
    yes = _undefined_if_nan(p >= threshold, p)
    return _columns(2.0 * yes * y, yes + y)


def _absolute_terms(y: Floats, p: Floats) -> Floats:
    return _columns(np.abs(p - y), np.ones(len(y)))


def _squared_terms(y: Floats, p: Floats) -> Floats:
    return _columns((p - y) ** 2, np.ones(len(y)))


def _r2_terms(y: Floats, p: Floats) -> Floats:
    # Centred first: the variance from raw sums would cancel for targets far from zero.
    centred = y - (y.mean() if len(y) else 0.0)
    return _columns((p - y) ** 2, centred, centred**2, np.ones(len(y)))


def _r2_finish(sums: Floats) -> Floats:
    rows = np.where(sums[..., 3] > 0, sums[..., 3], np.nan)
    total = sums[..., 2] - sums[..., 1] ** 2 / rows
    return 1.0 - sums[..., 0] / np.where(total > 0, total, np.nan)


def equal_count_bins(p: Floats, bins: int = 10) -> Ints:
    """The equal-count bin, 0 to bins - 1, of each score; equal scores share a bin, whatever the order of the rows."""
    _, inverse, counts = np.unique(p, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2.0
    return np.minimum(middle * bins // max(len(p), 1), bins - 1).astype(np.int64)[inverse]


def _ece_terms(y: Floats, p: Floats, bins: int) -> Floats:
    terms = np.zeros((len(y), bins + 1))
    terms[np.arange(len(y)), equal_count_bins(p, bins)] = y - p
    terms[:, bins] = 1.0
    return terms


def _ece_finish(sums: Floats) -> Floats:
    gap = np.abs(sums[..., :-1]).sum(axis=-1)
    return _ratio(np.stack([gap, sums[..., -1]], axis=-1))


def _rmse_finish(sums: Floats) -> Floats:
    return np.sqrt(_ratio(sums))


def _at(terms: Callable[[Floats, Floats, float], Floats], threshold: float = 0.5) -> Additive:
    return Additive(lambda y, p: terms(y, p, threshold), _ratio, True)


def _ece(bins: int) -> Additive:
    return Additive(lambda y, p: _ece_terms(y, p, bins), _ece_finish, False)


ADDITIVE: Mapping[str, Additive] = MappingProxyType(
    {
        "log_loss": Additive(_log_loss_terms, _ratio, False),
        "brier": Additive(_brier_terms, _ratio, False),
        "accuracy": _at(_accuracy_terms),
        "precision": _at(_precision_terms),
        "recall": _at(_recall_terms),
        "f1": _at(_f1_terms),
        "ece": _ece(10),
        "mae": Additive(_absolute_terms, _ratio, False),
        "rmse": Additive(_squared_terms, _rmse_finish, False),
        "r2": Additive(_r2_terms, _r2_finish, True),
    }
)


def log_loss(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Mean negative log-likelihood in nats of labels (n,) under p (n,) = P(y=1), or (n, classes); NaN without rows.

    Probabilities are clipped to [2^-52, 1 - 2^-52], as scikit-learn does for float64.
    """
    return point(ADDITIVE["log_loss"], y, p, weight)


def brier(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Mean squared distance of p to the label, summed over classes when p is (n, classes); NaN without rows."""
    return point(ADDITIVE["brier"], y, p, weight)


def accuracy(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None, threshold: float = 0.5) -> float:
    """Share of rows whose class is right: p >= threshold, or the argmax of (n, classes); NaN without rows."""
    return point(_at(_accuracy_terms, threshold), y, p, weight)


def precision(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None, threshold: float = 0.5) -> float:
    """Share of true labels among rows with p >= threshold; NaN when there is none."""
    return point(_at(_precision_terms, threshold), y, p, weight)


def recall(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None, threshold: float = 0.5) -> float:
    """Share of rows with p >= threshold among true labels; NaN when there is none."""
    return point(_at(_recall_terms, threshold), y, p, weight)


def f1(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None, threshold: float = 0.5) -> float:
    """Harmonic mean of precision and recall, 2 TP / (predicted + actual); NaN when both are empty."""
    return point(_at(_f1_terms, threshold), y, p, weight)


def ece(y: ArrayLike, p: ArrayLike, bins: int = 10, weight: ArrayLike | None = None) -> float:
    """Expected calibration error over equal-count bins: sum over bins of |sum of (y - p)| / n; NaN without rows.

    Nixon et al., "Measuring calibration in deep learning", 2019 (adaptive bins).
    """
    return point(_ece(bins), y, p, weight)


def mae(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Mean absolute error, in the target's unit; NaN without rows."""
    return point(ADDITIVE["mae"], y, p, weight)


def rmse(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Root mean squared error, in the target's unit; NaN without rows."""
    return point(ADDITIVE["rmse"], y, p, weight)


def r2(y: ArrayLike, p: ArrayLike, weight: ArrayLike | None = None) -> float:
    """Share of the target's variance explained, 1 - SSE/SST; NaN when the target is constant."""
    return point(ADDITIVE["r2"], y, p, weight)
