"""The core behind every wire: finding, checking, scoring, logging and counting a call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mainspring.declare.record import ColumnType, Kind
from mainspring.errors import DataError
from mainspring.ports.runtime import Card
from mainspring.serving.calls import Call, Reason, Rejected
from mainspring.serving.endpoint import EndpointService, ModelColumn
from mainspring.serving.inference import ServedModels
from mainspring.serving.models import LiveModel
from mainspring.serving.table import ModelTable
from mainspring.serving.telemetry import Metrics
from mainspring.serving.versions import Policy


class Sum:
    """Adds the columns of each row; refuses what is no number."""

    def scores(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        if np.isnan(matrix).any():
            raise ValueError("NaN")
        return matrix.sum(axis=1, dtype=np.float64)


class Log:
    def __init__(self) -> None:
        self.rows: list[tuple[tuple[object, ...], float, str, int]] = []

    def put(self, values: Sequence[object], score: float, version: str, ts_us: int) -> str:
        self.rows.append((tuple(values), score, version, ts_us))
        return f"id{len(self.rows)}"


class Names:
    def names(self) -> Sequence[str]:
        return ("sum", "other")

    def registered(self, name: str) -> Sequence[int]:
        raise NotImplementedError

    def load(self, name: str, version: str | None = None) -> None:
        raise NotImplementedError

    def unload(self, name: str, version: str | None = None) -> None:
        raise NotImplementedError

    def label(self, name: str, label: str, version: str) -> None:
        raise NotImplementedError

    def keep(self, name: str, policy: Policy) -> None:
        raise NotImplementedError


def live(version: str = "3") -> LiveModel:
    return LiveModel(version, "e", Card("sum", "onnx", "f", ("a", "b"), "float32", "binary"), Sum())


def served(tmp_path: Path, default: str | None = None) -> tuple[ServedModels, Log, Metrics, ModelTable]:
    table, log, metrics = ModelTable(), Log(), Metrics(tmp_path / "m.bin")
    table.put("sum", live())
    columns = [ModelColumn(name, ColumnType(Kind.FLOAT), None) for name in ("a", "b")]
    endpoint = EndpointService("e", "sum", {}, columns, _never, _never, log, boolean=True)
    return (
        ServedModels(table, lambda: {"e": endpoint}, Names(), metrics, "app", 4, lambda: 7, default),
        log,
        metrics,
        table,
    )


def _never() -> Any:
    raise NotImplementedError


def infer(models: ServedModels, inputs: dict[str, Any], **more: Any) -> Any:
    arrays = {name: np.asarray(value) for name, value in inputs.items()}
    return asyncio.run(models.infer(Call(more.pop("model", "sum"), arrays, "wire", **more)))


def test_a_matrix_and_its_columns_are_the_same_call(tmp_path: Path) -> None:
    models, log, _, _ = served(tmp_path)
    for inputs in (
        {"input": [[1.0, 2.0], [3.0, 4.0]]},
        {"a": [1, 3], "b": [2, 4]},
        {"b": [[2.0], [4.0]], "a": np.array([1, 3], "u1")},
        {"a": [True, 3], "b": np.array([2, 4], "f2")},
    ):
        answer = infer(models, inputs)
        ((tensor, scores),) = answer.outputs
        assert (tensor.name, scores.tolist(), answer.version) == ("score", [3.0, 7.0], "3")
    assert answer.ids == ["id7", "id8"]
    assert log.rows[-1] == ((3.0, 4.0), 7.0, "3", 7)


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ({}, Reason.INVALID),
        ({"input": [[1.0, 2.0, 3.0]]}, Reason.INVALID),
        ({"input": [1.0, 2.0]}, Reason.INVALID),
        ({"input": np.zeros((0, 2))}, Reason.INVALID),
        ({"input": np.zeros((5, 2))}, Reason.TOO_LARGE),
        ({"input": [["a", "b"]]}, Reason.INVALID),
        ({"input": [[1.0, 2.0]], "a": [1.0]}, Reason.INVALID),
        ({"a": [1.0]}, Reason.INVALID),
        ({"a": [1.0], "b": [1.0, 2.0]}, Reason.INVALID),
        ({"a": [1.0], "b": [[1.0, 2.0]]}, Reason.INVALID),
    ],
)
def test_what_does_not_fit_is_rejected_and_counted(tmp_path: Path, inputs: dict[str, Any], reason: Reason) -> None:
    models, log, metrics, _ = served(tmp_path)
    with pytest.raises(Rejected) as caught:
        infer(models, inputs)
    assert caught.value.reason is reason
    assert not log.rows
    labels = {"app": "app", "model": "sum", "version": "3", "protocol": "wire", "role": "stable"}
    assert metrics.read("mainspring_inferences_total", outcome="failed", **labels) == 1
    assert models.find("sum").statistics.fail.count == 1


def test_calls_are_counted_by_model_version_and_wire(tmp_path: Path) -> None:
    models, _, metrics, table = served(tmp_path)
    for rows in (1, 3, 3):
        infer(models, {"input": np.ones((rows, 2))}, decode_ns=5)
    labels = {"app": "app", "model": "sum", "protocol": "wire", "role": "stable"}
    assert metrics.read("mainspring_inferences_total", outcome="answered", version="3", **labels) == 3
    assert metrics.read("mainspring_predictions_total", version="3", **labels) == 7
    assert metrics.read("mainspring_inference_seconds_count", version="3", **labels) == 3
    counts = models.find("sum").statistics
    assert (counts.rows, counts.batches, counts.success.count, counts.times.compute_input.ns) == (7, 3, 3, 15)
    assert {size: times.compute_infer.count for size, times in counts.sizes.items()} == {1: 1, 3: 2}
    assert counts.last_ms > 0
    table.put("sum", live("4"))
    infer(models, {"input": np.ones((1, 2))})
    assert models.find("sum").statistics.rows == 1
    assert metrics.read("mainspring_predictions_total", version="4", **labels) == 1


def test_only_what_is_there_is_found(tmp_path: Path) -> None:
    models, _, _, table = served(tmp_path)
    for name, version, label, reason in [
        ("nobody", None, None, Reason.NO_MODEL),
        ("other", None, None, Reason.NOT_READY),
        ("sum", "2", None, Reason.NO_VERSION),
        ("sum", None, "canary", Reason.NO_VERSION),
    ]:
        with pytest.raises(Rejected) as caught:
            models.find(name, version, label)
        assert caught.value.reason is reason
    assert models.find("sum", "3", "stable").version == "3"
    with pytest.raises(Rejected) as caught:
        models.chosen(None)
    assert caught.value.reason is Reason.INVALID
    assert served(tmp_path / "default", "sum")[0].chosen(None).name == "sum"
    table.remove("sum")
    assert models.get("sum") is None
    assert list(models.known()) == ["sum", "other"]


def test_nothing_is_computed_for_whom_nobody_waits(tmp_path: Path) -> None:
    models, log, _, _ = served(tmp_path)
    with pytest.raises(Rejected) as caught:
        infer(models, {"input": [[1.0, 2.0]]}, deadline=time.monotonic() - 1)
    assert (caught.value.reason, log.rows) == (Reason.EXPIRED, [])
    assert infer(models, {"input": [[1.0, 2.0]]}, deadline=time.monotonic() + 60).ids == ["id1"]


def test_a_model_that_takes_nothing_missing_says_so(tmp_path: Path) -> None:
    models, log, _, _ = served(tmp_path)
    with pytest.raises(DataError, match="no missing"):
        infer(models, {"input": [[1.0, float("nan")]]})
    assert not log.rows
    with pytest.raises(Rejected):
        infer(models, {"input": [[1.0, 2.0]]}, outputs=("colour",))
