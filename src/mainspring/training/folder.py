"""A model's folder: the model, converted where parity holds, its card, and the report of its making."""

from __future__ import annotations

import hashlib
import importlib.metadata
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from mainspring.errors import MainspringError, UserCodeError
from mainspring.lazy import lazy
from mainspring.ports.converter import Converted, Converter
from mainspring.ports.runtime import CARD, Card, Form, Predictor
from mainspring.training.foreign import Foreign
from mainspring.training.native import native_form, native_scores
from mainspring.training.parity import ParityReport, parity, probes
from mainspring.training.sets import TrainingShape

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = ["REPORT", "FitReport", "Fitted", "Load", "Workshop", "card_like", "one_line", "read_report", "write_model"]

Load = Callable[[Path], Predictor]
"""``Services.own_predictor``: a folder to a `Predictor`."""

REPORT = "training.json"
"""The file of a model's folder with the report of its making."""

_LIBRARIES = ("numpy", "scikit-learn", "lightgbm", "onnx", "onnxruntime", "skl2onnx", "onnxmltools", "skops", "xgboost")
_SAME = 1e-12
_BLURRED = "whole numbers or moments among the inputs are not exact in float32, which ONNX models take"


class FitReport(msgspec.Struct, frozen=True):
    """What a training came to, besides the model.

    Attributes:
        rows: how many it learned from.
        estimator: what was fitted; the steps of a pipeline.
        metrics: the trainer's own numbers.
        notes: the trainer's own words.
        warnings: what a person should look at.
        parity: how the converted model compares with the one it was made from; None when nothing was converted.
    """

    rows: int
    estimator: str
    metrics: dict[str, float] = {}
    notes: dict[str, str] = {}
    warnings: tuple[str, ...] = ()
    parity: ParityReport | None = None


def read_report(folder: Path) -> FitReport:
    """The report of a model's making."""
    return msgspec.json.decode((folder / REPORT).read_bytes(), type=FitReport)


class Fitted(msgspec.Struct, frozen=True):
    """A fitted estimator with what it must agree to.

    Attributes:
        shape: the training set's shape.
        estimator: what was fitted.
        dtype: of the input matrix.
        tolerance: the greatest allowed difference of a converted model's score.
    """

    shape: TrainingShape
    estimator: Any
    dtype: Literal["float32", "float64"]
    tolerance: float

    def scores(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """The estimator's own scores, float64 (rows,)."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn warns when it was fitted with names and is asked without
            return native_scores(self.estimator, values, self.shape.task)


class Workshop(msgspec.Struct, frozen=True):
    """Where a model's folder is made.

    Attributes:
        converter: turns estimators into ONNX, or None.
        load: loads a folder.
        folder: where to write; it exists and is empty.
    """

    converter: Converter | None
    load: Load
    folder: Path


def write_model(fitted: Fitted, judged: NDArray[Any], report: FitReport, shop: Workshop) -> tuple[Card, FitReport]:
    """Write a fitted model: as ONNX when its scores are the same, else in its own format, with the reason.

    Args:
        fitted: the model.
        judged: rows that it was not fitted on, (rows, columns).
        report: what is known of the training so far.
        shop: converter, loader and folder.

    Raises:
        UserCodeError: MS-2213, the model cannot be stored.
    """
    shape = fitted.shape
    missing = [number for number, name in enumerate(shape.columns) if name in shape.missing]
    blocks, problem = probes(fitted.estimator, fitted.scores, judged, missing)
    if problem:
        more = f"the model takes no missing values, and inputs may be missing when it is asked: {problem}"
        report = msgspec.structs.replace(report, warnings=(*report.warnings, more))
    card, found = _converted(fitted, blocks, shop)
    report = msgspec.structs.replace(report, parity=found)
    if isinstance(fitted.estimator, Foreign):
        card = fitted.estimator.card
    else:
        keep = _with_native if card.converted else _stored
        card = keep(fitted, card, blocks, shop)
    _write(shop.folder, CARD, card)
    _write(shop.folder, REPORT, report)
    return card, report


def _converted(fitted: Fitted, blocks: list[NDArray[Any]], shop: Workshop) -> tuple[Card, ParityReport | None]:
    """The card of the ONNX model, when one could be made that is at par; else an empty one that says why not."""
    shape, folder = fitted.shape, shop.folder
    nothing = card_like(shape, fitted.dtype)
    if isinstance(fitted.estimator, Foreign):
        return fitted.estimator.card, None
    if fitted.dtype == "float64" or shop.converter is None:
        return _because(nothing, _BLURRED if fitted.dtype == "float64" else "no converter is installed"), None
    made = shop.converter.convert(fitted.estimator, len(shape.columns), shape.task)
    if not isinstance(made, Converted):
        return _because(nothing, f"ONNX cannot hold it: {made}"), None
    card = msgspec.structs.replace(nothing, format="onnx", file="model.onnx", output=made.output, converted=True)
    (folder / card.file).write_bytes(made.data)
    _write(folder, CARD, card)
    report = None
    try:
        report = parity(fitted.scores, shop.load(folder).scores, blocks, fitted.tolerance, shape.task)
        why = report.text()
    except Exception as error:  # a converted model that its runtime refuses is one more reason to keep the native one
        why = f"the converted model does not run: {one_line(error)}"
    if report is not None and report.passed:
        return _because(card, why), report
    (folder / card.file).unlink()
    return _because(nothing, why), report


def one_line(error: BaseException) -> str:
    """An exception for people, without the arrays that some libraries print: its type and its first line."""
    first = str(error).strip().partition("\n")[0].rstrip(" :")
    return f"{type(error).__name__}: {first}"[:300]


def _because(card: Card, why: str) -> Card:
    return msgspec.structs.replace(card, why=why)


def _with_native(fitted: Fitted, card: Card, blocks: list[NDArray[Any]], shop: Workshop) -> Card:
    """A converted model's card, and its own format beside where it can be stored: which is faster is measured later."""
    try:
        native = _stored(fitted, msgspec.structs.replace(card, output="", converted=False), blocks, shop)
    except UserCodeError:  # what cannot be stored as it is was converted all the same
        found = card
    else:
        found = msgspec.structs.replace(card, also=(Form(native.format, native.file),))
    for file in shop.folder.iterdir():
        if file.name not in {card.file, *(form.file for form in found.also)}:
            file.unlink()
    return found


def _stored(fitted: Fitted, card: Card, blocks: list[NDArray[Any]], shop: Workshop) -> Card:
    """The model in its own format, loaded once to see that it is the same."""
    shape, folder = fitted.shape, shop.folder
    try:
        form, file, data = native_form(fitted.estimator)
    except Exception as error:  # whatever the estimator's own state raises
        raise _unstorable(shape, card, f"skops: {one_line(error)}") from error
    runs_code = form == "pickle"
    digest = hashlib.sha256(data).hexdigest() if runs_code else ""
    card = msgspec.structs.replace(card, format=form, file=file, digest=digest)
    (folder / file).write_bytes(data)
    _write(folder, CARD, card)
    try:
        predictor = shop.load(folder)
    except MainspringError as error:
        raise _unstorable(shape, card, f"{error.what}: {error.why}", error.fix) from error
    again = parity(fitted.scores, predictor.scores, blocks, _SAME, shape.task)
    if not again.passed:
        raise _unstorable(shape, card, f"loaded again it scores otherwise: {again.text()}")
    return card


def _unstorable(shape: TrainingShape, card: Card, why: str, fix: str = "") -> UserCodeError:
    return UserCodeError(
        f"the model of {shape.model!r} cannot be stored",
        code="MS-2213",
        why=f"{card.why}; {why}",
        fix=fix or "return a scikit-learn, LightGBM or XGBoost estimator, or an object that can be pickled",
    )


def card_like(shape: TrainingShape, dtype: Literal["float32", "float64"]) -> Card:
    """The card of a model that is not stored yet."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return Card(shape.model, "skops", "", shape.columns, dtype, shape.task, versions=versions)


def _write(folder: Path, name: str, content: Card | FitReport) -> None:
    (folder / name).write_bytes(msgspec.json.format(msgspec.json.encode(content, order="sorted")))
