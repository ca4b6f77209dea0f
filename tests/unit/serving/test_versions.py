"""Versions of a model side by side: which are wanted, swapped whole and drained, parted by sticky keys, shadowed."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from mainspring.declare.record import ColumnType, Kind
from mainspring.ports.runtime import Card
from mainspring.serving.calls import Call, Reason, Rejected
from mainspring.serving.endpoint import ANY, Asked, EndpointService, ModelColumn, Reading
from mainspring.serving.inference import ServedModels
from mainspring.serving.models import LiveModel
from mainspring.serving.rollout.evidence import Counted, Evidence, cell_of, summed, worst_of
from mainspring.serving.rollout.shadow import Shadow, ShadowCall
from mainspring.serving.rollout.split import Split, entity_key, place_of, request_key
from mainspring.serving.table import ModelTable
from mainspring.serving.telemetry import Metrics
from mainspring.serving.versions import ModelVersions, Policy, State, VersionState, wanted_versions


class Times:
    """Scores a row by its sum times a factor; fails when told to."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor
        self.broken = False

    def scores(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        if self.broken:
            raise RuntimeError("broken")
        return matrix.sum(axis=1, dtype=np.float64) * self.factor


def live(version: str) -> LiveModel:
    card = Card("sum", "onnx", "f", ("a", "b"), "float32", "regression")
    return LiveModel(version, f"e{version}", card, Times(float(version)))


@given(st.data())
def test_the_wanted_versions(data: st.DataObject) -> None:
    registered = data.draw(st.sets(st.integers(1, 12), min_size=1))
    champion = data.draw(st.sampled_from(sorted(registered)))
    named = data.draw(st.lists(st.sampled_from(sorted(registered)), max_size=3))
    latest, every = data.draw(st.integers(1, 5)), data.draw(st.booleans())
    specific = tuple(data.draw(st.sets(st.integers(1, 14), max_size=3)))
    found = wanted_versions(Policy(latest, every, specific), registered, [champion, *named])
    others = [version for version in sorted(registered, reverse=True) if version != champion][: latest - 1]
    wanted = {champion, *named, *others, *(version for version in specific if version in registered)}
    assert found == (registered if every else wanted)


@given(st.lists(st.binary(min_size=1), min_size=1, max_size=30), st.floats(0, 1), st.floats(0, 1))
def test_who_was_a_canary_stays_one_when_the_share_grows(keys: list[bytes], one: float, other: float) -> None:
    low, high = sorted((one, other))
    small, great = (Split("r", "1", "2", share) for share in (low, high))
    for key in keys:
        assert small.version(key) == small.version(key)
        assert (small.version(key), great.version(key)) != ("2", "1")


def test_the_share_is_the_share_and_each_rollout_draws_anew() -> None:
    keys = [f"user-{n}".encode() for n in range(20_000)]
    chosen = {rollout: {key for key in keys if place_of(rollout, key) < 0.1} for rollout in ("a", "b")}
    for found in chosen.values():
        assert abs(len(found) / len(keys) - 0.1) < 5 * (0.1 * 0.9 / len(keys)) ** 0.5
    both = len(chosen["a"] & chosen["b"]) / len(keys)
    assert abs(both - 0.01) < 5 * (0.01 * 0.99 / len(keys)) ** 0.5
    assert place_of("a", b"user-1") == pytest.approx(0.5454263176599287), "the same in every process and release"


def test_what_a_caller_stays_with_a_version_by() -> None:
    def ask(body: bytes, **headers: bytes) -> Any:
        return SimpleNamespace(
            headers={name.replace("_", "-").encode(): text for name, text in headers.items()}, body=body
        )

    assert request_key(ask(b"{}", x_mainspring_key=b"u", x_request_id=b"r")) == b"u"
    assert request_key(ask(b"{}", x_request_id=b"r")) == b"r"
    assert request_key(ask(b"{}")) == b"{}"
    assert entity_key({"id": 1, "amount": 2}, ("id",)) == entity_key({"amount": 3, "id": 1}, ("id",))
    assert entity_key({"id": 1}, ("id",)) != entity_key({"id": "1"}, ("id",))


@given(st.lists(st.lists(st.integers(0, 10**12)), max_size=4), st.lists(st.integers(0, 5), max_size=4))
def test_evidence_adds_up(parts: list[list[int]], failures: list[int]) -> None:
    found = []
    for times, failed in zip(parts, failures, strict=False):
        evidence = Evidence()
        for ns in times:
            evidence.answered(ns)
        for _ in range(failed):
            evidence.failed()
        found.append(evidence.counted())
    every = [ns for times, _ in zip(parts, failures, strict=False) for ns in times]
    errors = sum(failed for _, failed in zip(parts, failures, strict=False))
    together = summed(found)
    assert together == Counted(len(every) + errors, errors, dict(Counter(cell_of(ns / 1e3) for ns in every)))
    worst = worst_of(together, 1.0)
    assert (worst is None) == (not every)
    if every and worst is not None and max(every) < 10**12:
        assert (
            max(every) / 1e3 <= max(worst, 1.0) * (1 + 1e-9) <= max(max(every) / 1e3, 1.0) * 2 ** (1 / 8) * (1 + 1e-9)
        )


def test_a_swap_is_whole_and_what_it_leaves_out_drains_with_its_last_call() -> None:
    table, told = ModelTable(), list[str]()
    table.follow(told.append)
    one, two = live("1"), live("2")
    table.put("sum", one)
    held = table.get("sum")
    table.put("sum", two)
    assert (table.get("sum"), told) == (two, ["sum", "sum"])
    del one
    gc.collect()
    assert table.draining("sum") == ["1"], "a call still has it"
    assert held is not None
    assert held.version == "1"
    del held
    gc.collect()
    assert table.draining("sum") == []
    table.remove("sum")
    assert table.get("sum") is None
    assert table.draining("sum") == ["2"]


def models_of(tmp_path: Path, versions: ModelVersions) -> tuple[ServedModels, Metrics, ModelTable]:
    table, metrics = ModelTable(), Metrics(tmp_path / "m.bin")
    table.swap("sum", versions)
    registry: Any = SimpleNamespace(names=lambda: ("sum",))
    return ServedModels(table, dict, registry, metrics, "app", 100, lambda: 7), metrics, table


def ready(*numbers: str) -> Mapping[str, LiveModel]:
    return {number: live(number) for number in numbers}


def test_versions_are_found_by_number_label_and_key(tmp_path: Path) -> None:
    there = ready("1", "2", "3")
    split = Split("r", "1", "2", 0.5, None, {"1": Evidence(), "2": Evidence()})
    waiting = [VersionState("4", State.LOADING), VersionState("5", State.UNAVAILABLE, "damaged")]
    models, metrics, table = models_of(tmp_path, ModelVersions("1", there, {"mine": "3"}, split, waiting))
    assert models.find("sum").version == "1", "without a request a canary has no part in it"
    assert models.find("sum", "3").version == models.find("sum", label="mine").version == "3"
    assert models.find("sum", label="stable").version == models.find("sum", label="champion").version == "1"
    assert models.find("sum", label="canary").version == "2"
    for version, label, reason in (
        ("4", None, Reason.NOT_READY),
        ("5", None, Reason.NOT_READY),
        ("6", None, Reason.NO_VERSION),
        (None, "other", Reason.NO_VERSION),
    ):
        with pytest.raises(Rejected) as caught:
            models.find("sum", version, label)
        assert caught.value.reason is reason
    found = Counter()
    for n in range(200):
        asking: Any = SimpleNamespace(headers={}, body=b"%d" % n)
        served = models.find("sum", asking=asking)
        assert served.version == split.version(b"%d" % n)
        found[served.version] += 1
        call = Call("sum", {"input": np.ones((1, 2))}, "wire")
        assert asyncio.run(models.infer(call, served)).version == served.version
    assert min(found["1"], found["2"]) > 60
    labels = {"app": "app", "model": "sum", "protocol": "wire"}
    assert metrics.read("mainspring_predictions_total", version="2", role="canary", **labels) == found["2"]
    assert metrics.read("mainspring_predictions_total", version="1", role="stable", **labels) == found["1"]
    assert {version: seen.counted().calls for version, seen in split.evidence.items()} == dict(found)
    assert [(state.version, state.state) for state in models.states("sum")] == [
        ("5", State.UNAVAILABLE),
        ("4", State.LOADING),
        ("3", State.READY),
        ("2", State.READY),
        ("1", State.READY),
    ]
    pinned = models.find("sum")
    table.swap("sum", ModelVersions("3", {"3": there["3"]}))
    call = Call("sum", {"input": np.ones((1, 2))}, "wire")
    assert asyncio.run(models.infer(call, pinned)).version == "1", "who was found answers, whatever has moved since"


def test_a_models_own_fault_is_held_against_it_and_a_callers_is_not(tmp_path: Path) -> None:
    there = ready("1", "2")
    split = Split("r", "1", "2", 0.0, None, {"1": Evidence(), "2": Evidence()})
    models, _, _ = models_of(tmp_path, ModelVersions("1", there, {}, split))
    with pytest.raises(Rejected):
        asyncio.run(models.infer(Call("sum", {"input": np.ones((1, 3))}), models.find("sum", "2")))
    there["2"].predictor.broken = True  # type: ignore[attr-defined]
    for _ in range(3):
        with pytest.raises(RuntimeError):
            asyncio.run(models.infer(Call("sum", {"input": np.ones((1, 2))}), models.find("sum", "2")))
    assert split.evidence["2"].counted() == Counted(3, 3)
    assert split.evidence["1"].counted() == Counted()


def test_a_version_out_of_service_is_held_by_nobody(tmp_path: Path) -> None:
    models, _, table = models_of(tmp_path, ModelVersions("1", ready("1")))
    asyncio.run(models.infer(Call("sum", {"input": np.ones((1, 2))})))
    for version in range(2, 30):
        table.put("sum", live(str(version)))
        assert table.draining("sum") == [], version


def test_a_shadow_is_compared_as_by_hand_and_never_waited_for(rng: np.random.Generator) -> None:
    shadow, gate = Shadow(binary=True, most=4), threading.Event()
    first = threading.Event()

    def wait() -> Sequence[float]:
        first.set()
        gate.wait(60)
        return [0.25]

    shadow.offer(ShadowCall(wait, [0.5]))
    assert first.wait(60)
    logged: list[float] = []
    rows = [(rng.random(3).tolist(), rng.random(3).tolist()) for _ in range(4)]
    for given_scores, scores in rows:
        shadow.offer(ShadowCall(lambda scores=scores: scores, given_scores, logged.extend))  # type: ignore[misc]
    for _ in range(5):
        shadow.offer(ShadowCall(lambda: [1.0], [1.0]))
    gate.set()
    deadline = threading.Event()
    while shadow.differences().calls < 5 and not deadline.wait(0.01):
        pass
    shadow.offer(ShadowCall(lambda: 1 / 0, [1.0]))  # type: ignore[arg-type, return-value]
    while shadow.differences().calls < 6 and not deadline.wait(0.01):
        pass
    found = shadow.differences()
    pairs = [(0.5, 0.25)] + [pair for one, other in rows for pair in zip(one, other, strict=True)]
    assert (found.rows, found.dropped, found.failed) == (len(pairs), 5, 1)
    assert found.flips == sum((one >= 0.5) != (other >= 0.5) for one, other in pairs)
    assert found.total == pytest.approx(sum(abs(one - other) for one, other in pairs))
    assert found.greatest == pytest.approx(max(abs(one - other) for one, other in pairs))
    assert logged == [score for _, scores in rows for score in scores]
    shadow.stop()
    shadow.offer(ShadowCall(lambda: [1.0], [1.0]))  # after its end it is only dropped in time


def test_rows_of_many_do_not_pile_up() -> None:
    shadow, gate = Shadow(binary=False), threading.Event()
    shadow.offer(ShadowCall(lambda: [float(gate.wait(60))], [0.0]))
    for _ in range(10):
        shadow.offer(ShadowCall(lambda: [0.0] * 4096, [0.0] * 4096))
    assert shadow.differences().dropped >= 6
    gate.set()
    shadow.stop()


class Log:
    def __init__(self) -> None:
        self.rows: list[tuple[tuple[object, ...], float, str, str]] = []

    def put(
        self,
        values: Sequence[object],
        score: float,
        version: str,
        ts_us: int,
        *,
        role: str = "stable",
        identity: bytes | None = None,
    ) -> str:
        self.rows.append((tuple(values), score, version, role))
        return f"{len(self.rows):032x}" if identity is None else identity.hex()


class Reader:
    """Features of the one key: ten times it."""

    def read_one(self, keys: Mapping[str, object], now_us: int) -> tuple[Sequence[object], Mapping[str, str]]:
        return (float(str(keys["id"])) * 10,), {"view": "PRESENT"}

    def read_many(self, entities: Sequence[Mapping[str, object]], moments: Sequence[int]) -> Any:
        return [self.read_one(row, now) for row, now in zip(entities, moments, strict=True)]


def endpoint_of(versions: list[ModelVersions], log: Log, shadows: Log | None = None) -> EndpointService:
    columns = (ModelColumn("f", ColumnType(Kind.FLOAT), 0), ModelColumn("b", ColumnType(Kind.FLOAT), None))
    reader = Reader()
    routes: Any = SimpleNamespace(
        versions=lambda: versions[0], reading=lambda found: Reading(found, reader, columns, ())
    )
    never: Any = None
    keys = {"id": ColumnType(Kind.INTEGER)}
    return EndpointService(
        "e", "sum", keys, columns, never, never, log, boolean=False, routes=routes, shadows=lambda: shadows
    )


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.sampled_from([0.0, 0.3, 0.7, 1.0]))
def test_rows_of_a_batch_are_parted_by_their_entity_and_come_back_in_order(ids: list[int], share: float) -> None:
    log, split = Log(), Split("r", "1", "2", share, None, {"1": Evidence(), "2": Evidence()})
    endpoint = endpoint_of([ModelVersions("1", ready("1", "2"), {}, split)], log)
    rows = [{"id": one, "b": float(place)} for place, one in enumerate(ids)]
    answers = endpoint.answer(rows, [1] * len(rows))
    for row, answer in zip(rows, answers, strict=True):
        version = split.version(entity_key(row, ("id",)))
        assert (answer.version, answer.score) == (version, (row["id"] * 10 + row["b"]) * float(version))
    roles = Counter((version, role) for _, _, version, role in log.rows)
    assert set(roles) <= {("1", "stable"), ("2", "canary")}
    assert sum(seen.counted().calls for seen in split.evidence.values()) == len({a.version for a in answers})


def test_a_request_may_ask_for_a_version_a_label_or_bring_its_key() -> None:
    split = Split("r", "1", "2", 0.5, None, {"1": Evidence(), "2": Evidence()})
    endpoint = endpoint_of([ModelVersions("1", ready("1", "2", "3"), {"mine": "3"}, split)], Log())
    row = [{"id": 1, "b": 1.0}]

    def version(asked: Asked) -> str:
        return endpoint.answer(row, [1], asked)[0].version

    assert [version(Asked(version=number)) for number in ("1", "2", "3")] == ["1", "2", "3"]
    assert [version(Asked(label=label)) for label in ("stable", "canary", "mine")] == ["1", "2", "3"]
    assert {version(Asked(key=b"%d" % n)) for n in range(30)} == {"1", "2"}
    assert all(version(Asked(key=b"%d" % n)) == split.version(b"%d" % n) for n in range(30))
    assert version(ANY) == split.version(entity_key(row[0], ("id",)))
    for asked in (Asked(version="4"), Asked(label="yours")):
        with pytest.raises(Rejected) as caught:
            version(asked)
        assert caught.value.reason is Reason.NO_VERSION


def test_shadows_are_logged_apart_under_the_id_of_the_answer() -> None:
    log, apart, shadow = Log(), Log(), Shadow(binary=False)
    split = Split("r", "1", "2", 0.0, shadow, {"1": Evidence(), "2": Evidence()})
    endpoint = endpoint_of([ModelVersions("1", ready("1", "2"), {}, split)], log, apart)
    answers = endpoint.answer([{"id": 1, "b": 1.0}, {"id": 2, "b": 2.0}], [1, 2])
    assert [answer.version for answer in answers] == ["1", "1"]
    deadline = threading.Event()
    while len(apart.rows) < 2 and not deadline.wait(0.01):
        pass
    shadow.stop()
    assert log.rows == [((10.0, 1.0), 11.0, "1", "stable"), ((20.0, 2.0), 22.0, "1", "stable")]
    assert apart.rows == [((10.0, 1.0), 22.0, "2", "shadow"), ((20.0, 2.0), 44.0, "2", "shadow")]
    assert shadow.differences().total == pytest.approx(33.0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)
