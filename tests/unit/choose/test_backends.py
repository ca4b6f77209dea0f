"""Which form scores how many rows: from what was measured, once for a machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mainspring.choose import backends
from mainspring.choose.backends import (
    SIZES,
    BySize,
    Measured,
    cost_us,
    load_measured,
    measure,
    recall,
    record,
    rows_within,
    switches,
)
from mainspring.errors import StoreError
from mainspring.ports.catalog import Event
from mainspring.ports.runtime import CARD, Card, Form

CARD_OF_TWO = Card(
    "m", "onnx", "m.onnx", ("a", "b"), "float32", "binary", output="p", also=(Form("lightgbm", "m.txt"),)
)


class Clock:
    """Time that goes on by what is computed."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


class Costing:
    """Costs so much a call and so much a row; its scores are its own mark."""

    def __init__(self, clock: Clock, fixed_us: float, row_us: float, mark: float = 0.0) -> None:
        self._clock, self._fixed, self._row, self._mark = clock, fixed_us, row_us, mark
        self.calls = 0

    def scores(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        self.calls += 1
        noise = 500_000 if self.calls % 3 == 0 else 0  # somebody else on the machine
        self._clock.now += round((self._fixed + self._row * len(matrix)) * 1e3) + noise
        return np.full(len(matrix), self._mark)


costs = st.tuples(st.floats(1, 500), st.floats(0.01, 20))


@given(costs)
def test_the_least_of_several_is_what_a_call_costs(cost: tuple[float, float]) -> None:
    clock = Clock()
    found = measure(Costing(clock, *cost), CARD_OF_TWO, clock)
    for size in SIZES:
        assert found[size] == pytest.approx(cost[0] + cost[1] * size, abs=0.1)


@given(costs, costs, st.integers(1, 5000))
def test_each_call_goes_to_a_form_that_is_about_the_cheapest(
    first: tuple[float, float], second: tuple[float, float], rows: int
) -> None:
    """Against the two lines themselves: never more than the share dearer that keeps the first form."""
    curves = {
        name: {size: fixed + row * size for size in SIZES}
        for name, (fixed, row) in (("onnx", first), ("lightgbm", second))
    }
    measured = Measured("a", {}, curves, backends._chosen(curves))
    found = switches(measured)
    assert [start for start, _ in found] == sorted({start for start, _ in found})
    assert found[0][0] == 1
    name = [name for start, name in found if start <= rows][-1]
    paid, least = cost_us(curves[name], rows), min(cost_us(curve, rows) for curve in curves.values())
    if rows in SIZES:
        assert paid <= least * 1.2 + 1e-6
    marks = {"onnx": 1.0, "lightgbm": 2.0}
    clock = Clock()
    routed = BySize([start for start, _ in found], [Costing(clock, 1, 1, marks[chosen]) for _, chosen in found])
    assert set(routed.scores(np.zeros((rows, 2)))) == {marks[name]}


@given(costs, st.floats(0, 3000))
def test_so_many_rows_cost_no_more_than_that(cost: tuple[float, float], most: float) -> None:
    curve = {size: cost[0] + cost[1] * size for size in SIZES}
    rows = rows_within(curve, most)
    assert rows == 0 or cost_us(curve, rows) <= most + 1e-6
    assert rows == SIZES[-1] or cost_us(curve, rows + 1) > most - 1e-6


def loader(clock: Clock, gone: tuple[str, ...] = ()) -> Any:
    loaded: list[str] = []

    def load(folder: Path, card: Card) -> Costing:
        loaded.append(card.format)
        if card.format in gone:
            raise StoreError(f"{card.format} is gone", code="MS-4150")
        return {"onnx": Costing(clock, 5, 8, 1.0), "lightgbm": Costing(clock, 60, 1, 2.0)}[card.format]

    load.loaded = loaded  # type: ignore[attr-defined]
    return load


def test_a_model_is_measured_once_and_then_loaded_as_it_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(backends.measure, "__defaults__", (clock,))
    monkeypatch.setattr(backends, "fingerprint", lambda: {"cpu": "a processor"})
    first, measured = load_measured(tmp_path, CARD_OF_TWO, loader(clock), "digest", None)
    assert measured.chosen == {1: "onnx", 8: "onnx", 32: "lightgbm", 256: "lightgbm", 1024: "lightgbm"}
    assert [first.scores(np.zeros((rows, 2)))[0] for rows in (1, 8, 9, 32, 5000)] == [1.0, 1.0, 2.0, 2.0, 2.0]

    kept: list[Event] = []
    record(_Catalog(kept), "m", measured, 5)  # type: ignore[arg-type]
    again = recall(_Catalog(kept), "m", "digest")  # type: ignore[arg-type]
    assert again == measured
    assert recall(_Catalog(kept), "m", "another") is None  # type: ignore[arg-type]
    monkeypatch.setattr(backends, "fingerprint", lambda: {"cpu": "another"})
    assert recall(_Catalog(kept), "m", "digest") is None  # type: ignore[arg-type]

    assert (
        backends.told(measured)
        == [
            "served: onnx scores 1 to 8 rows, lightgbm scores 9 rows and more (measured on a processor)",
            "  onnx      microseconds by rows: 1: 13, 8: 69, 32: 261, 256: 2,053, 1,024: 8,197",
            "  lightgbm  microseconds by rows: 1: 61, 8: 68, 32: 92, 256: 316, 1,024: 1,084",
        ]
        or "cpu" in measured.machine
    )
    second, known = load_measured(tmp_path, CARD_OF_TWO, loader(clock), "digest", again)
    assert known is again
    assert [second.scores(np.zeros((rows, 2)))[0] for rows in (1, 32)] == [1.0, 2.0]


def test_a_form_that_cannot_be_loaded_is_left_out_and_said(tmp_path: Path) -> None:
    clock = Clock()
    predictor, measured = load_measured(tmp_path, CARD_OF_TWO, loader(clock, ("onnx",)), "digest", None)
    assert measured.left_out == {"onnx": "onnx is gone"}
    assert predictor.scores(np.zeros((1, 2))).tolist() == [2.0]
    with pytest.raises(StoreError, match="onnx is gone"):
        load_measured(tmp_path, CARD_OF_TWO, loader(clock, ("onnx", "lightgbm")), "digest", None)
    # what was recorded with a library that is gone by now is measured anew
    known = msgspec.structs.replace(measured, chosen=dict.fromkeys(SIZES, "onnx"))
    _, again = load_measured(tmp_path, CARD_OF_TWO, loader(clock, ("onnx",)), "digest", known)
    assert set(again.chosen.values()) == {"lightgbm"}


def test_a_card_from_before_there_were_several_forms_is_read(tmp_path: Path) -> None:
    old = msgspec.json.decode(msgspec.json.encode(CARD_OF_TWO))
    del old["also"]
    (tmp_path / CARD).write_bytes(msgspec.json.encode(old))
    clock = Clock()
    card = msgspec.json.decode((tmp_path / CARD).read_bytes(), type=Card)
    _, measured = load_measured(tmp_path, card, loader(clock), "digest", None)
    assert set(measured.costs) == {"onnx"}


class _Catalog:
    def __init__(self, kept: list[Event]) -> None:
        self._kept = kept

    def add_event(self, event: Event) -> int:
        self._kept.append(msgspec.json.decode(msgspec.json.encode(event), type=Event))
        return len(self._kept)

    def last_events(self, *, what: str = "", subject: str = "", limit: int = 50) -> list[Event]:
        return [one for one in reversed(self._kept) if one.what.startswith(what) and one.subject.startswith(subject)]
