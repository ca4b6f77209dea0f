"""Whether a canary does worse: looked at as often as one likes, with one chance of a false stop over all time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import msgspec

from mainspring.monitoring.stats.canary import canary_bound, too_many
from mainspring.serving.rollout.evidence import CELLS, STEPS_A_DOUBLING, Counted, worst_of

__all__ = ["FIRST_LOOK", "Look", "Losses", "Verdict", "judged", "lag", "moved"]

FIRST_LOOK = 50
"""Calls of the canary, and of the version beside it, before the first look.

The bound holds from any first look on; it is a little wider later for one that comes early.
"""

FALSE_STOPS = 0.05
"""The chance that a rollout of a version that is no worse is ever stopped, over all its measures and looks."""

SLOWER = 0.25
"""How much slower a canary may be, and how much greater a regression's errors, as a share, before it is stopped."""

_MEASURES = 3


class Losses(msgspec.Struct, frozen=True):
    """How far a version's scores were from the labels that came.

    Attributes:
        labels: how many came.
        total: the sum of squared differences of probabilities (Brier), for a binary model.
        cells: of a regression, labels by the cell of the absolute error, in millionths.
    """

    labels: int = 0
    total: float = 0.0
    cells: dict[int, int] = {}


class Look(msgspec.Struct, frozen=True):
    """One measure of both versions.

    Attributes:
        measure: ``errors``, ``latency``, ``quality``, or ``scores of MODEL``.
        stable: its value for the version that answers the rest: a share, microseconds of the 99th percentile, a loss.
        canary: the same for the canary; None before there is any.
        worse: how much worse the canary does, as the bound measures it.
        bound: how much a version that is no worse passes with the agreed chance at most; None before the first look.
    """

    measure: str
    stable: float | None
    canary: float | None
    worse: float
    bound: float | None

    @property
    def stops(self) -> bool:
        """Whether the canary is worse beyond doubt."""
        return self.bound is not None and self.worse > self.bound


class Verdict(msgspec.Struct, frozen=True):
    """All measures at a moment; `why` says in a line what stops the rollout, and is empty when nothing does."""

    looks: tuple[Look, ...]
    why: str = ""


def judged(
    stable: Counted,
    canary: Counted,
    losses: tuple[Losses, Losses] | None = None,
    *,
    binary: bool = True,
    steps: int = 1,
) -> Verdict:
    """Compare what became of two versions' calls, while each had the same share of them.

    Each measure of each step may stop the rollout with its part of `FALSE_STOPS`, over all looks together: errors by
    how many of all are the canary's (`too_many`), distributions by the bound of Howard and Ramdas (`canary_bound`),
    which integrated over [0, 1] is one for the mean of a loss.

    Args:
        stable: of the version that answers the rest.
        canary: of the one that is tried.
        losses: of both, where labels have come.
        binary: whether the losses are squared differences in [0, 1].
        steps: how many the rollout has.
    """
    chance = FALSE_STOPS / _MEASURES / steps
    looks = [_errors(stable, canary, chance), _latency(stable, canary, chance)]
    if losses is not None:
        looks.append(_quality(*losses, chance, binary=binary))
    bad = next((look for look in looks if look.stops), None)
    return Verdict(tuple(looks), "" if bad is None else _said(bad))


def moved(
    model: str, stable: Mapping[float, float], canary: Mapping[float, float], tolerance: float, *, models: int = 1
) -> Look:
    """Hold a model's scores on a canary against the champion's, without a label, where only their counts are known.

    By the two-sided Kolmogorov-Smirnov statistic over the bounds of their buckets, which is no more than that of the
    scores themselves, so that a bound on the one holds for the other. It takes the part of `FALSE_STOPS` that labels
    would have.

    Args:
        model: its name.
        stable: by a value, how many of the champion's scores are no greater.
        canary: the same of the canary.
        tolerance: how far they may be apart besides by chance, from 0 to 1: another version scores otherwise.
        models: how many models are looked at.
    """
    calls = [round(max(side.values(), default=0.0)) for side in (stable, canary)]
    if not all(calls):
        return Look(f"scores of {model}", None, None, 0.0, None)
    apart = max((abs(stable[at] / calls[0] - canary[at] / calls[1]) for at in stable.keys() & canary.keys()), default=0)
    bound = _bound(calls[1], calls[0], FALSE_STOPS / _MEASURES / models)
    return Look(f"scores of {model}", 0.0, apart, apart - tolerance, bound)


def lag(stable: Sequence[int], canary: Sequence[int], shift: int) -> float:
    """How far a canary's distribution lies behind, by the one-sided Kolmogorov-Smirnov statistic, in [-1, 1].

    The greatest difference, over all values x, between the share of the one's values up to x and the share of the
    canary's up to x and `shift` cells. Of a canary whose values are no more than that ratio greater it is not above 0
    but by chance.

    Args:
        stable: counts by cell.
        canary: counts by cell.
        shift: cells that the canary may lie behind.
    """
    behind, before, most = 0, 0, -1.0
    n, m = sum(stable), sum(canary)
    if not n or not m:
        return 0.0
    before = sum(canary[:shift])
    for cell, count in enumerate(stable[:-1]):
        behind += count
        before += canary[cell + shift] if cell + shift < len(canary) else 0
        if cell + shift >= len(canary) - 1:
            break  # the open last cell has no upper end to compare at
        most = max(most, behind / n - before / m)
    return most


def _errors(stable: Counted, canary: Counted, chance: float) -> Look:
    shares = [part.errors / part.calls if part.calls else None for part in (stable, canary)]
    worse = (shares[1] or 0.0) - (shares[0] or 0.0)
    if min(stable.calls, canary.calls) < FIRST_LOOK:
        return Look("errors", shares[0], shares[1], worse, None)
    failed = stable.errors + canary.errors
    most = too_many(failed, canary.calls, stable.calls, q=chance)
    # As a difference of shares: that of the greatest number that is not too many.
    allowed = failed if most is None else most - 1
    bound = allowed / canary.calls - (failed - allowed) / stable.calls
    return Look("errors", shares[0], shares[1], worse, bound)


def _latency(stable: Counted, canary: Counted, chance: float) -> Look:
    calls = [sum(part.latency.values()) for part in (stable, canary)]
    worse = lag(stable.cells(), canary.cells(), _shift(SLOWER))
    p99 = [worst_of(part, 0.99) for part in (stable, canary)]
    return Look("latency", p99[0], p99[1], worse, _bound(calls[1], calls[0], chance))


def _quality(stable: Losses, canary: Losses, chance: float, *, binary: bool) -> Look:
    bound = _bound(canary.labels, stable.labels, chance)
    if binary:
        means = [part.total / part.labels if part.labels else None for part in (stable, canary)]
        return Look("quality", means[0], means[1], (means[1] or 0.0) - (means[0] or 0.0), bound)
    worse = lag(_all_cells(stable.cells), _all_cells(canary.cells), _shift(SLOWER))
    medians = [worst_of(Counted(part.labels, 0, part.cells), 0.5) for part in (stable, canary)]
    found = [None if value is None else value / 1e6 for value in medians]
    return Look("quality", found[0], found[1], worse, bound)


def _all_cells(cells: dict[int, int]) -> list[int]:
    found = [0] * CELLS
    for cell, count in cells.items():
        found[cell] = count
    return found


def _shift(tolerance: float) -> int:
    return math.ceil(math.log2(1.0 + tolerance) * STEPS_A_DOUBLING)


def _bound(canary: int, stable: int, chance: float) -> float | None:
    found = canary_bound(canary, stable, q=chance, first=FIRST_LOOK, growing=True)
    return None if math.isinf(found) else found


def _said(look: Look) -> str:
    units = {"errors": ("{:.1%}", "of its calls fail"), "latency": ("{:.0f} us", "is its 99th percentile")}
    form, what = units.get(look.measure, ("{:.4g}", "is its loss"))
    canary, stable = (form.format(value or 0.0) for value in (look.canary, look.stable))
    return f"{look.measure}: {canary} {what}, {stable} beside it ({look.worse:.3f} worse, bound {look.bound:.3f})"
