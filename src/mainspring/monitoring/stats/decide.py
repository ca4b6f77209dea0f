"""From the states of recent blocks to findings: what is scored, against which threshold, and what it means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from mainspring.lazy import lazy
from mainspring.metrics.distance import jensen_shannon
from mainspring.monitoring.stats.reference import Pool, Reference, cells, share_of
from mainspring.monitoring.stats.state import UNIT, BlockState, merge
from mainspring.monitoring.stats.threshold import Calibration, calibrate, cusum, least_effect, paths

if TYPE_CHECKING:
    import numpy as np

    from mainspring.metrics.arrays import Floats
else:
    np = lazy("numpy")

__all__ = [
    "LOCATION_FLOOR",
    "SHAPE_FLOOR",
    "WINDOWS",
    "Finding",
    "Thresholds",
    "alarms_on_reference",
    "detectable",
    "judge",
    "rank",
    "thresholds",
]

WINDOWS = (1, 7)
"""Blocks in each window that is evaluated when a block closes."""

SHAPE_FLOOR = 0.05
"""Jensen-Shannon distance below which a change of shape is recorded, not alarmed."""

LOCATION_FLOOR = 0.1
"""Shift of the clipped mean, in reference standard deviations, below which it is recorded, not alarmed."""

State: TypeAlias = Literal["ok", "alarm", "recorded", "off"]

_LEAST_ROWS = 0.5


class Finding(msgspec.Struct, frozen=True):
    """One score of one feature over one window.

    Args:
        feature: the feature.
        kind: shape, location, novelty, null, nan, zero or invalid; of a source volume or freshness.
        window: blocks looked at.
        score: what is compared with the threshold.
        threshold: NaN when the score is off.
        effect: the size of the change: Jensen-Shannon distance, reference standard deviations, share of rows, or of a
            source the change of ln(1 + rows), or seconds.
        floor: effects up to this are recorded, not alarmed.
        mde: the least effect found 80 % of the time; NaN when not computed.
        state: ok; alarm; recorded (past the threshold, under the floor); off.
        weak: fewer than 30 reference blocks stand behind the threshold.
        why: why it is off.
        rank: 1 for what matters most among the alarms; 0 for the rest.
    """

    feature: str
    kind: str
    window: int
    score: float
    threshold: float
    effect: float
    floor: float
    mde: float
    state: State
    weak: bool
    why: str = ""
    rank: int = 0


class Thresholds(msgspec.Struct, frozen=True):
    """What a feature's scores are compared with.

    Args:
        chance: alpha / 3, the chance of a false alarm of each score.
        seed: of the resampled paths.
        shape: by window.
        location: by window; empty when location is off.
        mde: least effect found, by kind and window; empty until `detectable` fills it.
    """

    chance: float
    seed: int
    shape: Mapping[int, Calibration]
    location: Mapping[int, Calibration]
    mde: Mapping[tuple[str, int], float]


def thresholds(reference: Reference, alpha: float, *, seed: int = 0, windows: Sequence[int] = WINDOWS) -> Thresholds:
    """The thresholds under which one evaluation has a false alarm with probability alpha.

    Args:
        reference: the feature's reference.
        alpha: from `threshold.alpha`.
        seed: of the resampled paths; equal seeds give equal thresholds.
        windows: blocks in each window.
    """
    chance = alpha / 3
    shape, location = {}, {}
    for window in windows if not reference.off else ():
        drawn = paths(reference.blocks, window, seed)
        shape[window] = calibrate(reference.shape, drawn, chance, both=False)
        if len(reference.location):
            drawn = paths(len(reference.location), window, seed)
            location[window] = calibrate(reference.location, drawn, chance, both=True)
    return Thresholds(chance, seed, shape, location, {})


def detectable(reference: Reference, limits: Thresholds) -> Thresholds:
    """The thresholds with the least effect that each would find 80 % of the time (some 10 ms a feature and window)."""
    found: dict[tuple[str, int], float] = {}
    for window, calibration in limits.shape.items():
        found["shape", window] = _least_shape(reference, calibration, window, limits.seed)
    for window, calibration in limits.location.items():
        found["location", window] = _least_location(reference, calibration, window, limits.seed)
    typical = float(reference.counts.sum()) / max(reference.blocks, 1)
    for window in limits.shape or WINDOWS:
        for rate, f in reference.rates.items():
            rows = max(typical * window, 1.0)
            found[rate, window] = max(f + 4.84 * math.sqrt(f / rows), 3 / rows)
    return replace(limits, mde=found)


def judge(reference: Reference, limits: Thresholds, recent: Sequence[tuple[int, BlockState]]) -> tuple[Finding, ...]:
    """The findings of a feature when its latest block has closed.

    Args:
        reference: the feature's reference.
        limits: its thresholds.
        recent: start (microseconds) and state of the latest closed blocks, in order of time; as many as the longest
            window, or fewer.
    """
    findings: list[Finding] = []
    for window in limits.shape or WINDOWS:
        blocks = [(start, state) for start, state in recent[-window:] if state.rows]
        if not blocks:
            findings.append(_off(reference, "shape", window, "no rows in the window"))
            continue
        findings.extend(_drift(reference, limits, window, blocks))
        findings.extend(_rates(reference, limits, window, merge(state for _, state in blocks)))
    return tuple(findings)


def rank(findings: Iterable[Finding], importance: Mapping[str, float] | None = None) -> tuple[Finding, ...]:
    """The findings, alarms first by effect x importance; an importance not given is 1.

    Args:
        findings: of all features of one monitor and segment: together they make one alert.
        importance: weight of each feature in the model, on any common scale.
    """
    weights = importance or {}

    def weight(finding: Finding) -> tuple[bool, float, str, str, int]:
        size = finding.effect * weights.get(finding.feature, 1.0)
        alarmed = finding.state == "alarm"
        return not alarmed, -size if size == size else 0.0, finding.feature, finding.kind, finding.window

    ordered = sorted(findings, key=weight)
    return tuple(replace(f, rank=place if f.state == "alarm" else 0) for place, f in enumerate(ordered, start=1))


def alarms_on_reference(reference: Reference, alpha: float, *, seed: int = 0) -> int:
    """Windows of the reference that would have alarmed by shape or location.

    Each half of the blocks is judged by the thresholds of the other half: a threshold judged on the data that set it
    would look better than it is.
    """
    middle = reference.blocks // 2
    if reference.off or middle < 2:
        return 0
    alarms, total = 0, reference.counts.sum(axis=0)
    for blocks in _cross(reference.shape, middle, alpha / 3, seed, both=False):
        pooled = reference.alike[blocks].sum(axis=0)
        rest = total - reference.counts[blocks].sum(axis=0)
        alarms += bool(jensen_shannon(rest, pooled) > SHAPE_FLOOR)
    z, sigma = reference.location, reference.pools[-1].sigma
    if len(z) >= 4:
        for blocks in _cross(z, len(z) // 2, alpha / 3, seed, both=True):
            alarms += abs(float(z[blocks].mean())) * sigma > LOCATION_FLOOR * reference.sd
    return alarms


def _cross(z: Floats, middle: int, chance: float, seed: int, *, both: bool) -> list[slice]:
    """The windows of each half whose score passes the other half's threshold."""
    answer = []
    for judged, other in ((slice(0, middle), z[middle:]), (slice(middle, len(z)), z[:middle])):
        for window in WINDOWS:
            limit = calibrate(other, paths(len(other), window, seed), chance, both=both).h
            for stop in range(judged.start + window, judged.stop + 1):
                if cusum(z[stop - window : stop], both=both) > limit:
                    answer.append(slice(stop - window, stop))
    return answer


def _drift(
    reference: Reference, limits: Thresholds, window: int, blocks: Sequence[tuple[int, BlockState]]
) -> list[Finding]:
    kinds = ("shape", "location") if reference.layout.numeric else ("shape",)
    # A block much smaller than any of the reference is noisier than any of them; volume has its own alarm.
    enough = [(start, state) for start, state in blocks if state.rows >= _LEAST_ROWS * reference.fewest]
    why = reference.off or ("" if enough else "fewer rows than half the smallest reference block")
    if why:
        return [_off(reference, kind, window, why) for kind in kinds]
    pools = [reference.pool_of(start) for start, _ in enough]
    states = [state for _, state in enough]
    answer = [_shape(reference, limits, window, states, pools)]
    if len(kinds) == 1:
        return answer
    if window not in limits.location or not any(state.finite for state in states):
        return [*answer, _off(reference, "location", window, "the reference is constant, or the window has no number")]
    return [*answer, _location(reference, limits, window, states, pools)]


def _shape(
    reference: Reference, limits: Thresholds, window: int, states: Sequence[BlockState], pools: Sequence[Pool]
) -> Finding:
    rows = [cells(state, reference.layout) for state in states]
    z = [reference.shape_z(row, pool) for row, pool in zip(rows, pools, strict=True)]
    expected = sum(row.sum() * pool.total / pool.total.sum() for row, pool in zip(rows, pools, strict=True))
    effect = float(jensen_shannon(expected, np.sum(rows, axis=0)))
    score = float(cusum(z, both=False))
    return _finding(reference, limits, "shape", window, score, limits.shape[window].h, effect, SHAPE_FLOOR)


def _location(
    reference: Reference, limits: Thresholds, window: int, states: Sequence[BlockState], pools: Sequence[Pool]
) -> Finding:
    z = [reference.location_z(state, pool) for state, pool in zip(states, pools, strict=True)]
    finite = sum(state.finite for state in states)
    expected = sum(state.finite * pool.mean for state, pool in zip(states, pools, strict=True) if state.finite)
    shift = sum(state.csum for state in states) / UNIT - expected
    effect = abs(shift / finite) / reference.sd
    score = float(cusum(z, both=True))
    return _finding(reference, limits, "location", window, score, limits.location[window].h, effect, LOCATION_FLOOR)


def _rates(reference: Reference, limits: Thresholds, window: int, state: BlockState) -> list[Finding]:
    answer = []
    for rate, f in reference.rates.items():
        share = share_of(state, rate) / state.n
        # Three rows at least: in a small window one odd value would be a large share.
        limit = max(f + 4 * math.sqrt(f / state.rows), 2 / state.rows)
        answer.append(_finding(reference, limits, rate, window, share, limit, share, 0.0))
    return answer


def _finding(
    reference: Reference,
    limits: Thresholds,
    kind: str,
    window: int,
    score: float,
    threshold: float,
    effect: float,
    floor: float,
) -> Finding:
    state: State = "ok"
    if score > threshold:
        state = "alarm" if effect > floor else "recorded"
    mde = limits.mde.get((kind, window), math.nan)
    name = reference.feature.name
    return Finding(name, kind, window, score, threshold, effect, floor, mde, state, reference.weak)


def _off(reference: Reference, kind: str, window: int, why: str) -> Finding:
    nan = math.nan
    return Finding(reference.feature.name, kind, window, nan, nan, nan, nan, nan, "off", reference.weak, why)


def _least_location(reference: Reference, calibration: Calibration, window: int, seed: int) -> float:
    """In reference standard deviations."""
    z = reference.location[paths(len(reference.location), window, seed)]
    sigma, sd = reference.pools[-1].sigma, reference.sd

    def found(delta: float) -> Floats:
        passed = cusum(z + delta * sd / sigma, both=True) > calibration.h
        above = np.abs(z.mean(axis=1) * sigma + delta * sd) > LOCATION_FLOOR * sd
        out: Floats = (passed & above).astype(np.float64)
        return out

    # Values are clipped one span beyond the quantiles: a greater shift of the clipped mean cannot be.
    return least_effect(found, 2.0 / sd)


def _least_shape(reference: Reference, calibration: Calibration, window: int, seed: int) -> float:
    """As the share of rows moved to the rarest cell of values."""
    drawn = paths(reference.blocks, window, seed)
    pool = reference.pools[-1]
    rarest = int(np.argmin(pool.total[: reference.layout.cells]))
    total, others = pool.total, pool.total - reference.counts

    def found(share: float) -> Floats:
        moved = (1 - share) * reference.alike
        moved[:, rarest] += share * reference.alike.sum(axis=1)
        distance = np.fmax(jensen_shannon(others, moved), 1e-4)
        z = (np.log(distance) - pool.shape_mean) / pool.shape_sd
        pooled = (1 - share) * total
        pooled[rarest] += share * total.sum()
        above = float(jensen_shannon(total, pooled)) > SHAPE_FLOOR
        out: Floats = ((cusum(z[drawn], both=False) > calibration.h) & above).astype(np.float64)
        return out

    return least_effect(found, 1.0)
