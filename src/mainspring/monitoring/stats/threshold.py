"""From an alarm budget to a threshold: CUSUM scores of resampled reference blocks, and the tail beyond them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike

    from mainspring.metrics.arrays import Floats, Ints
else:
    np = lazy("numpy")

__all__ = ["PATHS", "Calibration", "alpha", "calibrate", "cusum", "least_effect", "paths"]

PATHS = 3000
"""Resampled paths behind a threshold."""

_SLACK = 0.5
_RESTART = 0.25
_TAIL = 0.1
_POWER = 0.8
_YEAR_US = 365.25 * 86_400_000_000


def alpha(budget: float, features: int, block_us: int, *, segments: int = 1, windows: int = 2) -> float:
    """The chance of a false alarm that one evaluation of one feature may have.

    Args:
        budget: false alarms a year, from `mainspring.declare.options.yearly_budget`.
        features: features watched.
        block_us: length of a block in microseconds: each closed block is evaluated once for each window.
        segments: segments watched apart.
        windows: windows evaluated at each block.
    """
    return min(budget / (features * segments * windows * _YEAR_US / block_us), 1.0)


class Calibration(msgspec.Struct, frozen=True):
    """The tail of the scores of undisturbed windows.

    Args:
        u: their 90 % quantile.
        beta: mean excess over u, at least 0.3.
        h: the threshold.
    """

    u: float
    beta: float
    h: float


@functools.lru_cache(maxsize=16)  # asked for again with every block
def paths(blocks: int, window: int, seed: int = 0, count: int = PATHS) -> Ints:
    """Block numbers of stationary-bootstrap paths (count, window): Politis and Romano 1994, mean run of 4 blocks."""
    generator = np.random.Generator(np.random.PCG64(seed))
    answer = np.empty((count, window), dtype=np.int64)
    answer[:, 0] = generator.integers(0, blocks, count)
    for step in range(1, window):
        jump = generator.random(count) < _RESTART
        fresh = generator.integers(0, blocks, count)
        answer[:, step] = np.where(jump, fresh, (answer[:, step - 1] + 1) % blocks)
    answer.flags.writeable = False
    return answer


def cusum(z: ArrayLike, *, both: bool) -> Floats:
    """The score of windows (..., blocks): the highest CUSUM, slack 0.5, upward or in `both` directions. Page 1954."""
    steps = np.asarray(z, dtype=np.float64)
    up = down = best = np.zeros(steps.shape[:-1])
    for block in range(steps.shape[-1]):
        up = np.maximum(0.0, up + steps[..., block] - _SLACK)
        best = np.maximum(best, up)
        if both:
            down = np.maximum(0.0, down - steps[..., block] - _SLACK)
            best = np.maximum(best, down)
    return best


def calibrate(z: Floats, drawn: Ints, chance: float, *, both: bool) -> Calibration:
    """The threshold that undisturbed windows pass with probability `chance`.

    Args:
        z: standardised distance of each reference block from the others (K,).
        drawn: paths through them, from `paths`.
        chance: alpha / 3, as three kinds of score share an evaluation's alpha.
        both: whether the score is two-sided.
    """
    scores = cusum(z[drawn], both=both)
    u = float(np.quantile(scores, 1 - _TAIL))
    beyond = scores[scores > u]
    beta = max(float((beyond - u).mean()) if len(beyond) else 0.0, 0.3)
    return Calibration(u, beta, u + beta * math.log(_TAIL / chance))


def least_effect(found: Callable[[float], Floats], high: float) -> float:
    """The least effect in (0, high] that is found 80 % of the time; inf when even `high` is not.

    Args:
        found: for an effect, the share of paths on which it is found, as a boolean for each path (paths,).
        high: the greatest effect to try.
    """
    if found(high).mean() < _POWER:
        return math.inf
    low = 0.0
    for _ in range(16):
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle).mean() >= _POWER else (middle, high)
    return high
