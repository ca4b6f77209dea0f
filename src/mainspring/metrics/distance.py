"""Distances between two histograms on the same cells."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

    from mainspring.metrics.arrays import Floats
else:
    np = lazy("numpy")

__all__ = ["chi_square", "jensen_shannon", "kolmogorov", "psi", "wasserstein"]


def jensen_shannon(p: ArrayLike, q: ArrayLike) -> Floats:
    """Square root of the base-2 Jensen-Shannon divergence of counts (..., cells), normalised: 0 equal, 1 disjoint.

    NaN where either side is empty. Lin 1991; Endres and Schindelin 2003.
    """
    a, b = _shares(p), _shares(q)
    middle = (a + b) / 2
    divergence = (_against(a, middle) + _against(b, middle)) / 2
    out: Floats = np.sqrt(np.clip(divergence, 0.0, 1.0))
    return out


def psi(reference: ArrayLike, current: ArrayLike, cells: int = 10) -> float:
    """Population stability index, natural logarithm, each cell of both sides given half a row.

    Args:
        reference: reference counts (n,), in the order of the values.
        current: current counts (n,) on the same cells.
        cells: neighbours are joined until about this many remain, of equal reference mass.
    """
    a: Floats = np.asarray(reference, dtype=np.float64)
    b: Floats = np.asarray(current, dtype=np.float64)
    if not a.sum() or not b.sum():
        return math.nan
    if len(a) > cells:
        middle = (np.cumsum(a) - a / 2) / a.sum()
        group = np.minimum((middle * cells).astype(np.int64), cells - 1)
        a, b = (np.bincount(group, weights=side).astype(np.float64) for side in (a, b))
    a, b = _shares(a + 0.5), _shares(b + 0.5)
    return float(((b - a) * np.log(b / a)).sum())


def kolmogorov(reference: ArrayLike, current: ArrayLike) -> float:
    """Two-sample Kolmogorov-Smirnov statistic on cells: exact at the edges, short by at most the heaviest cell."""
    steps = np.cumsum(_shares(reference) - _shares(current))
    return float(np.abs(steps).max()) if len(steps) else math.nan


def wasserstein(reference: ArrayLike, current: ArrayLike, edges: Floats, vmin: float, vmax: float) -> float:
    """First Wasserstein distance in the unit of the values, distribution functions linear between edges.

    Args:
        reference: counts (E + 1,).
        current: counts (E + 1,).
        edges: edges (E,), rising.
        vmin: least value of both sides.
        vmax: greatest value of both sides.
    """
    gap = np.cumsum(_shares(reference) - _shares(current))
    at = np.concatenate([[min(vmin, edges[0])], edges, [max(vmax, edges[-1])]]) if len(edges) else np.zeros(2)
    high = np.abs(np.concatenate([[0.0], gap[:-1], [0.0]]))
    return float(((high[1:] + high[:-1]) / 2 * np.diff(at)).sum())


def chi_square(reference: ArrayLike, current: ArrayLike) -> tuple[float, int, float]:
    """Two-sample chi-square of counts: statistic, degrees of freedom (nonempty cells - 1), p-value.

    Both samples vary; the one-sample form, which takes the reference as known, alarms on equal data.
    """
    a, b = np.asarray(reference, dtype=np.float64), np.asarray(current, dtype=np.float64)
    some = a + b > 0
    a, b = a[some], b[some]
    if not a.sum() or not b.sum():
        return math.nan, max(len(a) - 1, 0), math.nan
    ratio = math.sqrt(b.sum() / a.sum())
    statistic = float(((ratio * a - b / ratio) ** 2 / (a + b)).sum())
    return statistic, len(a) - 1, _chi_square_tail(statistic, len(a) - 1)


def _chi_square_tail(x: float, degrees: int) -> float:
    """P(chi-square > x), by the finite series for whole degrees (Abramowitz and Stegun 26.4.4, 26.4.5)."""
    if degrees < 1 or x <= 0:
        return 1.0
    half, odd = x / 2, degrees % 2
    powers = [k + odd / 2 for k in range(degrees // 2)]
    series = math.fsum(math.exp(k * math.log(half) - half - math.lgamma(k + 1)) for k in powers)
    return min((math.erfc(math.sqrt(half)) if odd else 0.0) + series, 1.0)


def _shares(counts: ArrayLike) -> Floats:
    a = np.asarray(counts, dtype=np.float64)
    total = a.sum(axis=-1, keepdims=True)
    out: Floats = np.divide(a, total, out=np.full(a.shape, np.nan), where=total > 0)
    return out


def _against(a: Floats, middle: Floats) -> Floats:
    ratio = np.divide(a, middle, out=np.ones(a.shape), where=a > 0)
    out: Floats = (a * np.log2(ratio)).sum(axis=-1)
    return out
