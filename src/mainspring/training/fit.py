"""Fitting: the user's trainer in, a model's folder out, converted when the conversion tells the same story."""

from __future__ import annotations

import random
import traceback
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msgspec.structs import replace

from mainspring.declare.artifact import File, Model
from mainspring.declare.frame import Frame
from mainspring.declare.model import ModelSpec
from mainspring.errors import DataError, UserCodeError
from mainspring.lazy import lazy
from mainspring.ports.runtime import Card
from mainspring.training.folder import FitReport, Fitted, Workshop, card_like, one_line, write_model
from mainspring.training.foreign import adopt
from mainspring.training.native import booster_of, native_scores
from mainspring.training.sets import LABEL, TrainingShape, empty_columns, input_dtype, matrix
from mainspring.training.split import parts, split

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    np, pa, pc = lazy("numpy"), lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = ["fit"]

_SAMPLE = 256


def fit(
    spec: ModelSpec,
    shape: TrainingShape,
    frame: Frame,
    params: Mapping[str, object],
    shop: Workshop,
) -> tuple[Card, FitReport]:
    """Train on the older part of a training set and write the model's folder.

    Args:
        spec: what was declared.
        shape: the training set's shape.
        frame: the training set.
        params: the trainer's parameters.
        shop: where the folder is made.

    Raises:
        UserCodeError: MS-4342, it returns a file that is no model;
            MS-2210, the trainer raises; MS-2211, it returns no model; MS-2212, the model gives no scores;
            MS-2213, the model cannot be stored.
        DataError: MS-2203, too few rows; MS-2204, the label has one class; MS-2800, infinity among the inputs is more
            than the model can score; MS-2801, the label is infinite.
    """
    train, judged = parts(frame, split(frame, spec.holdout, spec.gap_us))
    if shape.task == "binary":
        _two_classes(shape, train, frame, "to learn from", "a smaller holdout=")
        _two_classes(shape, judged, frame, "to judge on", "a larger holdout=")
    else:
        _finite_label(shape, frame)
    noted = _noted(shape, train)
    dtype = input_dtype(frame, shape.columns)
    model = _call(spec, _typed(train, shape.columns, dtype), _label(train, shape), params, noted)
    values = matrix(judged, shape.columns, dtype)
    if isinstance(model.estimator, File):
        foreign = adopt(model.estimator, card_like(shape, dtype), shop.folder, shop.load)
        model = replace(model, estimator=foreign)
    _gives_scores(model.estimator, values, shape, spec)
    report = FitReport(
        rows=len(train),
        estimator=_kind(model.estimator),
        metrics={name: float(value) for name, value in model.metrics.items()},
        notes={name: str(value) for name, value in model.notes.items()},
        warnings=noted,
    )
    return write_model(Fitted(shape, model.estimator, dtype, spec.tolerance), values, report, shop)


def _noted(shape: TrainingShape, train: Frame) -> tuple[str, ...]:
    return tuple(
        f"input {name!r} has no value in the {len(train)} rows to learn from: its view has no row for these keys, or "
        "none that was known in time"
        for name in empty_columns(train, shape.columns)
    )


def _typed(frame: Frame, columns: tuple[str, ...], dtype: Literal["float32", "float64"]) -> Frame:
    """The inputs with the precision they are served with, so that the trainer sees what the runtime will see."""
    table = frame.arrow().select(list(columns))
    if dtype == "float64":
        return Frame(table)
    fields = [pa.field(field.name, pa.float32() if _is_fraction(field.type) else field.type) for field in table.schema]
    return Frame(table.cast(pa.schema(fields), safe=False))


def _is_fraction(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _label(frame: Frame, shape: TrainingShape) -> Frame:
    values = frame.arrow().column(LABEL)
    return Frame({shape.label: values.cast(pa.int8()) if shape.task == "binary" else values})[shape.label]


def _two_classes(shape: TrainingShape, part: Frame, whole: Frame, what: str, otherwise: str) -> None:
    """A part has rows of both classes; another share of the rows helps only where the whole has them."""
    classes, all_classes = (frame.arrow().column(LABEL).unique().to_pylist() for frame in (part, whole))
    if len(classes) < 2:
        raise DataError(
            f"label {shape.label!r} has one class in the rows {what}",
            code="MS-2204",
            why=f"all {len(part)} rows are {bool(classes[0])}",
            fix="bring rows of both classes" + (f", or try {otherwise}" if len(all_classes) > 1 else ""),
        )


def _finite_label(shape: TrainingShape, frame: Frame) -> None:
    values = frame.arrow().column(LABEL)
    if count := _infinities(values):
        raise DataError(
            f"label {shape.label!r} is infinite",
            code="MS-2801",
            why=f"it is in {count:,} of {len(values):,} rows, and no error can be measured against it",
            fix=f'keep infinity out where rows come in: checks=[between("{shape.label}", -1e300, 1e300, '
            'on_fail="quarantine")]',
        )


def _infinities(values: pa.ChunkedArray) -> int:
    return (pc.sum(pc.is_inf(values)).as_py() or 0) if pa.types.is_floating(values.type) else 0


def _told(counts: Mapping[str, int], rows: int) -> str:
    """Which columns hold infinity; empty where none does."""
    return ", ".join(
        f"{name!r} holds infinity in {count:,} of {rows:,} rows" for name, count in counts.items() if count
    )


def _call(spec: ModelSpec, x: Frame, y: Frame, params: Mapping[str, object], noted: tuple[str, ...]) -> Model:
    random.seed(spec.seed)
    np.random.seed(spec.seed % 2**32)
    try:
        found: object = spec.function(x, y, **params)
    except MemoryError:
        raise  # the engine knows what to say of it
    except Exception as error:
        given = x.arrow()
        infinite = _told({name: _infinities(given.column(name)) for name in given.column_names}, len(given))
        raise UserCodeError(
            f"the trainer {spec.function.__name__!r} failed",
            code="MS-2210",
            why="; ".join([one_line(error), *filter(None, [infinite]), *noted]),
            origin=_line_of(error, spec),
            fix="mend the trainer; mainspring logs shows what it printed"
            if not infinite
            else 'keep infinity out where rows come in (checks=[between(..., on_fail="quarantine")]), or mend it',
        ) from error
    if not isinstance(found, Model):
        raise UserCodeError(
            f"the trainer {spec.function.__name__!r} returned {type(found).__name__}, not a Model",
            code="MS-2211",
            origin=_line_of(None, spec),
            fix="return Model(estimator)",
        )
    return found


def _line_of(error: BaseException | None, spec: ModelSpec) -> str:
    """The last line of the trainer's own file that the error came through, or where the trainer begins."""
    code = spec.function.__code__
    line = code.co_firstlineno
    if error is not None:
        own = [item for item in traceback.extract_tb(error.__traceback__) if item.filename == code.co_filename]
        line = (own[-1].lineno or line) if own else line
    return f"{Path(code.co_filename).name}:{line}"


def _kind(estimator: object) -> str:
    steps = getattr(estimator, "steps", None)
    if steps:
        return " > ".join(type(step).__name__ for _, step in steps)
    return type(estimator).__name__


def _gives_scores(estimator: Any, values: Any, shape: TrainingShape, spec: ModelSpec) -> None:
    """The model scores the columns it will be asked with: one number a row, a probability for a boolean label.

    Rows with infinity in them are asked about apart: what cannot score those may be sound.

    Raises:
        UserCodeError: MS-2212.
        DataError: MS-2800, it scores no row that holds infinity.
    """
    infinite = np.isinf(values)
    odd = infinite.any(axis=1)
    problem = _missing_method(estimator, shape.task) or _bad_scores(estimator, values[~odd][:_SAMPLE], shape)
    if problem:
        raise UserCodeError(
            f"the model of trainer {spec.function.__name__!r} gives no scores",
            code="MS-2212",
            why=problem,
            origin=_line_of(None, spec),
            fix="return a fitted classifier for a boolean label, a regressor for a number; fit it on x.numpy()",
        )
    problem = _bad_scores(estimator, values[odd][:_SAMPLE], shape)
    if problem:
        counts = dict(zip(shape.columns, infinite.sum(axis=0).tolist(), strict=True))
        worst = max(counts, key=counts.__getitem__)
        raise DataError(
            f"the model of trainer {spec.function.__name__!r} gives no scores for rows that hold infinity",
            code="MS-2800",
            why=f"{_told(counts, len(values))}; {problem}",
            origin=_line_of(None, spec),
            fix=f'keep infinity out where rows come in: checks=[between("{worst}", -1e300, 1e300, '
            'on_fail="quarantine")], or train what takes it, as gradient boosting does',
        )


def _missing_method(estimator: Any, task: str) -> str:
    plain = booster_of(estimator) is estimator or not hasattr(estimator, "get_params")
    wanted = "predict" if plain or task != "binary" else "predict_proba"
    return "" if hasattr(estimator, wanted) else f"{type(estimator).__name__} has no {wanted}, and the label is {task}"


def _bad_scores(estimator: Any, rows: Any, shape: TrainingShape) -> str:
    """What is wrong with the scores of some rows, empty when nothing is or there is no row."""
    classes = [float(item) for item in getattr(estimator, "classes_", (0, 1))] if shape.task == "binary" else [0.0, 1.0]
    if classes != [0.0, 1.0]:
        return f"it knows the classes {classes}, not 0 and 1"
    if not len(rows):
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns when it was fitted with names and is asked without
            scores = native_scores(estimator, rows, shape.task)
    except Exception as error:  # an estimator may raise anything when it is asked
        return f"asked for {len(rows)} rows of {len(shape.columns)} columns it raises {one_line(error)}"
    if scores.shape != (len(rows),):
        return f"asked for {len(rows)} rows it gives {scores.shape}"
    if not np.isfinite(scores).all():
        return f"{int((~np.isfinite(scores)).sum())} of {len(rows)} scores are not finite"
    if shape.task == "binary" and not ((scores >= 0) & (scores <= 1)).all():
        return f"scores lie in [{scores.min():.3g}, {scores.max():.3g}], and probabilities are wanted"
    return ""
