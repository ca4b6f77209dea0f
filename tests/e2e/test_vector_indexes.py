"""Vectors as features through the real command line and server: found, pushed, killed, lost, declared anew."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from e2e.conftest import Served, call, mainspring, serve
from mainspring.catalog.ids import now_us
from mainspring.choose.services import Services
from mainspring.config.project import load_app
from mainspring.errors import ServiceError, UsageError
from mainspring.features.logs.unused import KEEP_US
from mainspring.features.online.keys import view_prefix
from mainspring.features.steps import sources_of
from mainspring.features.vector_index.search import NearestRequest
from mainspring.server.features import sweeping, vector_indexes
from mainspring.server.loop import online_views
from mainspring.server.planning import plan_of
from mainspring.server.state import WorkerState
from mainspring.testing import open_project

APP = """
from datetime import datetime

from mainspring import App, Entity, Field, Record, last

app = App("store")
item = Entity("item")


class Product(Record):
    item: str
    image: list[float] | None = Field(length=3)
    price: float | None
    colour: str | None
    at: datetime
    gone: bool | None


products = app.source(Product, time="at", deleted="gone")
catalogue = app.features(
    products, entity=item, image=last("image"), price=last("price"), colour=last("colour")
)
similar = app.vector_index(catalogue.image, filters=["price", "colour"])
"""
TOML = 'app = "store:app"\n[sources.products]\npath = "data/products.json"\n'
ROWS = [
    {"item": "a", "image": [1, 0, 0], "price": 10.0, "colour": "red", "at": "2025-01-01T00:00:00Z"},
    {"item": "b", "image": [0.9, 0.1, 0], "price": 30.0, "colour": "blue", "at": "2025-01-01T00:00:00Z"},
    {"item": "c", "image": [0, 1, 0], "price": 20.0, "colour": "red", "at": "2025-01-01T00:00:00Z"},
    {"item": "d", "image": None, "price": 20.0, "colour": "red", "at": "2025-01-01T00:00:00Z"},
    {"item": "e", "image": [0, 0, 0], "price": 20.0, "colour": "red", "at": "2025-01-01T00:00:00Z"},
]
SEARCH = "/v1/vector-indexes/similar/search"


def made(place: Path) -> Path:
    (place / "data").mkdir(parents=True)
    (place / "store.py").write_text(APP)
    (place / "mainspring.toml").write_text(TOML)
    (place / "data" / "products.json").write_text("".join(json.dumps({**row, "gone": False}) + "\n" for row in ROWS))
    return place


def ask(served: Served, path: str, body: object = None) -> tuple[int, Any]:
    status, data, _ = call(f"{served.url}{path}", body)
    return status, json.loads(data)


def found(served: Served, **body: Any) -> list[str]:
    status, answer = ask(served, SEARCH, body)
    assert status == 200, answer
    return [hit["entity"]["item"] for hit in answer["hits"]]


def push(served: Served, *rows: dict[str, Any]) -> None:
    now = datetime.now(UTC).isoformat()
    given = [{"price": 1.0, "colour": "red", "image": None, "gone": None, "at": now} | row for row in rows]
    status, answer = ask(served, "/sources/products/push", {"rows": given})
    assert (status, answer["accepted"], answer["quarantined"]) == (200, len(rows), 0), answer


def until(served: Served, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline, served.log.read_text()[-3000:]
        time.sleep(0.05)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = made(tmp_path_factory.mktemp("vectors") / "store")
    mainspring("check", cwd=project)
    report = json.loads(mainspring("apply", "--json", cwd=project).stdout)
    steps = {step["name"]: step for step in report["steps"]}
    assert steps["vector_index/similar"]["status"] == "ok"
    assert "1 null, 1 zero" in steps["vector_index/similar"]["note"]
    return project


@pytest.fixture(scope="module")
def store(built: Path) -> Iterator[Served]:
    served = serve(built, "dev")
    yield served
    assert served.stop() == 0, served.log.read_text()


def test_the_nearest_come_with_their_features(store: Served) -> None:
    status, answer = ask(store, SEARCH, {"vector": [1, 0, 0], "k": 2})
    assert status == 200
    assert (answer["index"], answer["complete"], answer["notes"]) == ("similar", True, [])
    first, second = answer["hits"]
    assert first == {
        "entity": {"item": "a"},
        "score": pytest.approx(1.0),
        "features": {"price": 10.0, "colour": "red"},
        "event_us": 1735689600000000,
    }
    assert (second["entity"], second["score"]) == ({"item": "b"}, pytest.approx(0.9 / 0.82**0.5))
    assert found(store, vector=[1, 0, 0], filter={"eq": ["colour", "red"]}, k=2) == ["a", "c"]
    assert found(store, vector=[1, 0, 0], filter={"range": ["price", {"gt": 10, "lte": 30}]}, k=2) == ["b", "c"]
    assert found(store, entity={"item": "c"}, k=1) == ["b"]
    _, answer = ask(
        store, SEARCH, {"vector": [0, 1, 0], "k": 3, "features": ["image"], "filter": {"eq": ["price", 20]}}
    )
    assert [hit["features"] for hit in answer["hits"]] == [{"image": [0, 1, 0]}]
    assert (answer["complete"], answer["notes"][0]["code"]) == (False, "fewer_than_k")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        ({"vector": [1, 0, 0], "nothing": 1}, 400),
        ({}, 400),
        ({"vector": [1, 0, 0], "entity": {"item": "a"}}, 400),
        ({"vector": [1, 0, 0], "k": 0}, 400),
        ({"vector": [1, 0, 0], "k": 1001}, 400),
        ({"vector": [1, 0, 0], "recall": 0}, 400),
        ({"vector": [1, 0, 0], "filter": {"eq": ["size", 1]}}, 400),
        ({"vector": [1, 0, 0], "filter": {"eq": ["price", "red"]}}, 400),
        ({"vector": [1, 0, 0], "filter": {"like": ["price", "red"]}}, 400),
        ({"vector": [1, 0, 0], "features": ["size"]}, 400),
        ({"entity": {"item": 7}}, 400),
        ({"entity": {}}, 400),
        ({"vector": [1, 0]}, 422),
        ({"vector": [0, 0, 0]}, 422),
        ({"vector": [1e39, 0, 0]}, 422),
        ({"entity": {"item": "nobody"}}, 404),
        ({"entity": {"item": "d"}}, 404),
        ({"entity": {"item": "e"}}, 404),
    ],
)
def test_what_cannot_be_asked(store: Served, body: object, status: int) -> None:
    answered, answer = ask(store, SEARCH, body)
    assert answered == status, answer
    assert answer["error"]


def test_feasts_clients_search_as_they_do(store: Served) -> None:
    asked = {"features": ["catalogue:colour", "catalogue:price"], "query": [1, 0, 0], "top_k": 2, "api_version": 2}
    for path in ("/search", "/retrieve-online-documents"):
        status, answer = ask(store, path, asked)
        assert status == 200
        assert answer["metadata"] == {"feature_names": ["colour", "price", "distance", "item"]}
        colour, price, distance, item = answer["results"]
        assert (item["values"], item["statuses"]) == (["a", "b"], ["PRESENT", "PRESENT"])
        assert (colour["values"], price["values"]) == (["red", "blue"], [10.0, 30.0])
        assert distance["values"] == [pytest.approx(0.0, abs=1e-6), pytest.approx(1 - 0.9 / 0.82**0.5)]
        assert price["event_timestamps"] == ["2025-01-01T00:00:00Z"] * 2
        assert item["event_timestamps"] == ["1970-01-01T00:00:00Z"] * 2
    either = {"type": "or", "filters": [{"type": "gte", "key": "price", "value": 30}, _equals("colour", "none")]}
    for filters, items in (
        (_equals("colour", "red"), ["a", "c"]),
        ({"type": "ne", "key": "colour", "value": "red"}, ["b"]),
        ({"type": "nin", "key": "colour", "value": ["red"]}, ["b"]),
        (either, ["b"]),
    ):
        answer = ask(store, "/search", {**asked, "filters": filters})[1]
        assert answer["results"][-1]["values"] == items
    named = ["catalogue:item", "catalogue:image", "catalogue:distance", "catalogue:price"]
    answer = ask(store, "/retrieve-online-documents", {"features": named, "query": [1, 0, 0], "top_k": 1})[1]
    assert answer["metadata"]["feature_names"] == ["item", "image", "distance"]
    assert [result["values"] for result in answer["results"]][:2] == [["a"], [[1, 0, 0]]]
    none = ask(store, "/search", {**asked, "filters": _equals("colour", "none")})[1]
    assert none["metadata"]["feature_names"] == ["colour", "price", "distance"]
    assert [result["values"] for result in none["results"]] == [[], [], []]


def _equals(key: str, value: object) -> dict[str, object]:
    return {"type": "eq", "key": key, "value": value}


@pytest.mark.parametrize(
    "wrong",
    [
        {"features": []},
        {"features": ["catalogue"]},
        {"features": ["catalogue:price", "other:price"]},
        {"features": ["other:price"]},
        {"features": ["catalogue:size"]},
        {"query": None},
        {"query": [1, 0]},
        {"query": "red"},
        {"query_string": "red"},
        {"top_k": None},
        {"top_k": 0},
        {"filters": {"type": "like", "key": "price", "value": 1}},
        {"filters": {"type": "eq", "key": "size", "value": 1}},
        {"filters": {"type": "and", "filters": [1]}},
    ],
)
def test_what_feasts_clients_cannot_ask(store: Served, wrong: dict[str, object]) -> None:
    asked = {"features": ["catalogue:price"], "query": [1, 0, 0], "top_k": 2, "api_version": 2, **wrong}
    status, answer = ask(store, "/search", asked)
    assert status == 422, answer


def test_what_there_is(store: Served) -> None:
    status, answer = ask(store, "/v1/vector-indexes")
    assert status == 200
    (told,) = answer["vector_indexes"]
    assert ask(store, "/v1/vector-indexes/similar") == (200, told)
    assert (told["view"], told["feature"], told["dims"], told["metric"]) == ("catalogue", "image", 3, "cosine")
    assert told["filters"] == {"price": "number", "colour": "string"}
    assert (told["state"], told["behind"]) == ("built", False)
    assert ask(store, "/v1/vector-indexes/other")[0] == ask(store, "/v1/vector-indexes/other/search", {})[0] == 404
    page = json.loads(call(f"{store.console}/data/vector_index/similar.json")[1])
    assert (page["index"]["feature"], page["upstream"][-1]) == ("image", "/feature_view/catalogue")
    assert "entities" in call(f"{store.console}/vector_index/similar")[1].decode()
    assert "similar" in call(f"{store.console}/data")[1].decode()
    shown = mainspring("show", "vector_index/similar", cwd=store.project).stdout
    assert "/feature_view/catalogue" in shown
    assert "built" in shown
    listed = json.loads(mainspring("show", "vector_index/similar", "--json", cwd=store.project).stdout)
    assert listed["vector_index"]["entities"] == told["entities"]


def test_pushes_corrections_and_deletions_are_followed(store: Served) -> None:
    at = datetime.now(UTC).isoformat()
    push(store, {"item": "new", "image": [0, 0, 1], "at": at})
    until(store, lambda: found(store, vector=[0, 0, 1], k=1) == ["new"])
    push(store, {"item": "new", "image": [0, -1, 0.1], "at": at})  # a correction
    until(store, lambda: found(store, vector=[0, -1, 0], k=1) == ["new"])
    push(store, {"item": "new", "image": [0, 0, 1], "at": "2025-06-01T00:00:00Z"})  # too late to count
    push(store, {"item": "seen", "image": [0, 0, 1]})
    until(store, lambda: found(store, vector=[0, 0, 1], k=1) == ["seen"])
    assert found(store, vector=[0, -1, 0], k=1) == ["new"]
    push(store, {"item": "new", "gone": True}, {"item": "seen", "gone": True})
    assert not {"new", "seen"} & set(found(store, vector=[0, -1, 0], k=9))  # at once, whatever the index has
    metrics = call(f"{store.console}/actuator/prometheus")[1].decode()
    assert 'mainspring_vector_index_lag_seconds{app="store",index="similar"}' in metrics


def test_kills_lose_nothing_and_other_definitions_are_built_beside(built: Path, tmp_path: Path) -> None:
    project = tmp_path / "store"
    shutil.copytree(built, project)
    vectors = {}
    for number in range(4):
        served = serve(project, "serve")
        for place in range(5):
            vectors[f"k{number}{place}"] = [float(number + 1), float(place - 2), 7.0]
            push(served, {"item": f"k{number}{place}", "image": vectors[f"k{number}{place}"]})
        time.sleep(0.13 * number)  # somewhere in the midst of following
        served.process.kill()
        served.process.wait()
    served = serve(project, "serve")
    try:
        until(served, lambda: not ask(served, "/v1/vector-indexes/similar")[1]["behind"])
        for item, vector in vectors.items():
            assert found(served, vector=vector, k=1, recall=1) == [item]
        assert len(found(served, vector=[1, 1, 1], k=1000, recall=1)) >= len(vectors) + 3
    finally:
        assert served.stop() == 0
    shutil.rmtree(project / ".mainspring" / "indexes")  # a store that is lost is filled again
    served = serve(project, "serve")
    try:
        until(served, lambda: ask(served, SEARCH, {"vector": [1, 0, 0]})[0] == 200)
        for item, vector in vectors.items():
            assert found(served, vector=vector, k=1, recall=1) == [item]
        # Another definition is built beside this one, which goes on answering.
        first = ask(served, "/v1/vector-indexes/similar")[1]["collection"]
        (project / "store.py").write_text(APP.replace('"colour"])', '"colour"], metric="dot")'))
        steps = json.loads(mainspring("apply", "--json", cwd=project).stdout)["steps"]
        assert {step["name"]: step["status"] for step in steps}["vector_index/similar"] == "ok"
        assert ask(served, SEARCH, {"vector": [5, 0, 0], "k": 1})[1]["hits"][0]["score"] == pytest.approx(1.0)
    finally:
        assert served.stop() == 0
    served = serve(project, "serve")
    try:
        answer = ask(served, SEARCH, {"vector": [0, 0, 1], "k": 1})[1]
        assert answer["hits"][0]["score"] == pytest.approx(7.0)
        told = ask(served, "/v1/vector-indexes/similar")[1]
        assert (told["metric"], told["behind"]) == ("dot", False)
        assert told["collection"] != first
        steps = json.loads(mainspring("apply", "--json", cwd=project).stdout)["steps"]
        assert {step["name"]: step["status"] for step in steps}["vector_index/similar"] == "hit"
    finally:
        assert served.stop() == 0


def test_a_project_asks_it_in_its_own_tests_and_pushes_outlive_the_vector_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made(tmp_path / "store")
    (folder / "store.py").rename(folder / "stored.py")
    (folder / "mainspring.toml").write_text(TOML.replace("store:app", "stored:app"))
    with open_project(folder, state=tmp_path / "state") as project:
        with pytest.raises(UsageError):
            project.nearest("other", vector=[1, 0, 0])
        with pytest.raises(ServiceError):
            project.nearest("similar", vector=[1, 0, 0])
        project.build()
        answer = project.nearest("similar", vector=[1, 0, 0], k=1)
        assert [hit.entity for hit in answer.hits] == [{"item": "a"}]
        with pytest.raises(UsageError):
            project.nearest("similar", vector="red")
    sys.path.remove(str(folder))
    services = Services.of_project(folder)
    services.state = tmp_path / "state"
    state = WorkerState(services, plan_of(load_app(services.settings)))
    state.open()
    try:

        def gone(services: Services) -> None:
            raise ServiceError("the vector store does not answer", code="MS-4195", fix="start it")

        new = {"item": "f", "image": [0, 0, 1], "price": 1.0, "colour": "red", "gone": False}
        clock = {"now": 0.0}
        monkeypatch.setattr(vector_indexes, "time", SimpleNamespace(monotonic=lambda: clock["now"]))
        with monkeypatch.context() as broken:
            broken.setattr(Services, "vectors", property(gone))
            for second in range(4):
                now = datetime.now(UTC).isoformat()
                assert state.push("products", [{**new, "at": now}], None, None)["accepted"] == 1
                state.pushing.commit_all()
                clock["now"] += second
                state.vector_indexes.follow()
        assert capsys.readouterr().err.count("the vector store does not answer") == 1  # told once, tried again
        page = state.metrics_page(b"text/plain")[1].decode()
        assert 'mainspring_vector_index_failed_total{app="store",index="similar"} 3' in page
        assert 'mainspring_vector_index_lag_seconds{app="store",index="similar"} 6' in page
        clock["now"] += 100
        state.vector_indexes.follow()
        found = state.vector_indexes.searchers["similar"].search(NearestRequest(vector=[0, 0, 1], k=1))
        assert found.hits[0].entity == {"item": "f"}
        assert 'lag_seconds{app="store",index="similar"} 0' in state.metrics_page(b"text/plain")[1].decode()
    finally:
        state.close()
        sys.path.remove(str(folder))


def test_what_an_app_does_not_have_any_more_goes_a_day_later(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collection of an index that was removed, and the rows of a view's old definition; others stay."""
    project = tmp_path / "project"
    shutil.copytree(built, project, ignore=shutil.ignore_patterns("dev.lock", "server.log"))
    app = project / "store.py"
    text = app.read_text().replace('similar = app.vector_index(catalogue.image, filters=["price", "colour"])\n', "")
    app.write_text(text.replace(', colour=last("colour")', ""))
    planned = mainspring("plan", cwd=project, status=2).stdout
    assert "kept, and nothing reads it:" in planned
    assert "rows online of feature view catalogue" in planned
    assert "vector index similar, swept a day after an apply or a server sees it" in planned
    mainspring("apply", cwd=project)
    unused = json.loads(mainspring("plan", "--json", cwd=project).stdout)["unused"]
    assert len(unused) == 2
    assert all(one["sweep_us"] == one["since_us"] + KEEP_US for one in unused)
    services = Services.of_project(project)
    try:
        plan = plan_of(load_app(services.settings))
        views, sources = online_views(services, plan), sources_of(plan)
        old = next(int(one["subject"].rpartition("/")[2]) for one in unused if "rows online" in one["what"])
        new = views["catalogue"].id
        kept = dict(services.online.scan(view_prefix(new)))
        assert len(dict(services.online.scan(view_prefix(old)))) == len(kept) >= 5
        assert len(services.vectors.indexes()) == 1
        for hours, gone in ((23, 0), (25, 2), (26, 0)):
            monkeypatch.setattr(sweeping, "now_us", lambda hours=hours: now_us() + hours * 3_600_000_000)
            assert len(sweeping.sweep_unused(services, plan, views, sources, {}, "test")) == gone
        assert dict(services.online.scan(view_prefix(old))) == {}
        assert dict(services.online.scan(view_prefix(new))) == kept
        assert services.vectors.indexes() == ()
    finally:
        services.close()
    assert json.loads(mainspring("plan", "--json", cwd=project).stdout)["unused"] == []
    app.write_text((built / "store.py").read_text())
    mainspring("apply", cwd=project)
    served = serve(project)
    try:
        assert found(served, vector=[1, 0, 0], k=2) == ["a", "b"], "what is declared again is made anew"
    finally:
        assert served.stop() == 0, served.log.read_text()
