"""Comparing two growing samples at any time, as often as one likes: the canary's rule."""

from __future__ import annotations

import math

__all__ = ["FIRST_LOOK", "canary_bound", "canary_drifts"]

FIRST_LOOK = 1000
"""Rows before the first look."""


def canary_bound(
    rows: int, reference: int, *, q: float = 0.05, first: int = FIRST_LOOK, growing: bool = False
) -> float:
    """The KS statistic that undisturbed samples pass with probability at most q, over all looks together.

    Args:
        rows: rows T since the deploy.
        reference: rows N of the reference.
        q: chance of a false alarm over all time.
        first: rows m before the first look.
        growing: whether the reference grows too (the champion's own traffic).

    Howard and Ramdas, "Sequential estimation of quantiles", 2022, for the growing side; Dvoretzky, Kiefer and Wolfowitz
    for a fixed reference. Infinite before the first look.
    """
    if rows < first or reference < (first if growing else 1):
        return math.inf
    other = _over_time(reference, q, first) if growing else math.sqrt(math.log(4 / q) / (2 * reference))
    return _over_time(rows, q, first) + other


def canary_drifts(ks: float, rows: int, reference: int, *, q: float = 0.05, growing: bool = False) -> bool:
    """Whether a canary's KS statistic says that its data are not the reference's."""
    return ks > canary_bound(rows, reference, q=q, growing=growing)


def _over_time(rows: int, q: float, first: int) -> float:
    looks = math.log(math.log(math.e * rows / first)) if rows > first else 0.0
    return 0.85 * math.sqrt((looks + 0.8 * math.log(1612 / (q / 2))) / rows)
