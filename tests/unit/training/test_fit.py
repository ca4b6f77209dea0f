"""Fitting: what a trainer may do wrong, and what becomes of a model that was fitted well."""

import random

import lightgbm
import numpy as np
import pyarrow as pa
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression

from mainspring import Frame, Model
from mainspring.errors import DataError, UserCodeError
from mainspring.training.fit import fit
from mainspring.training.folder import read_report
from mainspring.training.sets import LABEL
from unit.training.training_cases import COLUMNS, fitting, frame_like, shape_like, shop_in, spec_like

FRAME = frame_like(600)


def fit_with(function, tmp_path, frame=FRAME, task="binary", params=None, **more):
    shape = shape_like(task)
    return fit(spec_like(function, task, **more), shape, frame, params or {}, shop_in(tmp_path / "model"))


def refused(function, tmp_path, kind=UserCodeError, **more):
    with pytest.raises(kind) as caught:
        fit_with(function, tmp_path, **more)
    return caught.value


# -- trainers that go wrong -------------------------------------------------------------------------------------------


def test_a_trainer_that_raises_is_named_with_its_line(tmp_path):
    def late(x, y):
        return 1 / 0

    error = refused(late, tmp_path)
    assert error.code == "MS-2210"
    assert "ZeroDivisionError" in error.why
    assert error.origin == f"test_fit.py:{late.__code__.co_firstlineno + 1}"


def test_a_trainer_that_raises_inside_a_library_is_still_named_by_its_own_line(tmp_path):
    def late(x, y):
        return Model(LogisticRegression().fit(x.numpy(), y.numpy()))  # c has holes

    error = refused(late, tmp_path)
    assert (error.code, error.origin) == ("MS-2210", f"test_fit.py:{late.__code__.co_firstlineno + 1}")
    assert "NaN" in error.why


def test_of_what_a_library_says_one_line_is_told(tmp_path):
    def late(x, y):
        raise ValueError("Expected 2D array, got 1D array instead:\narray=[" + "0.1 " * 5000 + "].\nReshape your data.")

    error = refused(late, tmp_path)
    assert error.why == "ValueError: Expected 2D array, got 1D array instead"
    assert len(error.lines().splitlines()) == 4


def test_one_input_is_a_matrix_and_the_label_a_vector(tmp_path):
    shape = shape_like("binary", columns=("a",), missing=())
    seen = []

    def late(x, y):
        seen.append((x.numpy().shape, y.numpy().shape, x.columns))
        return Model(LogisticRegression().fit(x.numpy(), y.numpy()))

    card, _ = fit(spec_like(late, "binary"), shape, FRAME, {}, shop_in(tmp_path / "model"))
    ((inputs, label, names),) = seen
    assert (inputs, names) == ((label[0], 1), ["a"])
    assert len(label) == 1
    assert card.converted


def test_a_trainer_that_runs_out_of_memory_is_left_to_the_engine(tmp_path):
    def late(x, y):
        raise MemoryError

    refused(late, tmp_path, MemoryError)


@pytest.mark.parametrize("found", [None, LogisticRegression(), 0.5, "model"])
def test_a_trainer_must_return_a_model(tmp_path, found):
    error = refused(lambda x, y: found, tmp_path)
    assert error.code == "MS-2211"
    assert type(found).__name__ in error.what


class Wrong:
    """An estimator whose scores are what a test says."""

    def __init__(self, scores=None, classes=(0, 1)):
        self.scores = scores
        self.classes_ = np.array(classes)

    def predict(self, x):
        return self.predict_proba(x)[:, 1]

    def predict_proba(self, x):
        if self.scores is None:
            raise RuntimeError("not fitted")
        return np.column_stack([np.zeros(len(x)), np.full(len(x), self.scores)])


@pytest.mark.parametrize(
    ("estimator", "why"),
    [
        (object(), "object has no predict, "),
        (HistGradientBoostingRegressor().fit(np.zeros((30, 3)), np.zeros(30)), "has no predict_proba"),
        (Wrong(), "RuntimeError: not fitted"),
        (Wrong(1.5), "scores lie in [1.5, 1.5]"),
        (Wrong(np.nan), "not finite"),
        (Wrong(0.5, (0, 1, 2)), "it knows the classes [0.0, 1.0, 2.0]"),
        (Wrong(0.5, (0,)), "it knows the classes [0.0]"),
        (LogisticRegression(), "NotFittedError"),
        (HistGradientBoostingClassifier().fit(np.zeros((30, 2)), np.arange(30) % 2), "features"),
    ],
    ids=["nothing", "regressor", "raises", "range", "nan", "three", "one", "unfitted", "columns"],
)
def test_a_model_must_give_one_probability_a_row(tmp_path, estimator, why):
    error = refused(lambda x, y: Model(estimator), tmp_path)
    assert error.code == "MS-2212"
    assert why in error.why


def test_a_booster_of_raw_scores_is_refused(tmp_path):
    def late(x, y):
        return Model(
            lightgbm.train({"objective": "regression", "verbose": -1}, lightgbm.Dataset(3 * x.numpy(), y.numpy() * 9))
        )

    assert "probabilities are wanted" in refused(late, tmp_path).why


# -- data that cannot be learned from ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "to", "what", "fix"),
    [
        (0, 480, "to learn from", ", or try a smaller holdout="),
        (480, 600, "to judge on", ", or try a larger holdout="),
        (0, 600, "to learn from", ""),
    ],
)
def test_a_label_of_one_class_is_refused_before_the_trainer_is_called(tmp_path, since, to, what, fix):
    label = np.arange(600) % 2.0
    label[since:to] = 1.0
    table = FRAME.arrow()
    frame = Frame(table.set_column(table.column_names.index(LABEL), LABEL, pa.array(label)))
    error = refused(fitting(None), tmp_path, DataError, frame=frame)
    assert error.code == "MS-2204"
    assert what in error.what
    assert "are True" in error.why
    assert error.fix == f"bring rows of both classes{fix}"


def with_infinity(column, places, task="binary"):
    table = frame_like(600, task=task).arrow()
    values = table.column(column).to_numpy(zero_copy_only=False).copy()
    values[places] = np.inf
    return Frame(table.set_column(table.column_names.index(column), column, pa.array(values, from_pandas=False)))


class Sums:
    """Sound where its inputs are finite."""

    classes_ = np.array([0, 1])

    def predict(self, x):
        return self.predict_proba(x)[:, 1]

    def predict_proba(self, x):
        odd = x[:, 0] * 0.0
        return np.column_stack([0.5 - odd, 0.5 + odd])


@pytest.mark.parametrize("places", [[500], [5, 599], list(range(480, 600))], ids=["sample", "beyond", "all"])
def test_infinity_among_the_inputs_is_the_datas_fault_not_the_models(tmp_path, places):
    error = refused(lambda x, y: Model(Sums()), tmp_path, DataError, frame=with_infinity(COLUMNS[0], places))
    assert error.code == "MS-2800"
    count = sum(place >= 480 for place in places)
    assert (
        f"'{COLUMNS[0]}' holds infinity in {count} of 120 rows; {count} of {count} scores are not finite" in error.why
    )
    assert f'between("{COLUMNS[0]}", -1e300, 1e300, on_fail="quarantine")' in error.fix


def test_a_model_that_takes_infinity_is_trained_on_it(tmp_path):
    booster = fitting(HistGradientBoostingClassifier(max_iter=5))
    fit_with(booster, tmp_path, frame=with_infinity(COLUMNS[0], [3, 500, 599]))


def test_a_trainer_that_fails_over_infinity_is_told_so(tmp_path):
    def late(x, y):
        return Model(LogisticRegression().fit(np.nan_to_num(x.numpy(), nan=0.0, posinf=np.inf), y.numpy()))

    error = refused(late, tmp_path, frame=with_infinity(COLUMNS[0], [3]))
    assert error.code == "MS-2210"
    assert f"'{COLUMNS[0]}' holds infinity in 1 of 480 rows" in error.why
    assert error.fix.startswith("keep infinity out")


def test_an_infinite_label_is_refused_before_the_trainer_is_called(tmp_path):
    frame = with_infinity(LABEL, [3, 400], "regression")
    error = refused(fitting(None), tmp_path, DataError, frame=frame, task="regression")
    assert (error.code, error.why.partition(",")[0]) == ("MS-2801", "it is in 2 of 600 rows")


def test_too_few_rows_are_refused(tmp_path):
    assert refused(fitting(None), tmp_path, DataError, frame=frame_like(40)).code == "MS-2203"


def test_an_input_without_a_value_is_warned_of(tmp_path):
    table = FRAME.arrow()
    frame = Frame(table.set_column(table.column_names.index("c"), "c", pa.nulls(600, pa.float64())))
    _, report = fit_with(fitting(lightgbm.LGBMClassifier(n_estimators=3, verbose=-1)), tmp_path, frame=frame)
    assert len(report.warnings) == 1
    assert "input 'c' has no value in the 480 rows" in report.warnings[0]
    (tmp_path / "again").mkdir()
    error = refused(lambda x, y: 1 / 0, tmp_path / "again", frame=frame)
    assert report.warnings[0] in error.why


# -- what a trainer is handed -----------------------------------------------------------------------------------------


def test_the_trainer_gets_the_older_rows_its_parameters_and_the_label_as_0_and_1(tmp_path):
    seen = {}

    def late(x, y, depth=3):
        seen.update(x=x, y=y, depth=depth)
        return Model(HistGradientBoostingClassifier(max_depth=depth, max_iter=3).fit(x.numpy(), y.numpy()))

    fit_with(late, tmp_path, params={"depth": 2}, holdout=0.25, gap="10h")
    assert seen["depth"] == 2
    assert (seen["x"].columns, seen["y"].columns) == (list(COLUMNS), ["late"])
    assert len(seen["x"]) == len(seen["y"]) == 440
    assert str(seen["y"].arrow().schema.field("late").type) == "int8"
    assert {str(field.type) for field in seen["x"].arrow().schema} == {"float"}
    assert seen["x"].arrow().column("c").null_count > 0


def test_whole_numbers_that_float32_would_blur_make_the_model_a_native_one(tmp_path):
    table = FRAME.arrow()
    wide = pa.array(np.arange(600) + 2**30)
    frame = Frame(table.set_column(table.column_names.index("b"), "b", wide))
    card, _ = fit_with(fitting(HistGradientBoostingClassifier(max_iter=3)), tmp_path, frame=frame)
    assert (card.dtype, card.format, card.converted) == ("float64", "skops", False)
    assert "not exact in float32" in card.why


def test_the_same_seed_gives_the_same_folder_and_another_another(tmp_path):
    def late(x, y):
        chosen = np.random.permutation(len(x))[:300]
        return Model(
            HistGradientBoostingClassifier(max_iter=3 + random.randrange(1)).fit(x.numpy()[chosen], y.numpy()[chosen])
        )

    folders = []
    for number, seed in enumerate((7, 7, 8)):
        folder = tmp_path / str(number)
        folder.mkdir()
        fit_with(late, folder, seed=seed)
        folders.append({path.name: path.read_bytes() for path in sorted((folder / "model").iterdir())})
    assert folders[0] == folders[1] != folders[2]
    assert set(folders[0]) == {"model.onnx", "model.skops", "card.json", "training.json"}


def test_what_the_trainer_measures_and_says_is_kept(tmp_path):
    def late(x, y):
        model = HistGradientBoostingClassifier(max_iter=3).fit(x.numpy(), y.numpy())
        return Model(model, metrics={"loss": np.float64(0.25)}, notes={"why": "because"})

    _, report = fit_with(late, tmp_path)
    assert read_report(tmp_path / "model") == report
    assert (report.metrics, report.notes, report.rows) == ({"loss": 0.25}, {"why": "because"}, 480)
    assert report.estimator == "HistGradientBoostingClassifier"


def test_a_regressor_for_a_number(tmp_path):
    card, report = fit_with(
        fitting(HistGradientBoostingRegressor(max_iter=5)),
        tmp_path,
        frame=frame_like(600, task="regression"),
        task="regression",
    )
    assert (card.format, card.task) == ("onnx", "regression")
    assert report.parity is not None
    assert report.parity.passed
