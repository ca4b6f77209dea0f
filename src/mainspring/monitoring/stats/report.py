"""Numbers that people know from elsewhere: reported beside the findings, not what decides, unless the user says so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from mainspring.lazy import lazy
from mainspring.metrics.distance import chi_square, jensen_shannon, kolmogorov, psi, wasserstein
from mainspring.monitoring.stats.baseline import FeatureBaseline
from mainspring.monitoring.stats.decide import WINDOWS, Finding, State
from mainspring.monitoring.stats.reference import Reference, cells
from mainspring.monitoring.stats.state import UNIT, BlockState, merge

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["Known", "judge_psi", "moments", "psi_alarms", "well_known"]


class Known(msgspec.Struct, frozen=True):
    """The well-known distances of a state from its reference; NaN where one does not apply.

    Args:
        js: Jensen-Shannon distance, base 2, on the coarse cells.
        psi: population stability index on at most 10 cells.
        ks: Kolmogorov-Smirnov statistic on the fine cells.
        wasserstein: first Wasserstein distance in reference standard deviations.
        chi2: two-sample chi-square statistic.
        chi2_df: its degrees of freedom.
        chi2_p: its p-value; it falls with the number of rows, whatever the size of the change.
    """

    js: float
    psi: float
    ks: float
    wasserstein: float
    chi2: float
    chi2_df: int
    chi2_p: float


def well_known(reference: Reference, state: BlockState) -> Known:
    """The well-known distances of a state (a block, or merged blocks); `ks` and `wasserstein` need its fine counts."""
    feature, layout = reference.feature, reference.layout
    total, current = reference.pools[-1].total, cells(state, layout)
    ks = distance = math.nan
    if layout.numeric and state.fine and sum(feature.fine):
        ks = kolmogorov(feature.fine, state.fine)
        low, high = min(feature.vmin, state.vmin), max(feature.vmax, state.vmax)
        if feature.sd:
            distance = wasserstein(feature.fine, state.fine, layout.edges, low, high) / feature.sd
    chi2, degrees, p = chi_square(total, current)
    stability = _psi(feature, state) if state.fine else psi(total, current)
    return Known(float(jensen_shannon(total, current)), stability, ks, distance, chi2, degrees, p)


def psi_alarms(reference: Reference, warn: float) -> tuple[int, int]:
    """Reference blocks whose PSI against the other blocks passes `warn`, and how many blocks there are.

    Shown to a user who asks for ``drift="psi"``: what the rule would have said about data that had not changed.
    """
    total = reference.counts.sum(axis=0)
    values = [psi(total - own, alike) for own, alike in zip(reference.counts, reference.alike, strict=True)]
    return sum(value > warn for value in values), reference.blocks


def judge_psi(reference: Reference, warn: float, recent: Sequence[tuple[int, BlockState]]) -> tuple[Finding, ...]:
    """The findings under ``drift="psi", warn=...``: PSI against a number that the user chose, without a budget.

    Args:
        reference: the feature's reference.
        warn: PSI above it is an alarm.
        recent: start (microseconds) and state of the latest closed blocks, in order of time.
    """
    answer = []
    for window in WINDOWS:
        states = [state for _, state in recent[-window:] if state.rows]
        value = math.nan
        if states and reference.blocks:
            value = psi(reference.pools[-1].total, cells(merge(states), reference.layout))
        state: State = "off" if math.isnan(value) else "alarm" if value > warn else "ok"
        why = "no rows in the window or in the reference" if state == "off" else ""
        found = Finding(
            reference.feature.name, "psi", window, value, warn, value, 0.0, math.nan, state, reference.weak, why
        )
        answer.append(found)
    return tuple(answer)


def moments(feature: FeatureBaseline, state: BlockState) -> tuple[float, float]:
    """Mean and standard deviation of a state's finite numbers, each value cut at 2^15 spans; NaN without numbers."""
    n, layout = state.finite, feature.layout()
    if not layout.numeric or n < 1:
        return math.nan, math.nan
    mean = state.sum / UNIT / n
    # Exact integers first: the difference of two large numbers keeps its digits.
    spread = (state.sum2 * n * UNIT - state.sum**2) / UNIT**2
    return layout.low + mean * layout.span, math.sqrt(max(spread, 0.0)) / n * layout.span


def _psi(feature: FeatureBaseline, state: BlockState) -> float:
    gone = state.n_null + state.n_nan + state.n_inf
    states = feature.states()
    missing = sum(s.n_null + s.n_nan + s.n_inf for s in states)
    return psi(np.array((*feature.fine, missing)), np.array((*state.fine, gone)))
