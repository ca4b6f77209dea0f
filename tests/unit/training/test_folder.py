"""Model folders: each kind of estimator comes back as it was, as ONNX where that is the same, else natively."""

import io
import zipfile

import msgspec
import numpy as np
import onnx
import pytest
import skops.io
from lightgbm import Dataset, LGBMClassifier, LGBMRegressor, train
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from mainspring.errors import UserCodeError
from mainspring.ports.converter import Converted
from mainspring.ports.runtime import read_card
from mainspring.training.folder import FitReport, Fitted, read_report, write_model
from mainspring.training.native import canonical_skops, native_scores
from mainspring.training.sets import LABEL, matrix
from unit.training.training_cases import COLUMNS, CONVERTER, frame_like, load, shape_like, shop_in

FRAME = frame_like(700, seed=5)
X = matrix(FRAME, COLUMNS, "float32")
FULL = np.nan_to_num(X)
Y = np.asarray(FRAME.arrow().column(LABEL)).astype(np.int8)
Z = FULL[:, 0] * 2 + FULL[:, 1]


def write(estimator, tmp_path, task="binary", rows=X, tolerance=1e-5, converter=CONVERTER, loader=load, missing=("c",)):
    fitted = Fitted(shape_like(task, missing=missing), estimator, "float32", tolerance)
    return write_model(fitted, rows, FitReport(len(rows), "x"), shop_in(tmp_path / "model", converter, loader))


def scores_of(tmp_path, rows=X):
    return load(tmp_path / "model").scores(rows)


BINARY = [
    HistGradientBoostingClassifier(max_iter=10),
    RandomForestClassifier(10, random_state=0),
    ExtraTreesClassifier(10, random_state=0),
    DecisionTreeClassifier(random_state=0),
    LGBMClassifier(n_estimators=10, verbose=-1),
    make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()),
    make_pipeline(SimpleImputer(), LGBMClassifier(n_estimators=10, verbose=-1)),
    make_pipeline(SimpleImputer(), GradientBoostingClassifier(n_estimators=10)),
]


@pytest.mark.parametrize(
    "estimator", BINARY, ids=lambda item: "-".join(s[0] for s in getattr(item, "steps", [(type(item).__name__,)]))
)
def test_classifiers_become_onnx_that_scores_the_same_also_where_values_are_missing(estimator, tmp_path):
    estimator.fit(X, Y)
    card, report = write(estimator, tmp_path)
    assert (card.format, card.converted, card.file) == ("onnx", True, "model.onnx")
    assert report.parity is not None
    assert report.parity.passed
    assert report.parity.missing > 0
    found = scores_of(tmp_path)
    np.testing.assert_allclose(found, native_scores(estimator, X, "binary"), atol=1e-5)
    model = onnx.load(tmp_path / "model" / "model.onnx")
    assert [output.name for output in model.graph.output] == [card.output]


@pytest.mark.parametrize(
    "estimator",
    [
        HistGradientBoostingRegressor(max_iter=10),
        RandomForestRegressor(10, random_state=0),
        LGBMRegressor(n_estimators=10, verbose=-1),
        Ridge(),
    ],
    ids=lambda item: type(item).__name__,
)
def test_regressors_become_onnx(estimator, tmp_path):
    estimator.fit(FULL, Z)
    card, _ = write(estimator, tmp_path, "regression", FULL, missing=())
    assert card.format == "onnx"
    np.testing.assert_allclose(scores_of(tmp_path, FULL), estimator.predict(FULL), atol=1e-5)


def test_a_booster_becomes_onnx_and_without_a_converter_its_own_text(tmp_path):
    booster = train({"objective": "binary", "verbose": -1}, Dataset(X, Y), 10)
    assert write(booster, tmp_path)[0].format == "onnx"
    other = tmp_path / "other"
    other.mkdir()
    card, report = write(booster, other, converter=None)
    assert (card.format, card.file, card.why) == ("lightgbm", "model.txt", "no converter is installed")
    assert report.parity is None
    np.testing.assert_array_equal(scores_of(other), booster.predict(X))


def test_boosting_behind_a_scaler_is_not_at_par_and_stays_native(tmp_path):
    model = make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=20)).fit(X * 1000 + 3, Y)
    card, report = write(model, tmp_path, rows=(X * 1000 + 3).astype(np.float32))
    assert (card.format, card.converted) == ("skops", False)
    assert report.parity is not None
    assert not report.parity.passed
    assert card.why.startswith("parity fails: 700 rows")
    assert not (tmp_path / "model" / "model.onnx").exists()


def test_a_model_that_onnx_cannot_hold_stays_native_and_says_why(tmp_path):
    model = make_pipeline(FunctionTransformer(np.abs), HistGradientBoostingClassifier(max_iter=5)).fit(X, Y)
    card, _ = write(model, tmp_path)
    assert card.format == "skops"
    assert card.why.startswith("ONNX cannot hold it: ")
    assert read_card(tmp_path / "model") == card
    np.testing.assert_array_equal(scores_of(tmp_path), native_scores(model, X, "binary"))


class Planted:
    """A converter with a planted error: one leaf, or one threshold, or missing values, are off."""

    def __init__(self, spoil):
        self.spoil = spoil

    def convert(self, estimator, columns, task):
        made = CONVERTER.convert(estimator, columns, task)
        assert isinstance(made, Converted)
        model = onnx.load_from_string(made.data)
        (node,) = [node for node in model.graph.node if node.op_type.startswith("TreeEnsemble")]
        self.spoil({item.name: item for item in node.attribute})
        return msgspec.structs.replace(made, data=model.SerializeToString())


def spoil_leaf(found):
    found["class_weights"].floats[0] += 0.01


def spoil_threshold(found):
    """The first threshold one ulp up: what rounding to the nearest float32 does to every other one."""
    values = found["nodes_values"].floats
    values[0] = float(np.nextafter(np.float32(values[0]), np.float32(np.inf)))


def spoil_missing(found):
    tracks = found["nodes_missing_value_tracks_true"].ints
    flipped = [1 - item for item in tracks]
    del tracks[:]
    tracks.extend(flipped)


@pytest.mark.parametrize("spoil", [spoil_leaf, spoil_threshold, spoil_missing])
def test_a_converter_with_a_planted_error_is_caught_and_the_native_model_kept(spoil, tmp_path):
    model = HistGradientBoostingClassifier(max_iter=10).fit(X, Y)
    card, report = write(model, tmp_path, converter=Planted(spoil))
    assert (card.format, card.converted) == ("skops", False)
    assert report.parity is not None
    assert report.parity.off > 0
    np.testing.assert_array_equal(scores_of(tmp_path), native_scores(model, X, "binary"))


def test_a_declared_tolerance_lets_a_small_difference_pass(tmp_path):
    model = HistGradientBoostingClassifier(max_iter=10).fit(X, Y)
    card, report = write(model, tmp_path, converter=Planted(spoil_leaf), tolerance=0.1)
    assert report.parity is not None
    assert (card.format, report.parity.off) == ("onnx", 0)
    assert report.parity.worst > 1e-4


def test_a_converted_model_that_does_not_run_is_one_more_reason_for_the_native_one(tmp_path):
    class Broken:
        def convert(self, estimator, columns, task):
            return Converted(b"no model", "probabilities")

    card, _ = write(HistGradientBoostingClassifier(max_iter=3).fit(X, Y), tmp_path, converter=Broken())
    assert card.format == "skops"
    assert card.why.startswith("the converted model does not run: ")


class Mine(ClassifierMixin, BaseEstimator):
    """A user's own estimator."""

    def fit(self, x, y):
        self.classes_ = np.array([0, 1])
        return self

    def predict_proba(self, x):
        p = 1 / (1 + np.exp(-np.nan_to_num(x[:, 0])))
        return np.column_stack([1 - p, p])


def test_an_estimator_of_the_users_own_is_stored_when_its_type_is_trusted_and_refused_when_not(tmp_path):
    model = Mine().fit(X, Y)
    with pytest.raises(UserCodeError) as caught:
        write(model, tmp_path)
    assert caught.value.code == "MS-2213"
    assert "not trusted" in caught.value.why
    assert "Mine" in caught.value.why
    other = tmp_path / "other"
    other.mkdir()
    card, _ = write(model, other, loader=lambda folder: load(folder, trust=(Mine.__module__,)))
    assert card.format == "skops"


def test_a_model_that_cannot_be_written_down_is_refused(tmp_path):
    model = Mine().fit(X, Y)
    model.callback = (item for item in ())
    with pytest.raises(UserCodeError) as caught:
        write(model, tmp_path)
    assert caught.value.code == "MS-2213"
    assert "skops" in caught.value.why


def test_a_model_that_comes_back_another_is_refused(tmp_path):
    class Off:
        def __init__(self, inner):
            self.inner = inner

        def scores(self, rows):
            return self.inner.scores(rows) + 1e-6

    with pytest.raises(UserCodeError) as caught:
        write(Mine().fit(X, Y), tmp_path, loader=lambda folder: Off(load(folder, trust=(Mine.__module__,))))
    assert "loaded again it scores otherwise" in caught.value.why


def test_a_model_that_takes_no_missing_values_is_warned_of(tmp_path):
    _, report = write(LogisticRegression().fit(FULL, Y), tmp_path, rows=FULL)
    assert len(report.warnings) == 1
    assert "takes no missing values" in report.warnings[0]
    other = tmp_path / "other"
    other.mkdir()
    _, report = write(LogisticRegression().fit(FULL, Y), other, rows=FULL, missing=())
    assert report.warnings == ()
    assert read_report(other / "model") == report


@pytest.mark.parametrize(
    "make",
    [
        lambda: HistGradientBoostingClassifier(max_iter=5),
        lambda: LGBMClassifier(n_estimators=5, verbose=-1),
        lambda: make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=5)),
        lambda: CalibratedClassifierCV(HistGradientBoostingClassifier(max_iter=3), cv=2),
    ],
    ids=["onnx", "lightgbm", "pipeline", "calibrated"],
)
@pytest.mark.parametrize("converter", [CONVERTER, None], ids=["converted", "native"])
def test_equal_models_are_equal_bytes(make, converter, tmp_path):
    folders = []
    for number in range(2):
        np.random.seed(0)
        junk = [object() for _ in range(1000 * number)]
        folder = tmp_path / str(number)
        folder.mkdir()
        write(make().fit(X, Y), folder, converter=converter)
        folders.append({path.name: path.read_bytes() for path in (folder / "model").iterdir()})
        del junk
    assert folders[0] == folders[1]


def test_a_skops_file_with_other_numbers_holds_the_same_estimator():
    model = make_pipeline(SimpleImputer(), CalibratedClassifierCV(RandomForestClassifier(3, random_state=0), cv=2))
    data = skops.io.dumps(model.fit(X, Y))
    plain = canonical_skops(data)
    assert canonical_skops(plain) == plain
    again = skops.io.loads(plain, trusted=skops.io.get_untrusted_types(data=plain))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    with zipfile.ZipFile(io.BytesIO(plain)) as archive:
        assert {item.date_time for item in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert max(len(item.filename) for item in archive.infolist()) < 15
