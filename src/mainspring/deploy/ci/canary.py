"""A canary held against the champion, by what both tell Prometheus: errors and slow answers.

Looked at again and again, a fixed level would call a good canary bad sooner or later. Look i spends 6 / (pi i)^2 of the
level, which adds up to all of it over any number of looks (the union bound).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Counts", "Judgement", "chance", "counts_of", "judge"]

_LEVEL = 0.05
_ERRORS_FLOOR, _SLOW_FLOOR = 0.005, 0.05
_SLOW = 0.95
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})?\s+(\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True, slots=True)
class Counts:
    """What one page says.

    Attributes:
        answered: requests.
        failed: those that were answered with 5xx.
        within: by the seconds of a bucket, the requests answered within.
    """

    answered: float
    failed: float
    within: Mapping[float, float]

    def since(self, before: Counts) -> Counts:
        """What came after an earlier page; a counter that fell began anew."""
        if self.answered < before.answered:
            return self
        within = {edge: count - before.within.get(edge, 0.0) for edge, count in self.within.items()}
        return Counts(self.answered - before.answered, self.failed - before.failed, within)


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a look gave: whether the canary is worse, and in words."""

    worse: bool
    why: str


def counts_of(page: str) -> Counts:
    """The counts of requests in a page in Prometheus' text format."""
    answered = failed = 0.0
    within: dict[float, float] = {}
    for line in page.splitlines():
        match = _SAMPLE.match(line)
        if match is None or not match[1].startswith("mainspring_request"):
            continue
        labels = dict(_LABEL.findall(match[2] or ""))
        if match[1] == "mainspring_requests_total":
            answered += float(match[3])
            failed += float(match[3]) if labels.get("code", "").startswith("5") else 0.0
        elif match[1] == "mainspring_request_seconds_bucket":
            edge = float(labels["le"])
            within[edge] = within.get(edge, 0.0) + float(match[3])
    return Counts(answered, failed, within)


def judge(champion: Counts, canary: Counts, look: int) -> Judgement:
    """Whether the canary fails more, or answers slower, than the champion, beyond chance and beyond a floor.

    Slow is what takes longer than the bucket that 95 % of the champion's answers are within.

    Args:
        champion: its counts while both were watched.
        canary: the canary's.
        look: 1 for the first.
    """
    level = _LEVEL / 2 * 6 / (math.pi * look) ** 2
    told = []
    for what, floor, first, second in (
        ("fails", _ERRORS_FLOOR, champion.failed, canary.failed),
        ("is slow for", _SLOW_FLOOR, *_slow(champion, canary)),
    ):
        shares = [count / max(side.answered, 1.0) for count, side in ((first, champion), (second, canary))]
        p = chance(int(first), int(champion.answered), int(second), int(canary.answered))
        told.append(f"{what} {shares[1]:.2%} of {canary.answered:,.0f} requests, the champion {shares[0]:.2%}")
        if shares[1] - shares[0] > floor and p < level:
            return Judgement(True, f"the canary {told[-1]}")
    return Judgement(False, f"the canary {'; '.join(told)}")


def _slow(champion: Counts, canary: Counts) -> tuple[float, float]:
    edges = sorted(champion.within)
    whole = champion.within[edges[-1]] if edges else 0.0
    edge = next((one for one in edges if champion.within[one] >= _SLOW * whole), math.inf)
    if not edges or math.isinf(edge) or edge not in canary.within:
        return 0.0, 0.0
    return whole - champion.within[edge], canary.within[max(canary.within)] - canary.within[edge]


def chance(first: int, of_first: int, second: int, of_second: int) -> float:
    """Fisher's exact test, one-sided: the chance of at least `second` of all events on the second side by luck."""
    events, total = first + second, of_first + of_second
    if not events or not of_second or not of_first:
        return 1.0
    most = min(events, of_second)
    whole = _log_choose(total, events)
    terms = (
        _log_choose(of_second, k) + _log_choose(of_first, events - k) - whole
        for k in range(second, most + 1)
        if events - k <= of_first
    )
    return min(1.0, math.fsum(map(math.exp, terms)))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
