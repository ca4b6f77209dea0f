"""The same app on an online store that is a server: applied, served, pushed to; and when it hangs or is gone."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis

import postgres
import redis_server
from e2e.conftest import Served, call, mainspring, serve

ROW = {"customer": "c01", "amount": 20.0}


@pytest.fixture(scope="module", params=["redis", "postgres"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    with {"redis": redis_server, "postgres": postgres}[request.param].running() as found:
        yield found


def copied(built: Path, folder: Path) -> Path:
    project = folder / "shop"
    shutil.copytree(built, project, ignore=shutil.ignore_patterns("dev.lock", "server.log", "online"))
    return project


def test_features_are_materialised_served_and_pushed(
    built: Path, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copied(built, tmp_path)
    expected = json.loads(mainspring("show", "model/returns", "--json", cwd=project).stdout)["versions"]
    monkeypatch.setenv("MAINSPRING_ONLINE_URL", url)
    steps = {
        step["name"]: step["status"] for step in json.loads(mainspring("apply", "--json", cwd=project).stdout)["steps"]
    }
    assert steps["online/habits"] == "ok", "the state in the other store does not count here"
    assert {status for name, status in steps.items() if not name.startswith("online/")} == {"hit"}
    assert json.loads(mainspring("show", "model/returns", "--json", cwd=project).stdout)["versions"] == expected
    served = serve(project)
    try:
        answer = json.loads(call(f"{served.url}/endpoint/returns", ROW)[1])
        assert answer["status"] == {"habits": "PRESENT"}
        batch = [{**ROW, "customer": f"c{number:02d}"} for number in range(1, 6)] + [{**ROW, "customer": "new"}]
        many = json.loads(call(f"{served.url}/endpoint/returns", {"rows": batch})[1])["predictions"]
        assert many[0]["score"] == answer["score"]
        assert [one["status"]["habits"] for one in many] == ["PRESENT"] * 5 + ["MISSING"]
        data = project / "data" / "visits.csv"
        head, first = data.read_text().splitlines()[:2]
        row = {**dict(zip(head.split(","), first.split(","), strict=True)), "customer": "new"}
        row = {name: _value(value) for name, value in row.items()}
        assert call(f"{served.url}/sources/visits/push", {"rows": [row]})[0] == 200
        pushed = json.loads(call(f"{served.url}/endpoint/returns", {**ROW, "customer": "new"})[1])
        assert pushed["status"] == {"habits": "PRESENT"}
        time.sleep(6)  # so that the server has seen what is there
        _empty(url)

        def answered(question: dict[str, object]) -> object:
            return json.loads(call(f"{served.url}/endpoint/returns", question)[1])["score"]

        until(lambda: answered(ROW) == answer["score"], served)
        until(lambda: answered({**ROW, "customer": "new"}) == pushed["score"], served)
        until(lambda: "the online store had lost feature view habits" in served.log.read_text(), served)
    finally:
        assert served.stop() == 0, served.log.read_text()


def _empty(url: str) -> None:
    """What a server does that comes back without its disk."""
    if url.startswith("unix"):
        redis.Redis.from_url(url).flushall()
        return
    with psycopg.connect(url) as connection:
        connection.execute("truncate mainspring_online")


def until(true: Callable[[], bool], served: Served) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, served.log.read_text()
        time.sleep(0.2)


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


def test_a_push_that_the_store_does_not_take_is_kept_and_brought_there_later(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copied(built, tmp_path)
    with redis_server.running() as url:
        monkeypatch.setenv("MAINSPRING_ONLINE_URL", url)
        monkeypatch.setenv("MAINSPRING_ONLINE_TIMEOUT", "0.5")
        mainspring("apply", cwd=project)
        served = serve(project)
        try:
            redis_server.signalled(url, signal.SIGSTOP)
            row = {"customer": "kept", "amount": 2.5, "at": "2025-12-05T10:00:00Z"}
            status, body, _ = call(f"{served.url}/sources/visits/push", {"rows": [row]})
            assert (status, json.loads(body)["accepted"]) == (200, 1)
            assert list(json.loads(body)["not_online"]) == ["habits"]
            time.sleep(1.5)  # until it was tried again in vain
            redis_server.signalled(url, signal.SIGCONT)
            deadline = time.monotonic() + 60
            question = {**ROW, "customer": "kept"}
            while True:
                status, body, _ = call(f"{served.url}/endpoint/returns", question)
                if status == 200 and json.loads(body)["status"] == {"habits": "PRESENT"}:
                    break
                assert time.monotonic() < deadline, body
                time.sleep(0.1)
        finally:
            redis_server.signalled(url, signal.SIGCONT)
            assert served.stop() == 0, served.log.read_text()


def test_a_store_that_hangs_holds_up_nobody_else_and_one_that_is_gone_is_told(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copied(built, tmp_path)
    with redis_server.running() as url:
        monkeypatch.setenv("MAINSPRING_ONLINE_URL", url)
        monkeypatch.setenv("MAINSPRING_ONLINE_TIMEOUT", "30")
        mainspring("apply", cwd=project)
        served = serve(project)
        try:
            answers: list[tuple[int, bytes]] = []
            redis_server.signalled(url, signal.SIGSTOP)
            asking = threading.Thread(target=lambda: answers.append(call(f"{served.url}/endpoint/returns", ROW)[:2]))
            asking.start()
            began = time.monotonic()
            while time.monotonic() < began + 1:
                assert call(f"{served.url}/v2/health/live")[0] == 200
            assert answers == []
            redis_server.signalled(url, signal.SIGCONT)
            asking.join()
            assert answers[0][0] == 200
            redis_server.signalled(url, signal.SIGKILL)
            status, body, _ = call(f"{served.url}/endpoint/returns", ROW)
            assert status == 503, body
            assert "MS-4210" in body.decode()
            assert call(f"{served.url}/v2/health/live")[0] == 200
        finally:
            assert served.stop() == 0, served.log.read_text()
    refused = mainspring("conditions", "online", cwd=project)
    assert "redis" in refused.stdout
    assert "start it, correct online.url" in mainspring("doctor", cwd=project, status=3).stdout
