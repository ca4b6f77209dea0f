"""Performance with labels and without: the right interval, the right warning, the right refusal."""

import math

import numpy as np
import pytest

from mainspring.errors import UsageError
from mainspring.metrics.classification import accuracy, delong, f1, precision, recall, roc_auc
from mainspring.metrics.intervals import poisson_resample, wilson
from mainspring.monitoring.stats.cbpe import ASSUMPTION, ESTIMATED, calibration_refusal, cbpe
from mainspring.monitoring.stats.performance import mature, performance, selection

HORIZON = 3_600_000_000


def labelled(seed, n=2000, logit=lambda z: z):
    """Scores and labels; calibrated unless `logit` bends the scores."""
    random = np.random.default_rng(seed)
    z = random.normal(size=n) * 1.5 - 0.5
    y = (random.random(n) < 1 / (1 + np.exp(-z))).astype(float)
    return y, 1 / (1 + np.exp(-logit(z)))


def test_each_metric_has_the_interval_that_suits_it():
    y, p = labelled(0)
    area = performance(y, p, "roc_auc", predictions=4000)
    assert (area.interval, area.method, area.coverage) == (delong(y, p), "delong", 0.5)
    yes = p >= 0.4
    for metric, rows, value in (
        ("accuracy", np.ones(2000, bool), accuracy(y, p, threshold=0.4)),
        ("precision", yes, precision(y, p, threshold=0.4)),
        ("recall", y == 1, recall(y, p, threshold=0.4)),
    ):
        answer = performance(y, p, metric, threshold=0.4)
        assert answer.interval == wilson(int((yes[rows] == y[rows]).sum()), int(rows.sum()))
        assert answer.interval.value == pytest.approx(value, rel=1e-12)
        assert answer.method == "wilson"
    loss = performance(y, p, "log_loss", seed=4)
    assert (loss.interval, loss.method) == (poisson_resample(y, p, "log_loss", seed=4), "poisson")


def test_rows_of_one_entity_and_sampled_rows_are_resampled():
    y, p = labelled(1)
    groups = np.arange(2000) // 20
    assert performance(y, p, "roc_auc", groups=groups).method == "poisson"
    weighted = performance(y, p, "f1", weight=np.where(y == 1, 1.0, 10.0), threshold=0.3)
    assert weighted.interval.value == pytest.approx(f1(y, p, np.where(y == 1, 1.0, 10.0), threshold=0.3), rel=1e-12)


def test_undefined_performance_says_why():
    assert performance([1.0, 1.0], [0.2, 0.3], "roc_auc").interval.why == "one class only"
    assert performance([0.0, 1.0], [0.2, 0.3], "precision").interval.why == "no rows"
    assert math.isnan(performance([], [], "log_loss").coverage)
    assert performance([], [], "log_loss", predictions=10).coverage == 0.0
    assert performance([None, 1.0], [0.2, 0.3], "accuracy").interval.why


def test_a_block_is_mature_when_its_youngest_prediction_is():
    assert mature(0, HORIZON, HORIZON)
    assert not mature(1, HORIZON, HORIZON)


def test_selected_labels_are_warned_of_and_a_small_fair_sample_is_not():
    random = np.random.default_rng(2)
    fair = [selection(random.beta(2, 5, 60), random.beta(2, 5, 5000)) for _ in range(40)]
    assert sum(s.warned for s in fair) == 0
    assert max(s.js for s in fair) > 0.05
    assert selection(random.beta(3, 4, 400), random.beta(2, 5, 5000)).warned
    assert not selection([], [0.5]).warned


def slow_expected_auc(p):
    wins = sum(a * (1 - b) * ((a > b) + 0.5 * (a == b)) for a in p for b in p)
    return wins / (p.sum() * (1 - p).sum())


def test_the_estimates_are_the_expected_counts():
    p = np.round(labelled(3, n=120)[1], 2)
    yes = p >= 0.5
    tp, fp, fn, tn = p[yes].sum(), (1 - p[yes]).sum(), p[~yes].sum(), (1 - p[~yes]).sum()
    expected = {
        "accuracy": (tp + tn) / 120,
        "precision": tp / (tp + fp),
        "recall": tp / (tp + fn),
        "f1": 2 * tp / (2 * tp + fp + fn),
        "roc_auc": slow_expected_auc(p),
    }
    for metric in ESTIMATED:
        answer = cbpe(p, metric)
        assert answer.interval.value == pytest.approx(expected[metric], rel=1e-12)
        assert answer.interval.low < answer.interval.value < answer.interval.high
        assert answer.assumes == ASSUMPTION
    spread = math.sqrt((p * (1 - p)).sum()) / 120
    accurate = cbpe(p, "accuracy").interval
    assert accurate.high - accurate.value == pytest.approx(1.959963984540054 * spread)


@pytest.mark.parametrize("metric", ESTIMATED)
def test_the_estimate_covers_what_the_labels_then_say(metric):
    real = {"accuracy": accuracy, "precision": precision, "recall": recall, "f1": f1, "roc_auc": roc_auc}[metric]
    covered = 0
    for seed in range(30):
        y, p = labelled(seed, n=1500)
        answer = cbpe(p, metric, seed=seed).interval
        covered += answer.low <= real(y, p) <= answer.high
    assert covered >= 25


def test_calibrated_scores_are_believed_and_bent_ones_refused():
    seeds = range(40)
    calibrated = [calibration_refusal(*labelled(seed), seed=seed) for seed in seeds]
    assert sum(map(bool, calibrated)) <= 3
    for bend in (lambda z: 1.5 * z, lambda z: z + 0.5):
        refused = [calibration_refusal(*labelled(seed, logit=bend), seed=seed) for seed in seeds]
        assert all("calibration error" in why for why in refused)


def test_without_labels_enough_there_is_no_estimate():
    y, p = labelled(5, n=999)
    why = calibration_refusal(y, p)
    assert why == "999 labels in the last mature window, 1000 are needed"
    answer = cbpe(p, "roc_auc", refused=why)
    assert math.isnan(answer.interval.value)
    assert answer.refused == answer.interval.why == why
    assert cbpe([], "accuracy").refused == "no predictions"
    assert cbpe([0.5, math.nan], "accuracy").refused == "a probability is missing"
    assert calibration_refusal([math.nan] * 1000, [0.5] * 1000) == "a label or a probability is missing"
    with pytest.raises(UsageError) as caught:
        cbpe(p, "log_loss")
    assert caught.value.code == "MS-2692"


def test_no_positive_is_predicted():
    answer = cbpe([0.1, 0.2], "precision").interval
    assert math.isnan(answer.value)
    assert answer.why == "undefined on these rows"
