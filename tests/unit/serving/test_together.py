"""Calls of quick models that one turn of the event loop brings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mainspring.declare.batching import Batching
from mainspring.declare.record import ColumnType, Kind
from mainspring.errors import DataError
from mainspring.ports.runtime import Card
from mainspring.serving.calls import Call, Inference, Rejected
from mainspring.serving.endpoint import EndpointService, ModelColumn
from mainspring.serving.inference import ServedModels
from mainspring.serving.metering import ModelMeter
from mainspring.serving.models import LiveModel, queue_of
from mainspring.serving.predlog.schema import LogSchema
from mainspring.serving.predlog.writer import PredictionLog
from mainspring.serving.statistics import Statistics
from mainspring.serving.table import ModelTable
from mainspring.serving.telemetry import Metrics
from mainspring.serving.together import Turn

CARD = Card("sum", "onnx", "f", ("a", "b"), "float32", "binary")
LABELS = {"app": "app", "model": "sum", "version": "3"}


class Sum:
    """Adds the columns of each row, and remembers how many it was given; refuses what is no number."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def scores(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        self.asked.append(len(matrix))
        if np.isnan(matrix).any():
            raise ValueError("NaN")
        return matrix.sum(axis=1, dtype=np.float64)


class Serving:
    """A model that is quick for so many rows, with its log and its counts."""

    def __init__(self, place: Path, at_once: int = 64, batching: Batching | None = None) -> None:
        self.turn, self.model, self.metrics = Turn(), Sum(), Metrics(place / "m.bin")
        statistics = Statistics()
        meter = ModelMeter(statistics, self.metrics, **LABELS)
        queue = queue_of("sum", self.model, batching or Batching(), meter)
        live = LiveModel("3", "e", CARD, self.model, queue, at_once, statistics)
        table = ModelTable()
        table.put("sum", live)
        self.log = PredictionLog(place / "log", LogSchema("e", "sum", CARD.columns))
        columns = [ModelColumn(name, ColumnType(Kind.FLOAT), None) for name in CARD.columns]
        never: Any = None
        endpoint = EndpointService("e", "sum", {}, columns, never, never, self.log, boolean=True)
        registry: Any = None
        self.models = ServedModels(
            table, lambda: {"e": endpoint}, registry, self.metrics, "app", 100, lambda: 7, turn=self.turn
        )

    async def turned(self, calls: Sequence[Awaitable[Any]]) -> list[Any]:
        """What becomes of requests that come in one turn of the loop, as the host begins them."""

        async def begin(request: object, call: Awaitable[Any]) -> Any:
            self.turn.begun(request)
            return await call

        requests = [object() for _ in calls]
        self.turn.last = requests[-1]
        works = [begin(request, call) for request, call in zip(requests, calls, strict=True)]
        return await asyncio.gather(*works, return_exceptions=True)

    def asked(self, *rows: Any, protocol: str = "wire", **more: Any) -> Awaitable[Inference]:
        """A call with these rows."""
        return self.models.infer(Call("sum", {"input": np.asarray(rows, "f4")}, protocol, **more))

    def read(self, name: str, **labels: str) -> float:
        return self.metrics.read(name, **LABELS, **labels)


@pytest.fixture
def serving(tmp_path: Path) -> Serving:
    return Serving(tmp_path)


def scores(found: Inference) -> list[float]:
    return found.outputs[0][1].tolist()  # type: ignore[no-any-return]


def test_those_of_a_turn_are_scored_together_and_each_gets_its_own(serving: Serving) -> None:
    calls = [serving.asked(*([float(n), 1.0],) * (n % 3 + 1), decode_ns=5) for n in range(16)]
    found = asyncio.run(serving.turned(calls))
    assert [scores(one) for one in found] == [[n + 1.0] * (n % 3 + 1) for n in range(16)]
    rows = sum(n % 3 + 1 for n in range(16))
    assert serving.model.asked == [rows]
    ids = [identity for one in found for identity in one.ids]
    assert len(set(ids)) == rows == serving.log.rows
    counts = serving.models.find("sum").statistics
    assert (counts.rows, counts.batches, counts.success.count, counts.times.compute_input.ns) == (rows, 1, 16, 80)
    assert list(counts.sizes) == [rows]
    assert serving.read("mainspring_inferences_total", outcome="answered", protocol="wire", role="stable") == 16
    assert serving.read("mainspring_inference_seconds_count", protocol="wire", role="stable") == 16
    assert serving.read("mainspring_predictions_total", protocol="wire", role="stable") == rows
    assert serving.read("mainspring_prediction_score_count", role="stable") == rows
    assert serving.read("mainspring_batch_rows_count") == 1


def test_one_alone_waits_for_nobody(serving: Serving) -> None:
    async def ask() -> None:
        asking = serving.asked([1.0, 2.0]).__await__()
        with pytest.raises(StopIteration) as ended:  # it never gives the loop its turn
            next(asking)
        assert scores(ended.value.value) == [3.0]

    asyncio.run(ask())
    assert serving.model.asked == [1]


def test_the_loop_answers_those_that_wait_when_the_last_one_asks_nothing(serving: Serving) -> None:
    async def other() -> str:
        return "live"

    found = asyncio.run(serving.turned([serving.asked([1.0, 2.0]), serving.asked([3.0, 4.0]), other()]))
    assert [scores(one) for one in found[:2]] == [[3.0], [7.0]]
    assert serving.model.asked == [2]


def test_one_bad_caller_fails_alone(serving: Serving) -> None:
    rows = [[1.0, 2.0], [1.0, float("nan")], [3.0, 4.0]]
    good, bad, also = asyncio.run(serving.turned([serving.asked(row) for row in rows]))
    assert (scores(good), scores(also)) == ([3.0], [7.0])
    assert isinstance(bad, DataError)
    assert serving.log.rows == 2
    labels = {"protocol": "wire", "role": "stable"}
    assert serving.read("mainspring_inferences_total", outcome="failed", **labels) == 1
    assert serving.read("mainspring_inferences_total", outcome="answered", **labels) == 2
    shape = asyncio.run(serving.turned([serving.asked(rows[0]), serving.asked([1.0]), serving.asked(rows[2])]))
    assert isinstance(shape[1], Rejected)
    assert [scores(one) for one in (shape[0], shape[2])] == [[3.0], [7.0]]


def test_wires_and_dtypes_are_kept_apart(serving: Serving) -> None:
    precise = Call("sum", {"input": np.array([[0.1, 0.2]], "f8")}, "wire")
    calls = [
        serving.asked([0.1, 0.2]),
        serving.asked([0.1, 0.2], protocol="other"),
        serving.models.infer(precise),
        serving.asked([0.1, 0.2]),
    ]
    asyncio.run(serving.turned(calls))
    assert sorted(serving.model.asked) == [1, 1, 2]
    assert serving.read("mainspring_inferences_total", outcome="answered", protocol="other", role="stable") == 1


def test_who_leaves_meanwhile_is_not_asked_for(serving: Serving) -> None:
    async def leave() -> list[Any]:
        serving.turn.last = object()
        serving.turn.begun(None)
        tasks = [asyncio.ensure_future(serving.asked([float(n), 0.0])) for n in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    first, left, last = asyncio.run(leave())
    assert isinstance(left, asyncio.CancelledError)
    assert (scores(first), scores(last)) == ([0.0], [2.0])
    assert (serving.model.asked, serving.log.rows) == ([2], 2)


@pytest.mark.parametrize(("at_once", "batching"), [(4, None), (64, Batching(4))])
def test_no_more_than_is_quick_or_declared(tmp_path: Path, at_once: int, batching: Batching | None) -> None:
    serving = Serving(tmp_path, at_once, batching)
    calls = [serving.asked(*([1.0, float(n)],) * 3) for n in range(3)] + [serving.asked([0.0, 0.0])]
    found = asyncio.run(serving.turned(calls))
    assert [scores(one) for one in found] == [[1.0] * 3, [2.0] * 3, [3.0] * 3, [0.0]]
    assert serving.model.asked == [3, 3, 4]


def test_batching_off_scores_each_alone(tmp_path: Path) -> None:
    serving = Serving(tmp_path, batching=Batching(1))
    asyncio.run(serving.turned([serving.asked([1.0, 2.0]) for _ in range(4)]))
    assert serving.model.asked == [1, 1, 1, 1]


def test_a_log_that_fails_fails_all_of_them_and_nobody_waits_for_ever(serving: Serving) -> None:
    def broken(*args: object, **more: object) -> str:
        raise OSError("gone")

    serving.log.put = broken  # type: ignore[method-assign]
    found = asyncio.run(serving.turned([serving.asked([1.0, 2.0]) for _ in range(3)]))
    assert [type(one) for one in found] == [OSError] * 3
