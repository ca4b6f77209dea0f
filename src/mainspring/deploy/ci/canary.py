"""What a server tells Prometheus of its requests, as evidence for the rule by which rollouts are judged."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import msgspec

__all__ = ["Counts", "counts_of", "spread"]

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})?\s+(\S+)")
_OURS = ("mainspring_request", "mainspring_prediction_score")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Counts(msgspec.Struct, frozen=True):
    """What one page says.

    Attributes:
        answered: requests.
        failed: those that were answered with 5xx.
        within: by the seconds of a bucket, the requests answered within.
        scores: of each model, by the upper bound of a bucket, the scores that are no greater.
    """

    answered: float
    failed: float
    within: Mapping[float, float]
    scores: Mapping[str, Mapping[float, float]] = msgspec.field(default_factory=dict)

    def since(self, before: Counts) -> Counts:
        """What came after an earlier page; a counter that fell began anew."""
        if self.answered < before.answered:
            return self
        within = _less(self.within, before.within)
        scores = {model: _less(counts, before.scores.get(model, {})) for model, counts in self.scores.items()}
        return Counts(self.answered - before.answered, self.failed - before.failed, within, scores)


def _less(now: Mapping[float, float], before: Mapping[float, float]) -> dict[float, float]:
    return {edge: count - before.get(edge, 0.0) for edge, count in now.items()}


def counts_of(page: str) -> Counts:
    """The counts of requests in a page in Prometheus' text format."""
    answered = failed = 0.0
    within: dict[float, float] = {}
    scores: dict[str, dict[float, float]] = {}
    for line in page.splitlines():
        match = _SAMPLE.match(line)
        if match is None or not match[1].startswith(_OURS):
            continue
        labels = dict(_LABEL.findall(match[2] or ""))
        if match[1] == "mainspring_requests_total":
            answered += float(match[3])
            failed += float(match[3]) if labels.get("code", "").startswith("5") else 0.0
        elif match[1] == "mainspring_request_seconds_bucket":
            edge = float(labels["le"])
            within[edge] = within.get(edge, 0.0) + float(match[3])
        elif match[1] == "mainspring_prediction_score_bucket":
            model, edge = scores.setdefault(labels["model"], {}), float(labels["le"])
            model[edge] = model.get(edge, 0.0) + float(match[3])
    return Counts(answered, failed, within, scores)


def spread(within: Mapping[float, float], a_doubling: int, cells: int) -> dict[int, int]:
    """The requests of a page's buckets by narrower cells, each bucket's evenly over those that it covers.

    What two sides differ by at any end of a cell lies between what they differ by at the ends of its bucket, so that
    two that are alike differ no more than their pages do; a bound on the one holds for the other.

    Args:
        within: by the seconds of a bucket, the requests answered within.
        a_doubling: cells between a value and its double, counted from a microsecond.
        cells: how many there are; the last is open.
    """
    found: dict[int, int] = {}
    before, first = 0, 0
    for edge in sorted(within):
        last = cells - 1 if math.isinf(edge) else _cell(edge * 1e6, a_doubling, cells)
        places = [last] if math.isinf(edge) else range(min(first, last), last + 1)
        count = max(round(within[edge]) - before, 0)
        for place, (one, other) in zip(places, _even(count, len(places)), strict=True):
            if other > one:
                found[place] = found.get(place, 0) + other - one
        before, first = before + count, last + 1
    return found


def _cell(microseconds: float, a_doubling: int, cells: int) -> int:
    return min(max(1 + math.floor(math.log2(max(microseconds, 1.0)) * a_doubling), 0), cells - 2)


def _even(count: int, parts: int) -> list[tuple[int, int]]:
    """The bounds of equal parts of a count, but for rounding."""
    return [(count * part // parts, count * (part + 1) // parts) for part in range(parts)]
