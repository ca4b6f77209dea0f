"""A baseline made ready to judge blocks: each reference block against the others, in standard units."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from mainspring.lazy import lazy
from mainspring.metrics.distance import jensen_shannon
from mainspring.monitoring.stats.baseline import Baseline, FeatureBaseline
from mainspring.monitoring.stats.blocks import block_class
from mainspring.monitoring.stats.layout import Layout
from mainspring.monitoring.stats.state import UNIT, BlockState

if TYPE_CHECKING:
    import numpy as np

    from mainspring.metrics.arrays import Floats, Ints
else:
    np = lazy("numpy")

__all__ = ["ENOUGH", "RATES", "Pool", "Reference", "cells", "reference", "share_of"]

ENOUGH = 30
"""Reference blocks below which a threshold is `weak`."""

RATES = ("novelty", "null", "nan", "zero", "invalid")
"""The rates that are watched; `nan` counts NaN and infinities."""

_CLASS_BLOCKS = 8
_LEAST_JS = 1e-4
_LEAST_SD = 1e-3
_FEWEST = 3
_KEY = 0.5


class Pool(msgspec.Struct, frozen=True, eq=False):
    """Reference blocks that a block is compared with: all of them, or those of its season.

    Args:
        total: rows per cell (cells,).
        finite: rows with a finite number.
        csum: their clipped sum, in spans from the 0.1 % quantile.
        shape_mean: mean of the log distances of its blocks from its other blocks.
        shape_sd: their standard deviation, at least 1e-3.
        sigma: standard deviation of the differences of clipped means, in spans; 0 turns location off.
    """

    total: Floats
    finite: float
    csum: float
    shape_mean: float
    shape_sd: float
    sigma: float

    @property
    def mean(self) -> float:
        """Mean of the clipped values, in spans from the 0.1 % quantile."""
        return self.csum / self.finite if self.finite else math.nan


class Reference(msgspec.Struct, frozen=True, eq=False):
    """A feature's baseline, ready to judge blocks.

    Args:
        feature: the baseline.
        layout: its cells.
        counts: rows per cell of each block (K, cells); the cells are those of `cells`.
        alike: each block as its other blocks see it: rows of a category that only it has count as unseen.
        classes: season of each block (K,); all 0 without seasons.
        pools: the pool of each season; key -1 holds all blocks.
        shape: z of each block's distance (K,).
        location: z of each block's clipped mean (L,), of the blocks that have one.
        rates: limit f of each rate; a rate that is not judged is left out.
        sd: standard deviation of the reference, in spans.
        fewest: rows of the smallest reference block.
        block_us: length of a block in microseconds.
        off: why shape and location are off; empty when they are on.
    """

    feature: FeatureBaseline
    layout: Layout
    counts: Floats
    alike: Floats
    classes: Ints
    pools: Mapping[int, Pool]
    shape: Floats
    location: Floats
    rates: Mapping[str, float]
    sd: float
    fewest: int
    block_us: int
    off: str

    @property
    def blocks(self) -> int:
        """How many nonempty reference blocks there are."""
        return len(self.counts)

    @property
    def weak(self) -> bool:
        """Whether there are too few blocks for the threshold's promise."""
        return self.blocks < ENOUGH

    def pool_of(self, start: int) -> Pool:
        """The blocks that the block starting then is compared with."""
        season = int(block_class(np.array([start]), self.block_us)[0])
        return self.pools.get(season, self.pools[-1])

    def shape_z(self, block: Floats, pool: Pool) -> float:
        """How unusual the shape of a block (cells,) is, in standard deviations of log distance."""
        return float((_log_distance(pool.total, block) - pool.shape_mean) / pool.shape_sd)

    def location_z(self, state: BlockState, pool: Pool) -> float:
        """How unusual the clipped mean of a block is, in standard deviations; 0 for a block without numbers."""
        if not state.finite or not pool.sigma:
            return 0.0
        return (state.csum / UNIT / state.finite - pool.mean) / pool.sigma


def cells(state: BlockState, layout: Layout) -> Floats:
    """Rows per cell that shape is judged on: the grid or categories, then unseen (categories only), then no value."""
    unseen = () if layout.numeric else (state.n_unseen,)
    return np.array((*state.counts, *unseen, state.n_null + state.n_nan + state.n_inf), dtype=np.float64)


def share_of(state: BlockState, rate: str) -> float:
    """Rows of a block that a rate counts."""
    if rate == "nan":
        return state.n_nan + state.n_inf
    return int(getattr(state, {"novelty": "n_unseen"}.get(rate, f"n_{rate}")))


def reference(baseline: Baseline, name: str, *, seasons: bool = False) -> Reference:
    """A feature's baseline ready to judge blocks.

    Args:
        baseline: the monitor's reference.
        name: the feature.
        seasons: whether a block is compared with those of its weekday (and hour), where the reference has 8 of them.
    """
    feature = baseline[name]
    layout, states = feature.layout(), feature.states()
    counts = _stack([cells(state, layout) for state in states], layout)
    alike = counts.copy()
    if not layout.numeric:
        moved = np.array(feature.novel_rest, dtype=np.float64)
        alike[:, len(layout.common)] -= moved
        alike[:, -2] += moved
    rates = _limits(states, feature, layout)
    starts = np.array(baseline.starts, dtype=np.int64)
    classes = block_class(starts, baseline.block_us) if seasons else np.zeros(len(starts), dtype=np.int64)
    finite = np.array([state.finite for state in states], dtype=np.float64)
    csum = np.array([state.csum / UNIT for state in states], dtype=np.float64)
    sd = feature.sd / layout.span
    judged = _Judged(counts, alike, finite, csum, sd if layout.numeric else 0.0)
    shape, location = np.zeros(len(states)), np.full(len(states), np.nan)
    everything = np.arange(len(states))
    pools = {-1: judged.pool(everything, shape, location)}
    if seasons:
        for season in np.unique(classes).tolist():
            members = np.flatnonzero(classes == season)
            if len(members) >= _CLASS_BLOCKS:
                pools[season] = judged.pool(members, shape, location)
    return Reference(
        feature=feature,
        layout=layout,
        counts=counts,
        alike=alike,
        classes=classes,
        pools=pools if seasons else {-1: pools[-1]},
        shape=shape,
        location=location[~np.isnan(location)],
        rates=rates,
        sd=sd,
        fewest=min((state.rows for state in states), default=0),
        block_us=baseline.block_us,
        off=_why_off(states, rates),
    )


def _why_off(states: Sequence[BlockState], rates: Mapping[str, float]) -> str:
    if len(states) < _FEWEST:
        return f"{len(states)} reference blocks: at least {_FEWEST} are needed to know what is usual"
    if not any(state.finite for state in states):
        return "the reference has no value"
    return "" if "novelty" in rates else "a key: most values are new in every block"


def _stack(rows: Sequence[Floats], layout: Layout) -> Floats:
    width = layout.cells + (1 if layout.numeric else 2)
    return np.stack(rows) if rows else np.zeros((0, width))


def _log_distance(p: Floats, q: Floats) -> Floats:
    out: Floats = np.log(np.fmax(jensen_shannon(p, q), _LEAST_JS))  # NaN is the least
    return out


class _Judged(msgspec.Struct, frozen=True, eq=False):
    counts: Floats
    alike: Floats
    finite: Floats
    csum: Floats
    sd: float

    def pool(self, members: Ints, shape: Floats, location: Floats) -> Pool:
        """The pool of these blocks; writes their z into `shape` and `location`."""
        total = self.counts[members].sum(axis=0)
        logs = _log_distance(total - self.counts[members], self.alike[members])
        several = len(members) > 1
        mean = float(logs.mean()) if len(members) else 0.0
        sd = max(float(logs.std(ddof=1)) if several else 0.0, _LEAST_SD)
        shape[members] = (logs - mean) / sd
        numeric = members[self.finite[members] > 0]
        finite, csum = self.finite[numeric], self.csum[numeric]
        sigma = 0.0
        if self.sd > 0 and len(numeric) >= _FEWEST:
            apart = csum / finite - (csum.sum() - csum) / (finite.sum() - finite)
            # Blocks that are all equal must not make the next one infinitely far away.
            sigma = max(float(apart.std(ddof=1)), _LEAST_SD * self.sd)
            location[numeric] = apart / sigma
        return Pool(total, float(finite.sum()), float(csum.sum()), mean, sd, sigma)


def _limits(states: Sequence[BlockState], feature: FeatureBaseline, layout: Layout) -> dict[str, float]:
    """The highest usual share of each rate: max(0.005, mean + 3 sd) over the reference blocks."""
    limits = {}
    n = np.array([max(state.n, 1) for state in states], dtype=np.float64)
    for rate in RATES:
        if not layout.numeric and rate in ("nan", "zero"):
            continue
        hits = feature.novel if rate == "novelty" else [share_of(state, rate) for state in states]
        shares = np.array(hits, dtype=np.float64) / n if len(n) else np.zeros(1)
        if rate == "novelty" and shares.mean() > _KEY:
            continue
        spread = float(shares.std(ddof=1)) if len(shares) > 1 else 0.0
        limits[rate] = min(max(0.005, float(shares.mean()) + 3 * spread), 1.0)
    if "novelty" not in limits:
        limits.pop("zero", None)
    return limits
