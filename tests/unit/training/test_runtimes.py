"""XGBoost's boosters, and any Python object that predicts: stored, loaded, and trusted only when they are known."""

import hashlib
import pickle
import warnings
from pathlib import Path

import msgspec
import numpy as np
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from xgboost import XGBClassifier, XGBRegressor

from mainspring.adapters.mlflow.runtime import MlflowRuntime
from mainspring.adapters.python.runtime import PythonRuntime
from mainspring.adapters.tensorflow.runtime import TensorflowRuntime
from mainspring.adapters.tensorflow.settings import TensorflowSettings
from mainspring.adapters.torch.runtime import TorchRuntime
from mainspring.adapters.torch.settings import TorchSettings
from mainspring.declare.artifact import File, Model
from mainspring.errors import RefusedError, StoreError, UserCodeError
from mainspring.ports.runtime import RUNS_CODE, Card, Form, file_digest, forms, loading, read_card
from mainspring.training.fit import fit
from mainspring.training.folder import FitReport, Fitted, Workshop, write_model
from mainspring.training.native import native_scores
from mainspring.training.sets import LABEL, matrix
from mainspring.training.thresholds import edge_rows, trees_of
from unit.training.training_cases import COLUMNS, CONVERTER, frame_like, load, shape_like, shop_in, spec_like

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


def brought(file, tmp_path, task="regression", rows=X):
    """A model that was made elsewhere, through the whole of a training."""
    from_elsewhere = lambda x, y: Model(File(file))  # noqa: E731 - a trainer
    frame = frame_like(300, seed=5, task=task, holes=0.0)
    (tmp_path / "model").mkdir()
    shop = Workshop(CONVERTER, load, tmp_path / "model")
    card, report = fit(spec_like(from_elsewhere, task), shape_like(task, missing=()), frame, {}, shop)
    return card, report


def test_an_onnx_file_of_ones_own_is_served_as_it_is(tmp_path):
    model = LinearRegression().fit(FULL, Z)
    made = CONVERTER.convert(model, 3, "regression")
    (tmp_path / "mine.onnx").write_bytes(made.data)
    card, _ = brought(tmp_path / "mine.onnx", tmp_path)
    assert (card.format, card.file, card.digest) == ("onnx", "model.onnx", "")
    np.testing.assert_allclose(load(tmp_path / "model").scores(FULL), model.predict(FULL), atol=1e-5)


def test_an_mlflow_folder_is_served_by_its_python_function(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    pyfunc = pytest.importorskip("mlflow.pyfunc", reason="pip install 'mainspring[mlflow]'")
    import mlflow.models
    import mlflow.types

    kinds = {"a": "double", "b": "float", "c": "double"}
    signature = mlflow.models.ModelSignature(
        mlflow.types.Schema([mlflow.types.ColSpec(kind, name) for name, kind in kinds.items()])
    )
    script = tmp_path / "scoring.py"
    script.write_text(SCORING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library's own
        pyfunc.save_model(str(tmp_path / "mine"), python_model=str(script), signature=signature, pip_requirements=[])
        card, _ = brought(tmp_path / "mine", tmp_path)
        assert (card.format, card.file) == ("pyfunc", "model")
        np.testing.assert_allclose(load(tmp_path / "model").scores(FULL), FULL[:, 0] * 2 + FULL[:, 2], rtol=1e-6)
        (tmp_path / "model" / "model" / "scoring.py").write_text(SCORING + "# changed\n")
        with pytest.raises(RefusedError) as caught:
            load(tmp_path / "model")
    assert caught.value.code == "MS-4341"


SCORING = """
import mlflow

class Scoring(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        assert list(model_input.columns) == ["a", "b", "c"]
        return model_input["a"] * 2 + model_input["c"]

mlflow.models.set_model(Scoring())
"""


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # many archives are older than the notice
def test_a_torchscript_archive_and_an_exported_program_are_served(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch, then this test runs")

    class Twice(torch.nn.Module):
        def forward(self, rows):
            return rows[:, 0] * 2

    example = torch.from_numpy(FULL[:8])
    torch.jit.trace(Twice(), example).save(str(tmp_path / "mine.pt"))
    rows = torch.export.Dim("rows", min=1)
    torch.export.save(torch.export.export(Twice(), (example,), dynamic_shapes=({0: rows},)), str(tmp_path / "mine.pt2"))
    for file, form in (("mine.pt", "torchscript"), ("mine.pt2", "exported")):
        place = tmp_path / form
        place.mkdir()
        card, _ = brought(tmp_path / file, place)
        assert card.format == form
        np.testing.assert_allclose(load(place / "model").scores(FULL), FULL[:, 0] * 2, rtol=1e-6)


def test_a_saved_model_is_served(tmp_path):
    tensorflow = pytest.importorskip("tensorflow", reason="pip install tensorflow, then this test runs")
    module = tensorflow.Module()
    spec = tensorflow.TensorSpec([None, 3], tensorflow.float32, name="rows")
    module.ask = tensorflow.function(lambda rows: {"score": rows[:, 0] * 2}, input_signature=[spec])
    tensorflow.saved_model.save(module, str(tmp_path / "mine"), signatures=module.ask)
    card, _ = brought(tmp_path / "mine", tmp_path)
    assert card.format == "savedmodel"
    np.testing.assert_allclose(load(tmp_path / "model").scores(FULL), FULL[:, 0] * 2, rtol=1e-6)


@pytest.mark.parametrize("name", ["mine.docx", "gone.onnx", "folder"])
def test_what_is_no_model_is_refused(tmp_path, name):
    if name == "folder":
        (tmp_path / name).mkdir()
    elif name == "mine.docx":
        (tmp_path / name).write_bytes(b"PK")
    with pytest.raises(UserCodeError) as caught:
        brought(tmp_path / name, tmp_path)
    assert caught.value.code == "MS-4342"


@pytest.mark.parametrize("form", ["pyfunc", "torchscript", "exported", "savedmodel"])
def test_nothing_that_runs_code_is_loaded_unless_the_catalog_knows_it(tmp_path, form):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "MLmodel").write_text("flavors: {}")
    card = Card("m", form, "m", ("a",), "float32", "regression", digest="0" * 64)
    runtime = {"pyfunc": MlflowRuntime(), "savedmodel": TensorflowRuntime(TensorflowSettings())}
    with pytest.raises(RefusedError) as caught:
        runtime.get(form, TorchRuntime(TorchSettings())).load(tmp_path, card)
    assert caught.value.code == "MS-4341"


@pytest.mark.parametrize(
    ("error", "why"),
    [(ValueError("not one\nof ours"), "ValueError: not one"), (KeyError(), "KeyError"), (EOFError("  "), "EOFError")],
)
def test_whatever_a_library_raises_is_told_with_a_remedy(tmp_path: Path, error: Exception, why: str) -> None:
    (tmp_path / "model").write_bytes(b"x")
    with (
        pytest.raises(StoreError) as caught,
        loading(tmp_path, Card("late", "onnx", "model", ("a",), "float32", "binary")),
    ):
        raise error
    assert (caught.value.code, caught.value.why) == ("MS-4150", why)


def test_what_runs_code_is_not_handed_out_unless_the_catalog_knows_it(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"x")
    for format in RUNS_CODE:
        card = Card("late", format, "model", ("a",), "float32", "binary")
        for digest in ("", file_digest(tmp_path)):
            with pytest.raises(RefusedError) as caught, loading(tmp_path, msgspec.structs.replace(card, digest=digest)):
                pytest.fail("the block was entered")
            assert caught.value.code == "MS-4341"
        with loading(tmp_path, msgspec.structs.replace(card, digest=file_digest(tmp_path / "model"))) as path:
            assert path.read_bytes() == b"x"
