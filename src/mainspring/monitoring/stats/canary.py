"""Comparing two growing samples at any time, as often as one likes: the canary's rule."""

from __future__ import annotations

import math

__all__ = ["FIRST_LOOK", "canary_bound", "canary_drifts", "too_many"]

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


def too_many(failed: int, calls: int, others: int, *, q: float = 0.05) -> int | None:
    """How many failures of a canary, of all failures, are too many at any time: the least such number.

    While both fail alike, each failure is the canary's with the chance of its share of the calls. Against that stands
    the mixture of all greater chances, evenly; the ratio of the likelihoods is a martingale, which passes 1 / q with
    probability q at most, over all looks together (Ville). Of the integral over the greater chances half the whole is
    taken, which is no more than it is where the canary has its share of the failures or more: the median of a binomial
    is not beyond its mean's ceiling.

    Args:
        failed: failures of both.
        calls: of the canary.
        others: of the version beside it.
        q: chance of a false alarm over all time.

    Returns:
        The number, up to `failed`; None where no number is too many.
    """
    if not failed or not calls or not others:
        return None
    share = calls / (calls + others)
    limit = math.log(2 / q) + math.log1p(-share)

    def passes(own: int) -> bool:
        mixture = math.lgamma(own + 1) + math.lgamma(failed - own + 1) - math.lgamma(failed + 2)
        return mixture - own * math.log(share) - (failed - own) * math.log1p(-share) >= limit

    low, high = math.ceil(share * (failed + 1)), failed
    if low > high or not passes(high):
        return None
    while low < high:  # beyond the mean the ratio grows with each failure more
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle + 1, high)
    return low
