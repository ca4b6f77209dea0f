"""More models than memory holds: the right answers, within the bound, and nothing is taken away while it computes."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mainspring.adapters.lightgbm.runtime import LightgbmRuntime
from mainspring.adapters.lightgbm.settings import LightgbmSettings
from mainspring.declare.batching import Batching
from mainspring.ports.runtime import Card
from mainspring.serving.batching import Meter
from mainspring.serving.calls import Call
from mainspring.serving.inference import ServedModels
from mainspring.serving.models import LiveModel, queue_of
from mainspring.serving.residency import Brought, Residency, Resident, resident_bytes
from mainspring.serving.table import ModelTable


class Memory:
    """The bytes that models take, as they are loaded and let go."""

    def __init__(self) -> None:
        self.taken = 0
        self.most = 0
        self._lock = threading.RLock()

    def take(self, size: int) -> None:
        with self._lock:
            self.taken += size
            self.most = max(self.most, self.taken)

    def __call__(self) -> int:
        return self.taken


class Model:
    """Answers with its number; takes memory from its loading until nobody holds it."""

    def __init__(self, number: int, size: int, memory: Memory) -> None:
        self.number, self.size, self.memory = number, size, memory
        self.during = threading.Event()
        memory.take(size)

    def __del__(self) -> None:
        self.memory.take(-self.size)

    def scores(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        self.during.wait(0.0005)
        return np.full(len(matrix), float(self.number))


def resident(number: int, size: int, residency: Residency, memory: Memory, least: int = 1) -> Resident:
    return Resident(str(number), residency, lambda: Brought(Model(number, size, memory), 8), least)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=80), st.integers(1, 6))
def test_the_one_that_was_asked_longest_ago_makes_room(asked: list[int], fits: int) -> None:
    """Against a list that is kept in order."""
    memory = Memory()
    residency = Residency(fits * 10, memory)
    models = [resident(number, 10, residency, memory, least=10) for number in range(10)]
    for model in models:
        model.size = 10  # known from the time before
    expected: list[str] = []
    loads = 0
    for number in asked:
        assert models[number].scores(np.zeros((2, 1))).tolist() == [number, number]
        loads += str(number) not in expected
        expected = ([name for name in expected if name != str(number)] + [str(number)])[-fits:]
        assert residency.names == expected
        assert residency.total == memory.taken == 10 * len(expected)
    assert residency.loads == loads
    assert memory.most <= fits * 10


def test_what_computes_stays_and_the_bound_holds_with_many_threads() -> None:
    memory = Memory()
    residency = Residency(50, memory)
    models = [resident(number, 10, residency, memory, least=10) for number in range(40)]
    for model in models:
        model.size = 10
    wrong: list[str] = []

    def ask(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(60):
            model = draw.choice(models)
            with residency.using(model) as predictor:
                if model.brought is None or model.brought.predictor is not predictor:
                    wrong.append("not there when it begins")
                if predictor.scores(np.zeros((1, 1)))[0] != float(model.name):
                    wrong.append("another's answer")
                if model.brought is None or model.brought.predictor is not predictor:
                    wrong.append("taken away while it computes")
                if residency.total > 50:
                    wrong.append("beyond the bound")
                del predictor

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert memory.most <= 50
    assert residency.evictions > 0


def test_a_model_larger_than_the_bound_is_loaded_alone() -> None:
    memory = Memory()
    residency = Residency(50, memory)
    small, large = resident(1, 10, residency, memory), resident(2, 500, residency, memory)
    small.scores(np.zeros((1, 1)))
    assert large.scores(np.zeros((1, 1))).tolist() == [2]
    assert residency.names == ["2"]
    assert small.scores(np.zeros((1, 1))).tolist() == [1]
    assert residency.names == ["1"]


def test_a_model_that_is_served_no_more_takes_no_room() -> None:
    memory = Memory()
    residency = Residency(50, memory)
    model = resident(1, 10, residency, memory)
    model.scores(np.zeros((1, 1)))
    del model
    gc.collect()
    assert (residency.total, memory.taken) == (0, 0)


def test_a_model_that_does_not_load_fails_its_callers_and_is_tried_again() -> None:
    residency, tries = Residency(50, lambda: 0), []

    def bring() -> Brought:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("gone")
        return Brought(Model(1, 10, Memory()), 0)

    model = Resident("1", residency, bring, 1)
    with pytest.raises(OSError, match="gone"):
        model.scores(np.zeros((1, 1)))
    assert model.scores(np.zeros((1, 1))).tolist() == [1]


class Nobody:
    def names(self) -> list[str]:
        return []


def test_a_hundred_models_in_one_process_answer_within_the_bound(tmp_path: Path) -> None:
    """Real boosters, loaded when they are asked, by the calls of every wire."""
    draw = np.random.default_rng(0)
    rows = draw.normal(size=(300, 4)).astype(np.float32)
    runtime, table = LightgbmRuntime(LightgbmSettings()), ModelTable()
    boosters, sizes = [], []
    for number in range(100):
        data = lightgbm.Dataset(rows, rows[:, number % 4] * (number + 1))
        booster = lightgbm.train({"verbose": -1, "num_threads": 1, "num_leaves": 4}, data, 2)
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "model.txt").write_text(booster.model_to_string())
        boosters.append(booster)
        sizes.append((folder / "model.txt").stat().st_size)
    most = sum(sizes[:10])
    residency = Residency(most, lambda: 0)  # what they take is what their files take
    for number in range(100):
        name = f"m{number}"
        card = Card(name, "lightgbm", "model.txt", ("a", "b", "c", "d"), "float32", "regression")

        def bring(folder: Path = tmp_path / str(number), card: Card = card) -> Brought:
            return Brought(runtime.load(folder, card), 64)

        model = Resident(name, residency, bring, sizes[number])
        model.size = sizes[number]
        table.put(name, LiveModel("1", "", card, model, queue_of(name, model, Batching(), Meter())))
    models = ServedModels(table, dict, Nobody(), None, "app", 100, time.time_ns)  # type: ignore[arg-type]

    async def ask(number: int) -> None:
        matrix = rows[number : number + 3]
        answer = await models.infer(Call(f"m{number}", {"input": matrix}, "wire"))
        np.testing.assert_array_equal(answer.outputs[0][1], boosters[number].predict(matrix, num_threads=1))
        assert residency.total <= most

    async def main() -> None:
        order = random.Random(0)
        for _ in range(3):
            await asyncio.gather(*(ask(number) for number in order.sample(range(100), 100)))

    assert residency.loads == 0  # nothing before it is asked
    asyncio.run(main())
    assert residency.evictions > 0
    assert residency.total <= most


def test_the_memory_of_this_process_is_told() -> None:
    before = resident_bytes()
    held = np.ones(4_000_000)
    assert resident_bytes() - before > 16_000_000
    assert held[0] == 1
