"""What the training room's tests share: shapes, frames and specs made by hand, and real runtimes."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from mainspring import App, Frame, Model, Record
from mainspring.adapters.lightgbm.runtime import LightgbmRuntime
from mainspring.adapters.lightgbm.settings import LightgbmSettings
from mainspring.adapters.mlflow.runtime import MlflowRuntime
from mainspring.adapters.onnx.converter import OnnxConverter
from mainspring.adapters.onnx.settings import ConverterSettings
from mainspring.adapters.onnxruntime.runtime import OnnxRuntime
from mainspring.adapters.onnxruntime.settings import OnnxSettings
from mainspring.adapters.python.runtime import PythonRuntime
from mainspring.adapters.sklearn.runtime import SklearnRuntime
from mainspring.adapters.sklearn.settings import SklearnSettings
from mainspring.adapters.tensorflow.runtime import TensorflowRuntime
from mainspring.adapters.tensorflow.settings import TensorflowSettings
from mainspring.adapters.torch.runtime import TorchRuntime
from mainspring.adapters.torch.settings import TorchSettings
from mainspring.adapters.xgboost.runtime import XgboostRuntime
from mainspring.adapters.xgboost.settings import XgboostSettings
from mainspring.declare.declaration import spec_of
from mainspring.features.logs.log import SourceTable
from mainspring.features.selection import Selection
from mainspring.ports.runtime import read_card
from mainspring.training.folder import Workshop
from mainspring.training.sets import AT, KNOWN, LABEL, SLICE, TrainingShape

COLUMNS = ("a", "b", "c")
HOUR = 3_600_000_000


def shape_like(task="binary", columns=COLUMNS, missing=("c",), slices=()) -> TrainingShape:
    return TrainingShape(
        model="late",
        source=SourceTable("flights", (), "at"),
        label="late",
        known_at=None,
        own=columns,
        selection=Selection((), (), (), ()),
        columns=columns,
        missing=missing,
        slices=slices,
        task=task,
    )


def frame_like(rows=2000, seed=0, task="binary", holes=0.1, slices=None) -> Frame:
    """A training set in which the label follows a and b, and c is noise with holes; one row an hour."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(rows, 3)).astype(np.float32).astype(np.float64)
    x[:, 1] = np.round(x[:, 1] * 8) / 8
    signal = x[:, 0] + 0.5 * x[:, 1] + draw.normal(size=rows) * 0.7
    y = (signal > 0).astype(np.float64) if task == "binary" else signal
    at = np.arange(rows, dtype=np.int64) * HOUR
    moments = pa.array(at, pa.timestamp("us", "UTC"))
    gone = draw.random(rows) < holes
    found = {AT: moments, KNOWN: moments, LABEL: pa.array(y)}
    found |= {SLICE + name: pa.array(values) for name, values in (slices or {}).items()}
    found |= {"a": pa.array(x[:, 0]), "b": pa.array(x[:, 1]), "c": pa.array(x[:, 2], mask=gone)}
    return Frame(found)


class Flight(Record):
    late: bool
    delay: float
    a: float
    b: float
    c: float | None
    at: datetime


def spec_like(function, task="binary", **more):
    """The spec of a declared model with this trainer."""
    app = App("cases")
    flights = app.source(Flight, time="at")
    label = flights.late if task == "binary" else flights.delay
    metric = "roc_auc" if task == "binary" else "rmse"
    inputs = [flights.a, flights.b, flights.c]
    return spec_of(app.model(inputs=inputs, label=label, metric=metric, called="late", **more)(function))


def fitting(estimator):
    """A trainer that fits this estimator."""

    def late(x: Frame, y: Frame) -> Model:
        return Model(estimator.fit(x.numpy(), y.numpy()))

    return late


CONVERTER = OnnxConverter(ConverterSettings())


def load(folder, trust=()):
    """A model's folder by the runtime that reads its format."""
    card = read_card(folder)
    runtime = {
        "onnx": lambda: OnnxRuntime(OnnxSettings()),
        "lightgbm": lambda: LightgbmRuntime(LightgbmSettings()),
        "skops": lambda: SklearnRuntime(SklearnSettings(trust=trust)),
        "xgboost": lambda: XgboostRuntime(XgboostSettings()),
        "pickle": lambda: PythonRuntime(),
        "pyfunc": lambda: MlflowRuntime(),
        "torchscript": lambda: TorchRuntime(TorchSettings()),
        "exported": lambda: TorchRuntime(TorchSettings()),
        "savedmodel": lambda: TensorflowRuntime(TensorflowSettings()),
    }[card.format]()
    return runtime.load(folder, card)


def shop_in(folder, converter=CONVERTER, loader=load) -> Workshop:
    folder.mkdir()
    return Workshop(converter, loader, folder)


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
