"""An endpoint's question: columns that JSON has no type for, and numbers at the edge of what a model holds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from mainspring.declare.frame import Frame
from mainspring.declare.record import ColumnType, Kind
from mainspring.errors import DataError
from mainspring.ports.runtime import Card
from mainspring.serving.endpoint import EndpointService, Looked, ModelColumn
from mainspring.serving.models import LiveModel


class Reader:
    def read_one(self, keys: Mapping[str, object], now_us: int) -> Looked:
        raise NotImplementedError

    def read_many(self, entities: Sequence[Mapping[str, object]], moments: Sequence[int]) -> Sequence[Looked]:
        return [self.read_one(keys, now_us) for keys, now_us in zip(entities, moments, strict=True)]


class NoFeatures(Reader):
    def read_one(self, keys: Mapping[str, object], now_us: int) -> Looked:
        return (), {}


class Kept:
    version = "1"

    def score(self, rows: Sequence[Sequence[object]]) -> Sequence[float]:
        return [0.5 for _ in rows]


def service(**columns: Kind) -> EndpointService:
    asked = [ModelColumn(name, ColumnType(kind), None) for name, kind in columns.items()]
    return EndpointService("e", "m", {}, asked, NoFeatures, Kept, None, boolean=True)


def test_moments_dates_and_decimals_are_the_numbers_that_a_trainer_sees() -> None:
    asked = service(at=Kind.TIMESTAMP, day=Kind.DATE, price=Kind.DECIMAL)
    at, day = datetime(2025, 6, 1, 12, 30, 0, 250_000, UTC), date(2025, 6, 1)
    row = {"at": "2025-06-01T14:30:00.25+02:00", "day": "2025-06-01", "price": "12.50"}
    (answer,) = asked.answer([row], [1])
    trained = [Frame(pa.table({"x": [value]})).numpy()[0, 0] for value in (at, day, 12.5)]
    assert list(answer.values) == trained
    numbers = {"at": float(trained[0]), "day": int(trained[1]), "price": 12.5}
    assert list(asked.answer([numbers], [1])[0].values) == trained


@pytest.mark.parametrize(
    "change",
    [
        {"at": "2025-06-01T00:00:00"},
        {"at": "soon"},
        {"at": True},
        {"at": []},
        {"day": "2025-06-31"},
        {"day": math.inf},
        {"price": "much"},
        {"price": "NaN"},
        {"price": {}},
    ],
)
def test_what_is_no_moment_date_or_decimal_is_refused(change: dict[str, object]) -> None:
    row = {"at": "2025-06-01T00:00:00Z", "day": "2025-06-01", "price": 1, **change}
    with pytest.raises(DataError) as caught:
        service(at=Kind.TIMESTAMP, day=Kind.DATE, price=Kind.DECIMAL).answer([row], [1])
    assert caught.value.code == "MS-2302"
    assert "send" in caught.value.fix


class Echo(Reader):
    """Features that are the keys themselves."""

    def read_one(self, keys: Mapping[str, object], now_us: int) -> Looked:
        return [keys["tail"]], {"fleet": "MISSING" if keys["tail"] is None else "PRESENT"}


def test_only_a_key_that_may_be_null_may_be_left_out() -> None:
    keys = {"origin": ColumnType(Kind.STRING), "tail": ColumnType(Kind.STRING, nullable=True)}
    seats = [ModelColumn("seats", ColumnType(Kind.FLOAT), 0)]
    asked = EndpointService("e", "m", keys, seats, Echo, Kept, None, boolean=True)
    rows: list[Mapping[str, object]] = [{"origin": "JFK", "tail": "N1"}, {"origin": "JFK", "tail": None}]
    found = asked.answer([*rows, {"origin": "JFK"}], [1, 1, 1])
    assert [answer.statuses["fleet"] for answer in found] == ["PRESENT", "MISSING", "MISSING"]
    refused = (({"tail": "N1"}, "MS-2301"), ({"origin": None}, "MS-2301"), ({**rows[0], "tail": 1}, "MS-2302"))
    for wrong, code in refused:
        with pytest.raises(DataError) as caught:
            asked.answer([wrong], [1])
        assert caught.value.code == code


def test_a_batch_is_looked_up_in_one_round_trip() -> None:
    trips: list[int] = []

    class Counting(Echo):
        def read_many(self, entities: Sequence[Mapping[str, object]], moments: Sequence[int]) -> Sequence[Looked]:
            trips.append(len(entities))
            return super().read_many(entities, moments)

    seats = [ModelColumn("seats", ColumnType(Kind.FLOAT), 0)]
    asked = EndpointService("e", "m", {"tail": ColumnType(Kind.STRING)}, seats, Counting, Kept, None, boolean=True)
    found = asked.answer([{"tail": f"N{number}"} for number in range(50)], [1] * 50)
    assert ([answer.values[0] for answer in found], trips) == ([f"N{number}" for number in range(50)], [50])


def test_a_date_that_is_looked_up_is_the_number_that_a_trainer_sees() -> None:
    day = date(2025, 6, 1)

    class Dates(Echo):
        def read_one(self, keys: Mapping[str, object], now_us: int) -> Looked:
            return [7.0, None if keys["tail"] == "N0" else day.toordinal()], {}

    columns = [ModelColumn("since", ColumnType(Kind.DATE), 1), ModelColumn("seats", ColumnType(Kind.FLOAT), 0)]
    asked = EndpointService("e", "m", {"tail": ColumnType(Kind.STRING)}, columns, Dates, Kept, None, boolean=True)
    trained = Frame(pa.table({"since": [day], "seats": [7.0]})).numpy()[0]
    assert asked.answer([{"tail": "N1"}], [1])[0].values == (trained[0], trained[1])
    assert asked.answer([{"tail": "N0"}], [1])[0].values == (None, 7.0)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 1.0, True])
def test_a_whole_number_is_one_of_64_bits(value: object) -> None:
    with pytest.raises(DataError):
        service(n=Kind.INTEGER).answer([{"n": value}], [1])


class Seen:
    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.matrix: NDArray[Any] = np.empty((0, 0))

    def scores(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        if self.strict and not np.isfinite(matrix).all():
            raise ValueError("Input contains NaN.")
        self.matrix = matrix
        return np.zeros(len(matrix))


def live(predictor: Seen) -> LiveModel:
    card = Card("m", "skops", "model.skops", ("a", "b"), "float32", "binary")
    return LiveModel("1", "e", card, predictor)


def test_a_number_beyond_float32_stays_finite_and_warns_nobody() -> None:
    seen = Seen()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        live(seen).score([[1e308, -1e308], [None, 2.5]])
        assert seen.matrix.dtype == np.float32
        assert seen.matrix[0].tolist() == [np.finfo(np.float32).max, np.finfo(np.float32).min]
        assert np.isnan(seen.matrix[1, 0])
        live(seen).scores(np.array([[np.inf, 1e308]]))
    assert seen.matrix[0].tolist() == [np.inf, np.finfo(np.float32).max]


def test_a_model_that_takes_no_missing_value_says_so() -> None:
    with pytest.raises(DataError) as caught:
        live(Seen(strict=True)).score([[None, 1.0]])
    assert caught.value.code == "MS-2306"
