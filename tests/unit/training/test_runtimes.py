"""XGBoost's boosters, and any Python object that predicts: stored, loaded, and trusted only when they are known."""

import hashlib
import pickle

import msgspec
import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from xgboost import XGBClassifier, XGBRegressor

from mainspring.adapters.python.runtime import PythonRuntime
from mainspring.errors import RefusedError, StoreError, UserCodeError
from mainspring.ports.runtime import Card, Form, forms, read_card
from mainspring.training.folder import FitReport, Fitted, write_model
from mainspring.training.native import native_scores
from mainspring.training.sets import LABEL, matrix
from mainspring.training.thresholds import edge_rows, trees_of
from unit.training.training_cases import COLUMNS, CONVERTER, frame_like, load, shape_like, shop_in

FRAME = frame_like(700, seed=5)
X = matrix(FRAME, COLUMNS, "float32")
FULL = np.nan_to_num(X)
Y = np.asarray(FRAME.arrow().column(LABEL)).astype(np.int8)
Z = FULL[:, 0] * 2 + FULL[:, 1]


def write(estimator, tmp_path, task="binary", rows=X, converter=CONVERTER):
    fitted = Fitted(shape_like(task, missing=("c",)), estimator, "float32", 1e-5)
    return write_model(fitted, rows, FitReport(len(rows), "x"), shop_in(tmp_path / "model", converter))


def each_form(folder):
    """The scores of every form of a model, by its format."""
    runtime = {}
    for card in forms(read_card(folder)):
        (folder / "card.json").write_bytes(msgspec.json.encode(card))
        runtime[card.format] = load(folder)
    return runtime


def test_xgboost_is_kept_as_onnx_and_as_itself_and_both_score_the_same(tmp_path):
    model = XGBClassifier(n_estimators=20, max_depth=4).fit(X, Y)
    card, report = write(model, tmp_path)
    assert (card.format, card.also) == ("onnx", (Form("xgboost", "model.ubj"),))
    assert report.parity is not None
    assert report.parity.edges > 0
    found = each_form(tmp_path / "model")
    np.testing.assert_array_equal(found["xgboost"].scores(X), native_scores(model, X, "binary"))
    np.testing.assert_allclose(found["onnx"].scores(X), native_scores(model, X, "binary"), atol=1e-5)


@pytest.mark.parametrize("raw", [False, True])
def test_xgboost_without_a_converter_is_its_own_file(tmp_path, raw):
    model = XGBRegressor(n_estimators=10).fit(X, Z)
    card, _ = write(model.get_booster() if raw else model, tmp_path, "regression", converter=None)
    assert (card.format, card.file) == ("xgboost", "model.ubj")
    np.testing.assert_array_equal(load(tmp_path / "model").scores(X), model.predict(X).astype(np.float64))


def test_training_that_stopped_early_is_served_with_its_best_round(tmp_path):
    model = XGBClassifier(n_estimators=200, learning_rate=1.0, early_stopping_rounds=3)
    model.fit(X[:500], Y[:500], eval_set=[(X[500:], Y[500:])], verbose=False)
    assert model.get_booster().num_boosted_rounds() > model.best_iteration + 1
    write(model, tmp_path, converter=None)
    np.testing.assert_array_equal(load(tmp_path / "model").scores(X), native_scores(model, X, "binary"))


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_rows_beside_xgboosts_splits_reach_both_sides_of_them(seed, depth):
    draw = np.random.default_rng(seed)
    rows = draw.normal(size=(80, 2)).astype(np.float32)
    model = xgboost.train(
        {"max_depth": depth, "seed": 0}, xgboost.DMatrix(rows, draw.normal(size=80)), num_boost_round=1
    )
    (tree,) = trees_of(model)
    beside = edge_rows(model, rows)
    leaves = model.predict(xgboost.DMatrix(beside), pred_leaf=True).ravel()
    for row, leaf in zip(beside, leaves, strict=True):  # our walk of the tree against XGBoost's
        node = 0
        while tree.left[node] >= 0:
            goes_left = row[tree.column[node]] <= tree.threshold[node]
            node = tree.left[node] if goes_left else tree.right[node]
        assert node == leaf
    inner = int((tree.left >= 0).sum())
    assert len(set(leaves.tolist())) == inner + 1 if inner else not len(beside)


class Mean:
    """Any object with ``predict``; it has nothing of scikit-learn's."""

    def __init__(self, by=1.0):
        self.by = by

    def predict(self, rows):
        return 1 / (1 + np.exp(-self.by * np.nan_to_num(rows).mean(axis=1)))


class Told(Mean):
    def predict(self, rows, parameters):
        return super().predict(rows) * float(parameters.get("factor", 1))


def test_any_object_that_predicts_is_stored_and_comes_back(tmp_path):
    card, _ = write(Mean(2.0), tmp_path)
    assert (card.format, card.file) == ("pickle", "model.pickle")
    assert card.digest == hashlib.sha256((tmp_path / "model" / "model.pickle").read_bytes()).hexdigest()
    np.testing.assert_array_equal(load(tmp_path / "model").scores(X), Mean(2.0).predict(X))


def test_an_object_may_be_told_what_the_caller_has_set(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    data = pickle.dumps(Told())
    (folder / "m").write_bytes(data)
    card = Card("m", "pickle", "m", ("a", "b", "c"), "float32", "regression", digest=hashlib.sha256(data).hexdigest())
    predictor = PythonRuntime().load(folder, card)
    assert predictor.takes_parameters
    np.testing.assert_array_equal(predictor.scores(X, {"factor": 2}), predictor.scores(X) * 2)


class Bomb:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("it was unpickled",)


@pytest.mark.parametrize("claimed", ["", "0" * 64])
def test_a_pickle_that_nobody_vouches_for_is_not_even_read(tmp_path, claimed):
    (tmp_path / "m").write_bytes(pickle.dumps(Bomb()))
    card = Card("m", "pickle", "m", ("a",), "float32", "regression", digest=claimed)
    with pytest.raises(RefusedError) as caught:
        PythonRuntime().load(tmp_path, card)
    assert caught.value.code == "MS-4341"


def test_an_object_whose_class_is_gone_says_so(tmp_path):
    data = b"cno_such_module\nMean\n."
    (tmp_path / "m").write_bytes(data)
    card = Card("m", "pickle", "m", ("a",), "float32", "regression", digest=hashlib.sha256(data).hexdigest())
    with pytest.raises(StoreError) as caught:
        PythonRuntime().load(tmp_path, card)
    assert "no_such_module" in caught.value.why


def test_an_object_that_cannot_be_pickled_is_refused(tmp_path):
    model = Mean()
    model.callback = lambda: None
    with pytest.raises(UserCodeError) as caught:
        write(model, tmp_path)
    assert caught.value.code == "MS-2213"
