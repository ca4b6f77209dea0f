"""Pushes at a running server: durable, online, in the tables later; over kills, stops, other processes and bounds.

MAINSPRING_TEST_KILLS raises the number of kills; MAINSPRING_TEST_SEED repeats the moments.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pytest
from prometheus_client.parser import text_string_to_metric_families

from e2e.conftest import Served, call, mainspring, serve
from mainspring.choose.services import Services
from mainspring.cli.options import open_app
from mainspring.errors import ServiceError
from mainspring.features.logs.ingest import prepare_rows
from mainspring.features.steps import sources_of
from mainspring.features.wal import log as wal_log
from mainspring.features.wal.commit import log_of
from mainspring.features.wal.rows import drafted
from mainspring.server.features.pushing import Pushing
from mainspring.server.features.rows import rows_to_table
from mainspring.server.planning import plan_of
from mainspring.server.state import WorkerState

KILLS = int(os.environ.get("MAINSPRING_TEST_KILLS", "4"))
SEED = int(os.environ.get("MAINSPRING_TEST_SEED", "1"))
MOMENT = "2025-12-05T10:00:00Z"
AT = 1_764_928_800_000_000
"""The same in microseconds."""
LATER = {"MAINSPRING_FEATURES_COMMIT_EVERY": "60", "MAINSPRING_FEATURES_COMMIT_ROWS": "1000000"}
"""Nothing goes into the tables while a test looks."""


@pytest.fixture
def project(built: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    shutil.copytree(built, folder, ignore=shutil.ignore_patterns("dev.lock", "server.log"))
    return folder


@pytest.fixture
def started(project: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    servers: list[Served] = []

    def start(**environment: str) -> Served:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        servers.append(serve(project, "serve"))
        return servers[-1]

    yield start
    for served in servers:
        if served.process.poll() is None:
            assert served.stop() == 0, served.log.read_text()


def visit(customer: str, amount: float = 12.5) -> dict[str, object]:
    return {"customer": customer, "amount": amount, "at": MOMENT, "returned": None}


def push(served: Served, *customers: str, key: str | None = None) -> tuple[int, Any]:
    rows = {"rows": [visit(customer) for customer in customers]}
    status, body, _ = call(f"{served.url}/sources/visits/push", rows, {"Idempotency-Key": key} if key else {})
    return status, json.loads(body)


def online(served: Served, customer: str) -> Any:
    question = {"customer": customer, "amount": 1.0}
    if b'"now" is allowed' not in call(f"{served.url}/endpoint/returns", {**question, "now": MOMENT})[1]:
        question["now"] = MOMENT
    return json.loads(call(f"{served.url}/endpoint/returns?features=true", question)[1])["features"]["visits_30d"]


def in_tables(project: Path) -> list[dict[str, Any]]:
    """The pushed rows in the source's table, by another process's eyes."""
    services = Services.of_project(project)
    try:
        (log,) = (name for name in services.tables.tables() if name.startswith("source/visits/"))
        rows = services.tables.read(log, columns=["customer", "_seq", "_batch"]).sort_by("_seq").to_pylist()
        return [row for row in rows if row["_batch"].startswith(("push/", "request/"))]
    finally:
        services.close()


def waits(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_is_acknowledged_is_online_at_once_and_in_the_tables_soon(project: Path, started: Any) -> None:
    served = started(MAINSPRING_SERVING_REPLAY="true")
    status, answer = push(served, "pushed-1", "pushed-2")
    assert (status, answer["accepted"]) == (200, 2)
    assert online(served, "pushed-1") == 1
    waits(lambda: [row["_seq"] for row in in_tables(project)] == answer["seq"])


def arrow(**columns: Any) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.table(columns)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def test_rows_come_as_arrow_too(project: Path, started: Any) -> None:
    """By the same rules; whatever the bytes are, the answer says what is wrong with them."""
    served = started(MAINSPRING_SERVING_REPLAY="true", MAINSPRING_SERVER_MAX_ROWS="50")
    kind = {"Content-Type": "application/vnd.apache.arrow.stream"}

    def send(body: bytes, **headers: str) -> tuple[int, Any]:
        status, answer, _ = call(f"{served.url}/sources/visits/push", body, {**kind, **headers})
        return status, json.loads(answer)

    at = pa.array([AT, AT], pa.int64()).cast(pa.timestamp("us", "UTC"))
    good = arrow(customer=["arrow", "negative"], amount=[1.0, -1.0], at=at)
    status, answer = send(good)
    assert (status, answer["accepted"], answer["quarantined"]) == (200, 1, 1)
    assert online(served, "arrow") == 1
    keyed = {"Idempotency-Key": "a"}
    assert send(good, **keyed)[1]["seq"] == send(good, **keyed)[1]["seq"]
    assert send(arrow(customer=["x"], colour=["red"], at=at[:1]))[1]["code"] == "MS-2304"
    assert send(arrow(customer=[1], at=at[:1]))[1]["code"] == "MS-2110"
    fine = pa.array([AT * 1000 + 1], pa.int64()).cast(pa.timestamp("ns", "UTC"))
    assert send(arrow(customer=["x"], at=fine))[1]["code"] == "MS-2110"
    assert send(arrow(customer=["x"] * 51, at=pa.array([AT] * 51).cast(pa.timestamp("us", "UTC"))))[0] == 413
    chance = random.Random(SEED)
    for _ in range(40):
        torn = bytearray(good[: chance.randrange(len(good))])
        for _ in range(chance.randrange(3)):
            if torn:
                torn[chance.randrange(len(torn))] ^= chance.randrange(1, 256)
        assert send(bytes(torn) or b"?")[0] in (200, 400)
    assert served.process.poll() is None


def test_apply_in_another_process_sees_what_was_acknowledged_before_it_began(project: Path, started: Any) -> None:
    served = started(**LATER)
    _, answer = push(served, "pushed")
    assert in_tables(project) == []
    steps = {step["name"]: step for step in json.loads(mainspring("apply", "--json", cwd=project).stdout)["steps"]}
    assert steps["source/visits"]["status"] == "ok"
    assert [(row["customer"], row["_seq"]) for row in in_tables(project)] == [("pushed", answer["seq"][0])]
    _, more = push(served, "pushed-again")
    assert more["seq"][0] > answer["seq"][0]
    assert served.stop() == 0
    assert [row["customer"] for row in in_tables(project)] == ["pushed", "pushed-again"]


def test_a_server_that_is_killed_goes_on_where_it_was(project: Path, started: Any) -> None:
    served = started(MAINSPRING_SERVING_REPLAY="true", **LATER)
    _, answer = push(served, "pushed", key="k")
    served.process.kill()
    served.process.wait(timeout=60)
    assert in_tables(project) == []
    served = started()
    assert online(served, "pushed") == 1
    assert [row["_seq"] for row in in_tables(project)] == answer["seq"][:1]
    assert push(served, "pushed", key="k") == (200, answer)
    assert push(served, "other", key="k")[0] == 409


def test_a_push_that_died_before_it_was_online_is_online_after_the_start(project: Path, started: Any) -> None:
    """As if the server had been killed between the log and the online store."""
    services, app = open_app(project, None)
    try:
        source = sources_of(plan_of(app))["visits"]
        log = log_of(services.tables, source)
        rows: pa.Table = rows_to_table(source, [visit("unheard")])
        log.append(drafted(source, prepare_rows(source, rows), AT, None))
        log.close()
    finally:
        services.close()
    served = started(MAINSPRING_SERVING_REPLAY="true")
    assert online(served, "unheard") == 1


def test_rows_that_left_the_log_before_they_were_online_are_brought_there(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acknowledged and committed, and the online store failed each time so far; or the server died in between."""
    monkeypatch.setattr(wal_log, "_SMALL", 1)
    services, app = open_app(project, None)
    failing = ServiceError("it does not answer", code="MS-4210")

    def fail(*_: object, **__: object) -> None:
        raise failing

    def opened() -> tuple[WorkerState, Pushing]:
        state = WorkerState(services, plan_of(app))
        state.open()
        assert state.pushing is not None
        return state, state.pushing

    def habits(state: WorkerState) -> object:
        (answer,) = state.endpoints["returns"].answer([{"customer": "late", "amount": 1.0}], [AT])
        return answer.statuses

    state, pushing = opened()
    with monkeypatch.context() as patch:
        patch.setattr("mainspring.server.features.pushing.upsert", fail)
        patch.setattr("mainspring.server.features.pushing.follow", fail)
        answer = pushing.push("visits", [visit("late")], None, None)
        assert list(cast("dict[str, str]", answer["not_online"])) == ["habits"]
        for _ in range(2):
            with pytest.raises(ServiceError):
                pushing.commit("visits")
    assert [row["customer"] for row in in_tables(project)] == ["late"]
    assert habits(state) == {"habits": "MISSING"}
    again, restarted = opened()  # it died here
    restarted.commit_all()
    assert habits(again) == {"habits": "PRESENT"}
    pushing.commit("visits")
    assert habits(state) == {"habits": "PRESENT"}
    state.close()


def test_a_server_that_is_stopped_leaves_nothing_waiting(project: Path, started: Any) -> None:
    served = started(**LATER)
    push(served, "pushed")
    assert served.stop() == 0, served.log.read_text()
    assert [row["customer"] for row in in_tables(project)] == ["pushed"]


def test_a_push_is_acknowledged_at_the_table_where_that_is_asked_for(project: Path, started: Any) -> None:
    served = started(MAINSPRING_FEATURES_ACK="table", MAINSPRING_SERVING_REPLAY="true", **LATER)
    _, answer = push(served, "pushed")
    assert [row["_seq"] for row in in_tables(project)] == answer["seq"][:1]
    assert online(served, "pushed") == 1


def test_too_much_that_waits_is_refused_for_now_and_told(project: Path, started: Any) -> None:
    toml = project / "mainspring.toml"
    toml.write_text(f'{toml.read_text()}\n[management]\nenabled = true\nexpose = ["health", "prometheus"]\n')
    served = started(MAINSPRING_FEATURES_WAL_BYTES="3000", **LATER)
    taken = 0
    for number in itertools.count():
        rows = {"rows": [visit(f"c{number}")]}
        status, body, headers = call(f"{served.url}/sources/visits/push", rows)
        if status != 200:
            break
        taken += 1
    assert (status, json.loads(body)["code"]) == (429, "MS-5046")
    assert {name.lower(): value for name, value in headers.items()}["retry-after"] == "1"
    page = call(f"{served.console}/actuator/prometheus")[1].decode()
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.labels.get("source") == "visits"
    }
    assert samples["mainspring_feature_lag_rows"] == taken
    assert samples["mainspring_feature_wal_bytes"] > 3000
    assert samples["mainspring_feature_waiting_seconds"] > 0
    assert samples["mainspring_features_pushed_total"] == taken
    assert served.stop() == 0
    assert len(in_tables(project)) == taken


class Clients:
    """Threads that push two rows under a name each until the server is dead; what was sent, and what was taken."""

    def __init__(self) -> None:
        self.sent: set[str] = set()
        self.taken: dict[str, list[int]] = {}

    def push_until_dead(self, served: Served, run: str) -> None:
        for turn in itertools.count():
            name = f"{run}-{turn}"
            self.sent.add(name)
            try:
                status, answer = push(served, name, f"{name}+", key=name)
            except (OSError, ValueError):
                return
            if status == 200:
                self.taken[name] = answer["seq"]

    def until_killed(self, served: Served, run: str, wait: float) -> None:
        threads = [
            threading.Thread(target=self.push_until_dead, args=(served, f"{run}c{number}")) for number in range(3)
        ]
        known = len(self.taken)
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + 60
        while len(self.taken) == known:  # a slow machine has acknowledged nothing yet
            assert time.monotonic() < deadline, served.log.read_text()
            time.sleep(0.01)
        time.sleep(wait)
        served.process.kill()
        served.process.wait(timeout=60)
        for thread in threads:
            thread.join(timeout=60)


def test_kills_of_a_server_lose_tear_and_double_no_acknowledged_row(project: Path, started: Any) -> None:
    chance, clients = random.Random(SEED), Clients()
    for kill in range(KILLS):
        clients.until_killed(started(MAINSPRING_FEATURES_COMMIT_EVERY="0.05"), f"k{kill}", chance.uniform(0.1, 1.0))
    served = started()
    again = next(iter(clients.taken))
    assert push(served, again, f"{again}+", key=again)[1]["seq"] == clients.taken[again]
    assert served.stop() == 0, served.log.read_text()
    rows = in_tables(project)
    assert {name: count for name, count in Counter(row["customer"] for row in rows).items() if count > 1} == {}
    held = {row["customer"]: row["_seq"] for row in rows}
    assert len(clients.taken) >= KILLS
    for name, (first, last) in clients.taken.items():
        assert (held[name], held[f"{name}+"]) == (first, last)
    for name in clients.sent:
        assert (name in held) == (f"{name}+" in held), "a push is there whole or not at all"
    print(f"{KILLS} kills, {len(clients.taken)} acknowledged, {len(rows)} rows")
