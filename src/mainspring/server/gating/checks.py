"""The checks of the gate, each a function on values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from mainspring.deploy.ci.verdict import Check
from mainspring.lazy import lazy
from mainspring.metrics.distance import jensen_shannon
from mainspring.metrics.intervals import evaluate
from mainspring.server.gating.speed import Speed
from mainspring.training.evaluate import Estimate
from mainspring.training.gate import Comparison

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = ["calibrated", "compared", "contract", "drifted", "fair", "leaking", "slices_hold", "speedy", "stronger"]

_CELLS = 20


def _check(name: str, passes: bool, why: str) -> Check:
    return Check(name, "passed" if passes else "failed", why)


def contract(aside: Mapping[str, int], read: Mapping[str, int], limit: float) -> Check:
    """The data kept its contract: the rows that sources set aside, as a share of those that they read."""
    shares = {name: rows / (rows + read.get(name, 0)) for name, rows in aside.items() if rows}
    worst = max(shares, key=lambda name: shares[name], default="")
    if not worst:
        return _check("data contract", True, f"no row of {len(read)} sources was set aside")
    told = f"source {worst} set {aside[worst]:,} rows aside, {shares[worst]:.2%}; at most {limit:.2%}"
    return _check("data contract", shares[worst] <= limit, told)


def leaking(columns: Mapping[str, NDArray[np.float64]], y: NDArray[np.float64], task: str, limit: float) -> Check:
    """No input alone tells the label: what does is usually known only afterwards.

    For a boolean label the measure is ``|2 AUC - 1|`` of the input as a score, else the rank correlation's size.
    """
    worst, most = "", 0.0
    for name, values in columns.items():
        found = _association(values, y, task)
        if found > most:
            worst, most = name, found
    if not worst:
        return _check("leakage", True, "no input orders the labels")
    return _check("leakage", most <= limit, f"{worst} alone orders the labels at {most:.3f}; at most {limit:g}")


def _association(values: NDArray[np.float64], y: NDArray[np.float64], task: str) -> float:
    there = np.isfinite(values) & np.isfinite(y)
    x, labels = values[there], y[there]
    if len(x) < 2 or (x == x[0]).all() or (labels == labels[0]).all():
        return 0.0
    if task == "binary":
        return abs(2.0 * evaluate("roc_auc", labels, x) - 1.0)
    a, b = _ranks(x), _ranks(labels)
    return abs(float(np.corrcoef(a, b)[0, 1]))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks, ties sharing their middle."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middles: NDArray[np.float64] = (ends - (counts - 1) / 2.0).astype(np.float64)
    return middles[inverse]


def stronger(found: Comparison | None) -> Check:
    """The declared rule's answer, from the paired bootstrap on the rows that neither was fitted on."""
    if found is None:
        return Check("champion", "skipped", "it is the first version")
    told = f"{found.why}, {found.rows:,} rows"
    if found.low is not None and found.high is not None and found.delta is not None:
        told += f"; {found.metric} {found.delta:+.4f} [{found.low:+.4f}, {found.high:+.4f}]"
    return _check("champion", found.promote, told)


def slices_hold(found: Comparison | None) -> Check:
    """No slice is worse, by Holm's step-down over all of them."""
    if found is None or not found.slices:
        return Check("slices", "skipped", "no slices are declared" if found is not None else "it is the first version")
    worse = sorted(name for name, one in found.slices.items() if one.worse)
    return _check("slices", not worse, f"worse on {', '.join(worse[:5])}" if worse else f"{len(found.slices)} hold")


def fair(slices: Mapping[str, Estimate], columns: Sequence[str], metric: str, limit: float) -> Iterable[Check]:
    """Of each column, the groups are served alike: the gap between them that chance does not explain is small.

    The gap is from the highest lower end of the groups' 95 % intervals to the lowest upper end.
    """
    for column in columns:
        groups = {name: one for name, one in slices.items() if name.partition("=")[0] == column}
        ends = [(one.low, one.high, name) for name, one in groups.items() if one.low is not None]
        if len(ends) < 2:
            yield _check(
                f"fairness of {column}", False, f"{column} is no slice of the model with two groups of 50 rows"
            )
            continue
        low, _, best = max(ends, key=lambda one: one[0] or 0.0)
        _, high, worst = min(ends, key=lambda one: math.inf if one[1] is None else one[1])
        gap = max(0.0, (low or 0.0) - (high if high is not None else math.inf))
        told = f"{metric} of {best} and {worst} differs by {gap:.4f} beyond chance; at most {limit:g}"
        yield _check(f"fairness of {column}", gap <= limit, told)


def calibrated(y: NDArray[np.float64], scores: NDArray[np.float64], limit: float, seed: int = 0) -> Check:
    """Scores come true as often as they say.

    An error counts when it is beyond the limit, and beyond what perfect scores would show on as many rows: the 99 %
    quantile over 200 draws of labels that come true exactly as the scores say.
    """
    found = evaluate("ece", y, scores)
    if not math.isfinite(found):
        return Check("calibration", "skipped", "undefined on these rows")
    draws = np.random.default_rng(seed)
    by_chance = [evaluate("ece", (draws.random(len(scores)) < scores).astype(np.float64), scores) for _ in range(200)]
    most = max(limit, float(np.quantile(by_chance, 0.99)))
    told = f"expected calibration error {found:.4f} on {len(y):,} rows; at most {most:.4f}"
    return _check("calibration", found <= most, told)


def drifted(new: NDArray[np.float64], live: NDArray[np.float64], limit: float) -> Check:
    """The challenger's scores are distributed like the champion's, on the same rows."""
    cuts = np.unique(np.quantile(live, np.linspace(0, 1, _CELLS + 1)[1:-1]))
    counts = [np.bincount(np.searchsorted(cuts, side, "right"), minlength=len(cuts) + 1) for side in (new, live)]
    found = float(jensen_shannon(counts[0], counts[1]))
    return _check("scores", found <= limit, f"Jensen-Shannon {found:.3f} from the champion's; at most {limit:g}")


def speedy(found: Speed, slower: float, larger: float) -> Iterable[Check]:
    """It is as fast and as small as the champion: a loss counts when its interval is beyond the limit."""
    for name, (middle, low, high) in (("latency", found.one), ("throughput", found.batch)):
        told = f"{middle:.2f} of the champion's CPU time [{low:.2f}, {high:.2f}]; at most {1 + slower:.2f}"
        if name == "latency":
            told = f"{found.new_us:,.0f} us against {found.live_us:,.0f}: {told}"
        yield _check(name, low <= 1 + slower, told)
    told = f"{found.memory:.2f} of the champion's peak; at most {1 + larger:.2f}"
    yield _check("memory", found.memory <= 1 + larger, told)


def compared(found: Comparison | None) -> list[tuple[str, float | None, float | None]]:
    """The metrics of both, by name, the deciding one first."""
    if found is None:
        return []
    names = sorted({*found.new, *found.live}, key=lambda name: (name != found.metric, name))
    return [(name, found.new.get(name), found.live.get(name)) for name in names]
