"""Performance on the labels that have arrived for a block's predictions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mainspring.lazy import lazy
from mainspring.monitoring.stats.performance import performance, selection
from mainspring.ports.catalog import Catalog

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
else:
    np = lazy("numpy")

__all__ = ["measured"]


def measured(catalog: Catalog, predictions: pa.Table, metric: str, label: str) -> dict[str, object] | None:
    """A block's performance as an event tells it, or None while no prediction has a label.

    Args:
        catalog: where the labels are.
        predictions: ``prediction_id``, ``score`` and ``weight`` of the block's predictions.
        metric: a name of `mainspring.metrics.intervals.METRICS`.
        label: the label's column; labels of this name count, and those without a name. Of both the later one does.
    """
    ids = predictions.column("prediction_id").to_pylist()
    known: dict[str, tuple[int, float]] = {}
    for found in catalog.labels(ids):
        if found.name in ("", label) and found.at >= known.get(found.prediction_id, (found.at, 0.0))[0]:
            known[found.prediction_id] = (found.at, found.value)
    if not known:
        return None
    has = np.array([identity in known for identity in ids], dtype=bool)
    scores = np.asarray(predictions.column("score"), dtype=np.float64)
    weights = np.asarray(predictions.column("weight"), dtype=np.float64)
    y = np.array([known[identity][1] for identity in ids if identity in known])
    sampled = weights[has] if (weights != 1.0).any() else None
    done = performance(y, scores[has], metric, predictions=len(ids), weight=sampled)
    alike = selection(scores[has], scores[~has])
    return {
        "metric": metric,
        "value": _finite(done.interval.value),
        "low": _finite(done.interval.low),
        "high": _finite(done.interval.high),
        "n": done.interval.n,
        "why": done.interval.why,
        "method": done.method,
        "coverage": done.coverage,
        "selection": {"js": _finite(alike.js), "p": _finite(alike.p), "warned": alike.warned},
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
