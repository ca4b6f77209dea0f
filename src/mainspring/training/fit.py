"""Fitting: the user's trainer in, a model's folder out, converted when the conversion tells the same story."""

from __future__ import annotations

import importlib.metadata
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from mainspring.declare.artifact import Model
from mainspring.declare.frame import Frame
from mainspring.declare.model import ModelSpec
from mainspring.errors import DataError, UserCodeError
from mainspring.lazy import lazy
from mainspring.ports.converter import Converted, Converter
from mainspring.ports.runtime import CARD, Card, Predictor
from mainspring.training.parity import ParityReport, parity
from mainspring.training.sets import LABEL, TrainingShape, input_dtype, matrix, parts, split

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import skops.io as skops_io
else:
    np, pa, skops_io = lazy("numpy"), lazy("pyarrow"), lazy("skops.io")

__all__ = ["Load", "fit", "native_scores"]

Load = Any
"""``Services.predictor``: a folder to a `Predictor`."""

_LIBRARIES = ("numpy", "scikit-learn", "lightgbm", "onnx", "onnxruntime", "skl2onnx", "skops")


def fit(
    spec: ModelSpec,
    shape: TrainingShape,
    frame: Frame,
    converter: Converter | None,
    load: Load,
    folder: Path,
    params: Mapping[str, object],
) -> Card:
    """Train on the older part of a training set and write the model's folder.

    Args:
        spec: what was declared.
        shape: the training set's shape.
        frame: the training set.
        converter: turns estimators into ONNX, or None.
        load: loads a folder, to check what was written.
        folder: where to write; it exists and is empty.
        params: the trainer's parameters.

    Raises:
        UserCodeError: MS-2210, the trainer raises; MS-2211, it returns no model.
        DataError: MS-2203; MS-2204, the label has one class.
    """
    how = split(frame, spec.holdout, spec.gap_us)
    train, judged = parts(frame, how)
    if shape.task == "binary":
        _two_classes(shape, train, "to learn from")
        _two_classes(shape, judged, "to judge on")
    dtype = input_dtype(frame, shape.columns)
    model = _call(spec, _typed(train, shape.columns, dtype), _label(train, shape), params)
    _scores_at_all(model, shape, spec)
    return _store(spec, shape, model, matrix(judged, shape.columns, dtype), dtype, converter, load, folder)


def _typed(frame: Frame, columns: tuple[str, ...], dtype: str) -> Frame:
    """The inputs with the precision they are served with, so that the trainer sees what the runtime will see."""
    table = frame.arrow().select(list(columns))
    if dtype == "float64":
        return Frame(table)
    fields = [
        pa.field(field.name, pa.float32() if pa.types.is_floating(field.type) else field.type) for field in table.schema
    ]
    return Frame(table.cast(pa.schema(fields)))


def _label(frame: Frame, shape: TrainingShape) -> Frame:
    values = frame.arrow().column(LABEL)
    return Frame({shape.label: values.cast(pa.int8()) if shape.task == "binary" else values})


def _two_classes(shape: TrainingShape, frame: Frame, what: str) -> None:
    classes = set(frame.arrow().column(LABEL).unique().to_pylist())
    if len(classes) < 2:
        raise DataError(
            f"label {shape.label!r} has one class in the rows {what}",
            code="MS-2204",
            why=f"all {len(frame)} rows are {bool(classes.pop())}" if classes else "there are no rows",
            fix="bring rows of both classes, or a larger holdout=",
        )


def _call(spec: ModelSpec, x: Frame, y: Frame, params: Mapping[str, object]) -> Model:
    np.random.seed(spec.seed)
    try:
        found: object = spec.function(x, y, **params)
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        own = [f for f in frames if f.filename == spec.function.__code__.co_filename] or frames
        raise UserCodeError(
            f"the trainer {spec.function.__name__!r} failed",
            code="MS-2210",
            why=f"{type(error).__name__}: {error}",
            origin=f"{Path(own[-1].filename).name}:{own[-1].lineno}",
            fix="mend the trainer; mainspring logs shows what it printed",
        ) from error
    if not isinstance(found, Model):
        raise UserCodeError(
            f"the trainer {spec.function.__name__!r} returned {type(found).__name__}, not a Model",
            code="MS-2211",
            origin=f"{Path(spec.function.__code__.co_filename).name}:{spec.function.__code__.co_firstlineno}",
            fix="return Model(estimator)",
        )
    return found


def _scores_at_all(model: Model, shape: TrainingShape, spec: ModelSpec) -> None:
    estimator = model.estimator
    booster = type(estimator).__name__ == "Booster"
    wanted = "predict_proba" if shape.task == "binary" and not booster else "predict"
    if not hasattr(estimator, wanted):
        raise UserCodeError(
            f"the model of trainer {spec.function.__name__!r} has no {wanted}",
            code="MS-2212",
            why=f"it is {type(estimator).__name__}, and the label is {shape.task}",
            fix="return a fitted classifier for a boolean label, a regressor for a number",
        )


def native_scores(estimator: Any, values: Any, task: Literal["binary", "regression"]) -> Any:
    """The estimator's own scores, float64 (rows,)."""
    if task == "binary" and type(estimator).__name__ != "Booster":
        return np.asarray(estimator.predict_proba(values)[:, 1], dtype=np.float64)
    return np.asarray(estimator.predict(values), dtype=np.float64)


def _store(
    spec: ModelSpec,
    shape: TrainingShape,
    model: Model,
    judged: Any,
    dtype: Literal["float32", "float64"],
    converter: Converter | None,
    load: Load,
    folder: Path,
) -> Card:
    why = (
        "whole numbers or moments among the inputs need float64" if dtype == "float64" else "no converter is installed"
    )
    if dtype == "float32" and converter is not None:
        converted = converter.convert(model.estimator, len(shape.columns), shape.task)
        if isinstance(converted, Converted):
            card = _card(shape, "onnx", "model.onnx", dtype, converted.output, True, "")
            (folder / card.file).write_bytes(converted.data)
            report = _gate(model, load, folder, card, judged, spec.tolerance)
            if report.passed:
                return _write(folder, msgspec.structs.replace(card, why=report.text()))
            (folder / card.file).unlink()
            why = report.text()
        else:
            why = converted
    return _write(folder, _native(shape, model, dtype, why, folder))


def _gate(model: Model, load: Load, folder: Path, card: Card, judged: Any, tolerance: float) -> ParityReport:
    _write(folder, card)
    predictor: Predictor = load(folder)
    return parity(
        model.estimator,
        lambda values: native_scores(model.estimator, values, card.task),
        predictor.scores,
        judged,
        tolerance,
        card.task,
    )


def _native(shape: TrainingShape, model: Model, dtype: Literal["float32", "float64"], why: str, folder: Path) -> Card:
    estimator = model.estimator
    booster: Any = getattr(estimator, "booster_", estimator)
    if type(booster).__name__ == "Booster" and type(booster).__module__.startswith("lightgbm"):
        (folder / "model.txt").write_text(booster.model_to_string(), "utf-8")
        return _card(shape, "lightgbm", "model.txt", dtype, "", False, why)
    try:
        (folder / "model.skops").write_bytes(skops_io.dumps(estimator))
    except Exception as error:  # whatever the estimator's own state raises
        raise UserCodeError(
            f"the model of {shape.model!r} cannot be stored",
            code="MS-2213",
            why=f"ONNX: {why}; skops: {type(error).__name__}: {error}",
            fix="return a scikit-learn or LightGBM estimator",
        ) from error
    return _card(shape, "skops", "model.skops", dtype, "", False, why)


def _card(
    shape: TrainingShape,
    format: Literal["onnx", "lightgbm", "skops", "pickle"],
    file: str,
    dtype: Literal["float32", "float64"],
    output: str,
    converted: bool,
    why: str,
) -> Card:
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Card(shape.model, format, file, shape.columns, dtype, shape.task, output, converted, why, versions)


def _write(folder: Path, card: Card) -> Card:
    (folder / CARD).write_bytes(msgspec.json.format(msgspec.json.encode(card, order="sorted")))
    return card
