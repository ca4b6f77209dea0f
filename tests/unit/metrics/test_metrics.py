"""Each metric is scikit-learn's or scipy's number, and an undefined one says why instead of raising."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle

from mainspring.errors import DataError, UsageError
from mainspring.metrics.additive import mae, r2, rmse
from mainspring.metrics.classification import (
    accuracy,
    brier,
    delong,
    ece,
    equal_count_bins,
    f1,
    log_loss,
    precision,
    recall,
    roc_auc,
)
from mainspring.metrics.intervals import METRICS, evaluate, paired_bootstrap, poisson_resample, wilson

CLOSE = {"rel": 1e-12, "abs": 1e-12}


def drawn(seed, rows=500, levels=40, lift=1.0):
    random = np.random.default_rng(seed)
    y = (random.random(rows) < 0.3).astype(int)
    p = np.round(1 / (1 + np.exp(-(random.normal(size=rows) + lift * y - 1))) * levels) / levels
    return y, p, random.random(rows) + 0.1


@pytest.mark.parametrize("seed", range(4))
def test_weighted_metrics_equal_scikit_learns(seed):
    y, p, w = drawn(seed)
    yes = p >= 0.5
    assert roc_auc(y, p, w) == pytest.approx(oracle.roc_auc_score(y, p, sample_weight=w), **CLOSE)
    assert log_loss(y, p, w) == pytest.approx(oracle.log_loss(y, p, sample_weight=w), **CLOSE)
    assert brier(y, p, w) == pytest.approx(oracle.brier_score_loss(y, p, sample_weight=w), **CLOSE)
    assert accuracy(y, p, w) == pytest.approx(oracle.accuracy_score(y, yes, sample_weight=w), **CLOSE)
    assert precision(y, p, w) == pytest.approx(oracle.precision_score(y, yes, sample_weight=w), **CLOSE)
    assert recall(y, p, w) == pytest.approx(oracle.recall_score(y, yes, sample_weight=w), **CLOSE)
    assert f1(y, p, w) == pytest.approx(oracle.f1_score(y, yes, sample_weight=w), **CLOSE)


def test_regression_metrics_equal_scikit_learns_far_from_zero():
    random = np.random.default_rng(1)
    y = random.normal(size=400) + 1e6
    p = y + random.normal(size=400)
    w = random.random(400)
    assert mae(y, p, w) == pytest.approx(oracle.mean_absolute_error(y, p, sample_weight=w), **CLOSE)
    assert rmse(y, p, w) == pytest.approx(oracle.root_mean_squared_error(y, p, sample_weight=w), **CLOSE)
    assert r2(y, p, w) == pytest.approx(oracle.r2_score(y, p, sample_weight=w), rel=1e-9)


def test_many_classes_equal_scikit_learns():
    random = np.random.default_rng(2)
    p = random.dirichlet(np.ones(4), size=300)
    y = random.integers(0, 4, 300)
    assert log_loss(y, p) == pytest.approx(oracle.log_loss(y, p), **CLOSE)
    assert accuracy(y, p) == pytest.approx(oracle.accuracy_score(y, p.argmax(axis=1)), **CLOSE)
    assert brier(y, p) == pytest.approx(np.mean(((p - np.eye(4)[y]) ** 2).sum(axis=1)), **CLOSE)


def test_a_sure_wrong_prediction_is_dear_but_finite():
    assert log_loss([1, 0], [0.0, 1.0]) == pytest.approx(oracle.log_loss([1, 0], [0.0, 1.0]), rel=1e-9)


pairs = st.lists(st.tuples(st.booleans(), st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(pairs)
def test_auc_with_ties_and_weights_is_the_count_of_pairs(rows):
    y, p, w = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    wins = total = 0.0
    for i in np.flatnonzero(y == 1):
        for j in np.flatnonzero(y == 0):
            total += w[i] * w[j]
            wins += w[i] * w[j] * (0.5 * (p[i] == p[j]) + (p[i] > p[j]))
    answer = roc_auc(y, p, w)
    assert math.isnan(answer) if total == 0 else answer == pytest.approx(wins / total, **CLOSE)


def slow_delong_variance(y, p):
    high, low = p[y == 1], p[y == 0]
    kernel = (high[:, None] > low[None, :]) + 0.5 * (high[:, None] == low[None, :])
    return kernel.mean(axis=1).var(ddof=1) / len(high) + kernel.mean(axis=0).var(ddof=1) / len(low)


def test_delong_is_its_quadratic_definition():
    y, p, _ = drawn(5, rows=200)
    answer = delong(y, p, level=0.9)
    reach = scipy.stats.norm.ppf(0.95) * math.sqrt(slow_delong_variance(y, p))
    assert answer.value == pytest.approx(oracle.roc_auc_score(y, p), **CLOSE)
    assert answer.low == pytest.approx(answer.value - reach, **CLOSE)
    assert answer.high == pytest.approx(answer.value + reach, **CLOSE)
    assert answer.n == 200


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (997, 1000)])
def test_wilson_is_scipys(k, n):
    expected = scipy.stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    answer = wilson(k, n)
    assert (answer.low, answer.high) == (pytest.approx(expected.low, **CLOSE), pytest.approx(expected.high, **CLOSE))


def test_ece_of_two_bins_by_hand_and_of_equal_scores_whatever_the_order():
    assert ece([0, 1, 1, 1], [0.1, 0.3, 0.6, 0.8], bins=2) == pytest.approx((0.6 + 0.6) / 4)
    assert list(equal_count_bins(np.arange(20.0), 10)) == [i // 2 for i in range(20)]
    y, p, _ = drawn(3, levels=7)
    shuffled = np.random.default_rng(0).permutation(len(y))
    assert ece(y, p) == pytest.approx(ece(y[shuffled], p[shuffled]), **CLOSE)


@pytest.mark.parametrize("metric", METRICS)
def test_no_metric_raises_on_empty_or_single_class_data(metric):
    for y, p in (([], []), ([1, 1], [0.2, 0.7])):
        value = evaluate(metric, y, p)
        for answer in (poisson_resample(y, p, metric, n=20), paired_bootstrap(y, p, p, metric, n=20)):
            assert bool(answer.why) == math.isnan(value)


def test_an_undefined_value_says_why():
    assert delong([1, 1], [0.1, 0.2]).why == "one class only"
    assert delong([], []).why == "no rows"
    assert delong([0, 1], [0.1, math.nan]).why == "a prediction is missing"
    assert delong([0, 2], [0.1, 0.2]).why == "a label is neither 0 nor 1"
    assert delong([0, 1, 1], [0.1, 0.2, 0.3]).why == "one row only in a class"
    assert wilson(0, 0).why == "no rows"
    assert poisson_resample([None, 1], [0.1, 0.2], "log_loss").why == "a label is missing"
    assert math.isnan(accuracy([1, 0], [math.nan, 0.1]))
    assert math.isnan(r2([3.0, 3.0], [1.0, 2.0]))


def test_lengths_and_names_are_checked():
    with pytest.raises(DataError, match="differ in length"):
        roc_auc([0, 1], [0.5])
    with pytest.raises(UsageError, match='no metric is called "auc"'):
        evaluate("auc", [0, 1], [0.1, 0.2])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("grouped", [False, True])
def test_the_fast_resample_is_the_slow_one(metric, grouped):
    y, p, w = drawn(7, rows=60)
    groups = np.arange(60) // 4 if grouped else None
    fast = poisson_resample(y, p, metric, groups=groups, n=50, seed=3, weight=w)
    # ECE keeps the bins of the whole sample in every resample; the slow way would move them.
    bins = equal_count_bins(np.asarray(p))

    def slow(truth, predicted, weight):
        if metric == "ece":
            gaps = np.bincount(bins, weights=weight * (truth - predicted), minlength=10)
            return np.abs(gaps).sum() / weight.sum()
        return evaluate(metric, truth, predicted, weight)

    expected = poisson_resample(y, p, slow, groups=groups, n=50, seed=3, weight=w)
    assert fast.low == pytest.approx(expected.low, rel=1e-9)
    assert fast.high == pytest.approx(expected.high, rel=1e-9)


def test_the_resample_covers_the_truth_and_groups_widen_it():
    hits = 0
    for seed in range(40):
        y = (np.random.default_rng(seed).random(300) < 0.3).astype(int)
        answer = poisson_resample(y, np.full(300, 0.3), "accuracy", n=300, seed=seed)
        hits += answer.low <= 0.7 <= answer.high
    assert hits >= 34
    y = np.repeat((np.random.default_rng(0).random(100) < 0.3).astype(int), 10)
    alone = poisson_resample(y, np.full(1000, 0.3), "accuracy")
    together = poisson_resample(y, np.full(1000, 0.3), "accuracy", groups=np.repeat(np.arange(100), 10))
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_the_resample_agrees_with_delong():
    y, p, _ = drawn(11, rows=2000)
    resampled, closed = poisson_resample(y, p, "roc_auc", n=1000), delong(y, p)
    assert resampled.value == closed.value
    assert resampled.high - resampled.low == pytest.approx(closed.high - closed.low, rel=0.12)


def test_paired_bootstrap_tells_a_better_model_in_either_direction():
    y, p, _ = drawn(13, rows=1500)
    worse = np.clip(p + np.random.default_rng(1).normal(scale=0.4, size=1500), 0.01, 0.99)
    for metric in ("roc_auc", "log_loss"):
        answer = paired_bootstrap(y, np.clip(p, 0.01, 0.99), worse, metric, n=400)
        assert answer.p_win == 1.0
        assert (answer.low > 0) == (metric == "roc_auc")
    same = paired_bootstrap(y, p, p, "roc_auc", n=100)
    assert (same.delta, same.low, same.high, same.p_win) == (0.0, 0.0, 0.0, 0.5)


def test_paired_rows_are_drawn_together():
    y, p, _ = drawn(17, rows=800)
    near = np.clip(p + 0.001 * (np.arange(800) % 3), 0, 1)
    paired = paired_bootstrap(y, near, p, "roc_auc", n=300)
    alone = poisson_resample(y, p, "roc_auc", n=300)
    assert paired.high - paired.low < 0.2 * (alone.high - alone.low)


def test_seeds_repeat_and_differ():
    y, p, _ = drawn(19)
    first, again, other = (poisson_resample(y, p, "brier", n=100, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first.low != other.low
