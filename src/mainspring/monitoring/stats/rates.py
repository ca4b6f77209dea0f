"""Shares of answers against a reference: how many of a block may be bad before it is no chance any more."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

__all__ = ["binomial_limit", "binomial_tail", "highest_usual"]

_BISECTIONS = 60
_SURE = 0.95
_NOTHING = 1e-18


def binomial_tail(n: int, p: float, least: int) -> float:
    """The chance of at least so many successes in n independent trials of chance p.

    Args:
        n: trials.
        p: chance of one, in [0, 1].
        least: successes.
    """
    if least <= 0:
        return 1.0
    if least > n or p <= 0:
        return 0.0
    if p >= 1:
        return 1.0
    # Summed from where the terms are greatest outwards; neither tail is lost in 1 - (1 - x).
    if least > n * p:
        return min(_sum(n, p, range(least, n + 1)), 1.0)
    return max(1.0 - _sum(n, p, range(least - 1, -1, -1)), 0.0)


def _sum(n: int, p: float, counts: range) -> float:
    """The chances of these numbers of successes, whose terms fall, together."""
    log_p, log_q, of_n, total = math.log(p), math.log1p(-p), math.lgamma(n + 1), 0.0
    for k in counts:
        term = math.exp(of_n - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * log_p + (n - k) * log_q)
        total += term
        if term < total * _NOTHING:
            break
    return total


def binomial_limit(n: int, p: float, chance: float) -> int:
    """The greatest number of successes in n trials that is still usual: more have at most this chance.

    Args:
        n: trials.
        p: chance of one, in [0, 1].
        chance: of a false alarm, in (0, 1).

    Returns:
        A number from 0 to n; n where no number of successes is unusual.
    """
    low, high = -1, n  # of more than `high` none are possible
    while high - low > 1:
        middle = (low + high) // 2
        if binomial_tail(n, p, middle + 1) <= chance:
            high = middle
        else:
            low = middle
    return high


def highest_usual(hits: Sequence[int], totals: Sequence[int]) -> float:
    """The highest share that a reference still speaks for.

    It is the greater of the upper 95 % bound of its pooled share (Clopper and Pearson 1934) and its mean plus three
    standard deviations of what its blocks vary by beyond chance.

    Args:
        hits: bad answers of each block.
        totals: answers of each block; blocks without any say nothing.

    Returns:
        A share in [0, 1]; 1 without an answer.
    """
    blocks = [(hit, total) for hit, total in zip(hits, totals, strict=True) if total]
    n, x = sum(total for _, total in blocks), sum(hit for hit, _ in blocks)
    if not n:
        return 1.0
    return min(max(_upper(x, n), x / n + 3 * math.sqrt(_beyond_chance(blocks, x / n))), 1.0)


def _beyond_chance(blocks: Sequence[tuple[int, int]], mean: float) -> float:
    """The variance of the blocks' shares that independent answers do not explain."""
    if len(blocks) < 2:
        return 0.0
    spread = math.fsum((hit / total - mean) ** 2 for hit, total in blocks) / (len(blocks) - 1)
    usual = mean * (1 - mean) * math.fsum(1 / total for _, total in blocks) / len(blocks)
    return max(spread - usual, 0.0)


@functools.lru_cache(maxsize=256)  # a reference is asked for again with every block
def _upper(x: int, n: int) -> float:
    """The share at which so few hits as x have a chance of 5 %."""
    if x >= n:
        return 1.0
    low, high = x / n, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if binomial_tail(n, middle, x + 1) >= _SURE else (middle, high)
    return high
