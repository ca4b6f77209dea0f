"""The parity gate: conversions that tell another story are caught, those that do not pass."""

import itertools

import numpy as np
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from mainspring.training.native import native_scores
from mainspring.training.parity import parity, probes
from mainspring.training.thresholds import edge_rows, missing_rows, splits_of, trees_of

DRAW = np.random.default_rng(3)
X = DRAW.normal(size=(600, 3)).astype(np.float32)
HOLES = X.copy()
HOLES[DRAW.random(600) < 0.2, 2] = np.nan
Y = (X[:, 0] + 0.5 * np.nan_to_num(HOLES[:, 2]) + DRAW.normal(size=600) * 0.5 > 0).astype(np.int8)


def scorer(estimator, task="binary"):
    return lambda rows: native_scores(estimator, rows, task)


def blocks_of(estimator, rows=HOLES, missing=(2,), task="binary"):
    return probes(estimator, scorer(estimator, task), rows, list(missing))[0]


@pytest.fixture(scope="module")
def boosted():
    return HistGradientBoostingClassifier(max_iter=10).fit(HOLES, Y)


def test_a_model_is_at_par_with_itself(boosted):
    report = parity(scorer(boosted), scorer(boosted), blocks_of(boosted), 0.0, "binary")
    assert report.passed
    assert report.rows == 600
    assert report.edges > 100
    assert report.missing == 65
    assert report.worst == 0.0
    assert report.text().startswith("parity holds: 600 rows")


def test_an_error_on_a_single_real_row_is_caught(boosted):
    bad = X[17]

    def wrong(rows):
        return scorer(boosted)(rows) + 2e-5 * (rows == bad).all(axis=1)

    report = parity(scorer(boosted), wrong, blocks_of(boosted, X), 1e-5, "binary")
    assert not report.passed
    assert (report.off, report.worst) == (1, pytest.approx(2e-5))


def test_a_label_that_flips_within_the_tolerance_is_caught(boosted):
    def half(rows):
        return np.full(len(rows), 0.5)

    def below(rows):
        return np.full(len(rows), 0.5 - 1e-9)

    report = parity(half, below, [X, X[:0], X[:0]], 1e-5, "binary")
    assert not report.passed
    assert (report.off, report.flips) == (0, 600)
    assert parity(half, below, [X, X[:0], X[:0]], 1e-5, "regression").passed


def test_a_threshold_off_by_one_ulp_is_caught_by_the_edge_rows_alone(boosted):
    first = trees_of(boosted)[0]
    column, edge = first.column[0], np.float32(first.threshold[0])

    def rounded(rows):
        moved = rows.copy()
        hit = moved[:, column] == np.nextafter(edge, np.float32(np.inf))
        moved[hit, column] = np.nextafter(edge, np.float32(-np.inf))
        return scorer(boosted)(moved)

    real, edges, gone = blocks_of(boosted)
    assert parity(scorer(boosted), rounded, [real, edges[:0], gone], 1e-5, "binary").passed
    assert not parity(scorer(boosted), rounded, [real, edges, gone], 1e-5, "binary").passed


def test_missing_values_that_go_another_way_are_caught(boosted):
    def filled(rows):
        return scorer(boosted)(np.nan_to_num(rows))

    blocks = blocks_of(boosted, X)
    assert parity(scorer(boosted), filled, [*blocks[:2], blocks[2][:0]], 1e-5, "binary").passed
    assert not parity(scorer(boosted), filled, blocks, 1e-5, "binary").passed


def test_no_number_on_one_side_is_infinitely_far_off(boosted):
    def lost(rows):
        return np.full(len(rows), np.nan)

    report = parity(scorer(boosted), lost, blocks_of(boosted), 1.0, "regression")
    assert not report.passed
    assert report.worst is None
    assert parity(lost, lost, blocks_of(boosted), 0.0, "regression").passed


def test_a_model_that_takes_no_missing_values_says_so_and_is_not_asked_with_them():
    model = LogisticRegression().fit(X, Y)
    blocks, problem = probes(model, scorer(model), X, [2])
    assert len(blocks[2]) == 0
    assert "NaN" in problem


def test_at_most_4096_real_rows_are_compared_and_they_span_all_of_them(boosted):
    many = np.repeat(X, 20, axis=0)
    many[:, 1] = np.arange(len(many))
    real = blocks_of(boosted, many)[0]
    assert 2048 < len(real) <= 4096
    assert real[-1, 1] > 0.99 * len(many)


@pytest.mark.parametrize(
    ("estimator", "task"),
    [
        (DecisionTreeClassifier(max_depth=4), "binary"),
        (RandomForestClassifier(5, max_depth=4), "binary"),
        (ExtraTreesClassifier(5, max_depth=4), "binary"),
        (HistGradientBoostingClassifier(max_iter=5), "binary"),
        (LGBMClassifier(n_estimators=3, verbose=-1), "binary"),
        (RandomForestRegressor(5, max_depth=4), "regression"),
        (GradientBoostingRegressor(n_estimators=5), "regression"),
        (HistGradientBoostingRegressor(max_iter=3), "regression"),
        (LGBMRegressor(n_estimators=3, verbose=-1), "regression"),
    ],
    ids=lambda item: type(item).__name__ if not isinstance(item, str) else item,
)
def test_the_score_jumps_at_thresholds_and_nowhere_else(estimator, task):
    """A brute-force oracle: along one column the score is constant between neighbouring thresholds."""
    estimator.fit(X, Y if task == "binary" else X[:, 0] + X[:, 1])
    score = scorer(estimator, task)
    for column in range(3):
        cuts = sorted(value for which, value in splits_of(estimator) if which == column)
        ends = [-10.0, *cuts, 10.0]
        middles = [(low + high) / 2 for low, high in itertools.pairwise(ends) if high - low > 1e-5]
        for base in X[:2]:
            walk = np.repeat(base[None, :], len(middles) * 2, axis=0)
            for number, middle in enumerate(middles):
                around = min(abs(middle - cut) for cut in cuts) / 2 if cuts else 1.0
                walk[2 * number, column], walk[2 * number + 1, column] = middle - around, middle + around
            found = score(walk).reshape(-1, 2)
            np.testing.assert_array_equal(found[:, 0], found[:, 1])


def reached(tree, row):
    """The nodes that a row without missing values comes through, by the definition of a tree."""
    node, found = 0, []
    while node >= 0:
        found.append(node)
        if tree.column[node] < 0:
            return found
        goes_left = float(row[tree.column[node]]) <= tree.threshold[node]
        node = int(tree.left[node] if goes_left else tree.right[node])
    return found


@pytest.mark.parametrize(
    "estimator",
    [
        HistGradientBoostingClassifier(max_iter=10),
        RandomForestClassifier(6, random_state=0),
        LGBMClassifier(n_estimators=10, verbose=-1),
    ],
    ids=lambda item: type(item).__name__,
)
def test_edge_rows_come_to_every_split_and_leave_it_on_both_sides(estimator):
    estimator.fit(X, Y)
    trees = trees_of(estimator)
    rows = edge_rows(estimator, X)
    splits = [(tree, int(node)) for tree in trees for node in np.flatnonzero(tree.column >= 0)]
    assert rows.dtype == np.float32
    assert len(rows) == 3 * len(splits) <= 4096
    at, below, above = np.split(rows, 3)
    for number, (tree, node) in enumerate(splits):
        paths = [reached(tree, side[number]) for side in (at, below, above)]
        assert all(node in path for path in paths[1:])
        assert tree.left[node] in paths[1]
        assert tree.right[node] in paths[2]


def test_many_splits_are_thinned_to_4096_rows():
    model = RandomForestClassifier(12, random_state=0).fit(X, DRAW.integers(0, 2, 600))
    assert len(splits_of(model)) > 1365
    assert 2048 < len(edge_rows(model, X)) <= 4096


def test_thresholds_behind_scalers_come_back_in_the_units_of_the_inputs():
    model = make_pipeline(StandardScaler(), MinMaxScaler(), DecisionTreeClassifier(max_depth=1))
    model.fit(X * 100 + 7, Y)
    tree = model.steps[-1][1].tree_
    rows = edge_rows(model, X * 100 + 7)
    _, *sides = np.split(native_scores(model, rows, "binary"), 9)
    assert sides[-2] != sides[-1]
    moved = model[:-1].transform(rows)[:, tree.feature[0]]
    assert np.abs(moved - tree.threshold[0]).max() < 1e-5


def test_a_step_without_an_inverse_leaves_no_edges():
    model = make_pipeline(PolynomialFeatures(2), DecisionTreeClassifier(max_depth=2)).fit(X, Y)
    assert len(edge_rows(model, X)) == 0
    assert len(edge_rows(LogisticRegression().fit(X, Y), X)) == 0


def test_each_column_is_missing_alone_and_all_at_once():
    rows = missing_rows(X[:3], [0, 2])
    patterns = {tuple(row) for row in np.isnan(rows)}
    assert patterns == {(True, False, False), (False, False, True), (True, False, True)}
    assert len(missing_rows(X, [])) == 0
