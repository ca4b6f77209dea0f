"""The feed itself: how many rows come, and how late. A failing feed mutes the drift alerts that it would cause."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from mainspring.lazy import lazy
from mainspring.monitoring.stats.blocks import block_class
from mainspring.monitoring.stats.decide import WINDOWS, Finding, State
from mainspring.monitoring.stats.reference import ENOUGH
from mainspring.monitoring.stats.threshold import calibrate, cusum, paths

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

    from mainspring.metrics.arrays import Floats
else:
    np = lazy("numpy")

__all__ = ["VOLUME_FLOOR", "Volume", "freshness_limit", "judge_volume", "mute", "stale", "volume"]

VOLUME_FLOOR = 0.1
"""Change of ln(1 + rows) below which it is recorded, not alarmed: about a tenth."""

_FEWEST = 3
_LEAST_SD = 0.01


class Volume(msgspec.Struct, frozen=True, eq=False):
    """How many rows a block usually has.

    Args:
        block_us: length of a block in microseconds.
        means: mean of ln(1 + rows) by hour of the week (by weekday for days); key -1 over all blocks.
        sigma: standard deviation of a block from the others of its class, at least 0.01.
        z: of each reference block from the others of its class (K,).
    """

    block_us: int
    means: Mapping[int, float]
    sigma: float
    z: Floats

    @property
    def weak(self) -> bool:
        """Whether there are too few blocks for the threshold's promise."""
        return len(self.z) < ENOUGH

    def difference(self, start: int, rows: int) -> float:
        """ln(1 + rows) of the block starting then (microseconds), less what is usual."""
        season = int(block_class(np.array([start]), self.block_us)[0])
        return math.log1p(rows) - self.means.get(season, self.means[-1])


def volume(starts: Sequence[int], rows: Sequence[int], block_us: int) -> Volume:
    """The usual volume, from blocks of a reference, the first and the last among them; those between count as empty.

    Args:
        starts: start of each block, microseconds since 1970 UTC, rising.
        rows: rows of each block.
        block_us: length of a block in microseconds.
    """
    if not starts:
        return Volume(block_us, {-1: 0.0}, 1.0, np.zeros(0))
    every = np.arange(starts[0], starts[-1] + 1, block_us)
    logs = np.zeros(len(every))
    logs[np.searchsorted(every, np.array(starts))] = np.log1p(np.array(rows, dtype=np.float64))
    classes = block_class(every, block_us)
    apart, means = _from_others(logs), {-1: float(logs.mean())}
    for season in np.unique(classes).tolist():
        members = classes == season
        if members.sum() >= _FEWEST:
            apart[members] = _from_others(logs[members])
            means[season] = float(logs[members].mean())
    sigma = max(float(apart.std(ddof=1)) if len(apart) > 1 else 1.0, _LEAST_SD)
    return Volume(block_us, means, sigma, apart / sigma)


def judge_volume(usual: Volume, alpha: float, recent: Sequence[tuple[int, int]], *, seed: int = 0) -> list[Finding]:
    """The findings on volume, by window.

    Args:
        usual: the reference's volume.
        alpha: from `threshold.alpha`.
        recent: start (microseconds) and rows of the latest closed blocks in order of time, empty ones included.
        seed: of the resampled paths.
    """
    findings = []
    for window in WINDOWS if recent and len(usual.z) else ():
        apart = np.array([usual.difference(start, rows) for start, rows in recent[-window:]])
        limit = calibrate(usual.z, paths(len(usual.z), window, seed), alpha / 3, both=True).h
        score, effect = float(cusum(apart / usual.sigma, both=True)), abs(float(apart.mean()))
        state: State = "ok"
        if score > limit:
            state = "alarm" if effect > VOLUME_FLOOR else "recorded"
        findings.append(Finding("", "volume", window, score, limit, effect, VOLUME_FLOOR, math.nan, state, usual.weak))
    return findings


def freshness_limit(every_us: int, gaps_us: ArrayLike) -> float:
    """How old the newest row may be, in microseconds: the greater of 2 x `every` and the 99 % quantile of usual gaps.

    Args:
        every_us: the declared interval of the source.
        gaps_us: times between successive rows or deliveries of the reference (n,); may be empty.
    """
    gaps = np.asarray(gaps_us, dtype=np.float64)
    return max(2.0 * every_us, float(np.quantile(gaps, 0.99)) if len(gaps) else 0.0)


def stale(now_us: int, latest_us: int | None, limit_us: float) -> bool:
    """Whether the newest event is older than the limit; a source that never had one is stale."""
    return latest_us is None or now_us - latest_us > limit_us


def mute(findings: Iterable[Finding], why: str) -> tuple[Finding, ...]:
    """The findings while their feed fails: alarms are recorded only, as the feed's own alarm says it."""
    return tuple(replace(f, state="recorded", why=why, rank=0) if f.state == "alarm" else f for f in findings)


def _from_others(logs: Floats) -> Floats:
    n = len(logs)
    return logs - (logs.sum() - logs) / (n - 1) if n > 1 else np.zeros(n)
