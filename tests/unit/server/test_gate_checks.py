"""The checks of the release gate, beside slow answers of the same questions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from mainspring.server.gating import checks
from mainspring.server.gating.speed import Speed, ratio
from mainspring.training.evaluate import Estimate
from mainspring.training.gate import Comparison, SliceResult

values = st.lists(st.integers(-5, 5), min_size=2, max_size=30)


@given(values, st.randoms(use_true_random=False))
def test_a_regression_s_leakage_is_spearman_s_correlation(column, random) -> None:
    y = np.array([random.randint(-3, 3) for _ in column], dtype=float)
    x = np.array(column, dtype=float)
    found = checks.leaking({"x": x}, y, "regression", 0.99).why
    if len(set(column)) < 2 or len(set(y)) < 2:
        assert found == "no input orders the labels"
        return
    expected = abs(spearmanr(x, y).statistic)
    assert (f"{expected:.3f}" in found) or expected < 1e-12


@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=25))
def test_a_yes_or_no_s_leakage_is_counted_over_all_pairs(rows) -> None:
    x, y = np.array([row[0] for row in rows], dtype=float), np.array([row[1] for row in rows], dtype=float)
    good, bad = x[y == 1], x[y == 0]
    found = checks.leaking({"x": x}, y, "binary", 0.5)
    if not len(good) or not len(bad) or len(set(x)) < 2:
        assert found.why == "no input orders the labels"
        return
    wins = np.mean([(a > b) + 0.5 * (a == b) for a in good for b in bad])
    expected = abs(2 * wins - 1)
    assert found.state == ("passed" if expected <= 0.5 + 1e-12 else "failed")


def test_the_strongest_input_is_named_and_holes_are_left_out() -> None:
    y = np.array([0.0, 1.0] * 20)
    leak = y.copy()
    leak[:4] = np.nan
    found = checks.leaking({"noise": np.arange(40.0) % 7, "leak": leak}, y, "binary", 0.99)
    assert found.state == "failed"
    assert found.why.startswith("leak alone")


def test_calibration_takes_chance_into_account() -> None:
    draws = np.random.default_rng(3)
    scores = draws.uniform(0.05, 0.95, 2000)
    y = (draws.random(2000) < scores).astype(float)
    assert checks.calibrated(y, scores, 0.01).state == "passed"
    assert checks.calibrated(y, np.clip(scores * 0.6, 0, 1), 0.05).state == "failed"
    few = slice(0, 60)
    assert checks.calibrated(y[few], scores[few], 0.01).state == "passed", "sixty rows do not tell"


def test_a_contract_is_the_worst_source_s() -> None:
    assert checks.contract({"a": 0, "b": 0}, {"a": 10, "b": 10}, 0.0).state == "passed"
    found = checks.contract({"a": 1, "b": 6}, {"a": 99, "b": 94}, 0.05)
    assert found.state == "failed"
    assert found.why == "source b set 6 rows aside, 6.00%; at most 5.00%"
    assert checks.contract({"a": 5}, {"a": 95}, 0.05).state == "passed"


def estimate(low: float, high: float) -> Estimate:
    return Estimate((low + high) / 2, low, high, 100)


def test_groups_are_served_alike_when_chance_explains_the_gap() -> None:
    slices = {"city=a": estimate(0.7, 0.8), "city=b": estimate(0.75, 0.9), "town=c": estimate(0.1, 0.2)}
    (found,) = checks.fair(slices, ["city"], "roc_auc", 0.0)
    assert found.state == "passed"
    slices["city=c"] = estimate(0.4, 0.5)
    (found,) = checks.fair(slices, ["city"], "roc_auc", 0.2)
    assert found.state == "failed"
    assert "city=b and city=c differs by 0.2500 beyond chance" in found.why
    (missing,) = checks.fair(slices, ["colour"], "roc_auc", 0.2)
    assert missing.state == "failed"


def comparison(*, promote: bool, worse: bool) -> Comparison:
    slices = {"a=1": SliceResult(60, -0.1, -0.2, -0.01, worse)}
    return Comparison(500, "roc_auc", {"roc_auc": 0.7}, {"roc_auc": 0.6}, 0.1, 0.05, 0.2, 1.0, promote, "rule", slices)


def test_the_rule_and_the_slices_decide_apart() -> None:
    for promote in (True, False):
        for worse in (True, False):
            found = comparison(promote=promote, worse=worse)
            assert (checks.stronger(found).state == "passed") is promote
            assert (checks.slices_hold(found).state == "failed") is worse
    assert checks.stronger(None).state == checks.slices_hold(None).state == "skipped"
    assert checks.compared(comparison(promote=True, worse=False)) == [("roc_auc", 0.7, 0.6)]


def test_scores_that_moved_are_seen() -> None:
    scores = np.random.default_rng(0).beta(2, 5, 4000)
    assert checks.drifted(scores[:2000], scores[2000:], 0.1).state == "passed"
    assert checks.drifted(1 - scores, scores, 0.3).state == "failed"
    assert checks.drifted(np.full(10, 0.5), np.full(10, 0.5), 0.1).state == "passed"


@given(st.lists(st.floats(0.1, 10), min_size=3, max_size=30))
def test_a_ratio_is_the_middle_of_the_pairs_within_its_interval(ratios) -> None:
    live = np.linspace(1, 2, len(ratios))
    middle, low, high = ratio(list(live * np.array(ratios)), list(live))
    assert middle == pytest.approx(np.median(ratios))
    assert min(ratios) - 1e-9 <= low <= middle + 1e-9
    assert middle - 1e-9 <= high <= max(ratios) + 1e-9


@pytest.mark.parametrize(("low", "memory", "states"), [(1.1, 1.0, "ppp"), (1.3, 1.0, "fpp"), (0.9, 2.0, "ppf")])
def test_a_loss_counts_when_its_interval_is_beyond_the_limit(low, memory, states) -> None:
    speed = Speed((1.5, low, 1.9), (1.0, 0.9, 1.1), memory, 30.0, 20.0)
    assert "".join(check.state[0] for check in checks.speedy(speed, 0.25, 0.5)) == states
