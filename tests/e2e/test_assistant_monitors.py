"""A monitor of an assistant under `mainspring dev`: an alarm opens and closes, and all of it outlives the process."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from e2e.conftest import Served, call, mainspring, serve

APP = """
from mainspring import App

app = App("support")
chat = app.llm("chat")
desk = app.assistant("desk", chat)


@app.evaluation(desk, cases="cases.jsonl", least={"kind": 0.5})
def kind(answer, case) -> bool:
    return case["word"] in answer.text


app.endpoint(desk)
app.monitor(desk, watch=["errors", "cost", "kind"], false_alarms="1 per week")
"""
TOML = """
app = "support:app"
[llms.chat]
adapter = "fake"
script = "script.json"
[prices.chat]
input = 1000000
output = 2000000
[monitoring]
every = 0.2
block = 0.5
block_runs = 20
"""
SCRIPT = [
    {"when": "boom", "text": "It goes", "error": "upstream", "after": 1},
    {"when": "hello", "text": "Good day to you, ada@example.com."},
]
BLOCKS = 8


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "support.py").write_text(APP)
    (tmp_path / "mainspring.toml").write_text(TOML)
    (tmp_path / "script.json").write_text(json.dumps(SCRIPT))
    (tmp_path / "cases.jsonl").write_text('{"question": "hello", "word": "thanks"}\n')
    return tmp_path


def ask(served: Served, text: str, times: int = 20) -> list[dict[str, Any]]:
    """A block's worth of runs, and the wait until its time is over."""
    started = time.monotonic()

    def once(_: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(call(f"{served.url}/assistants/desk/runs", {"input": text})[1])
        return found

    with ThreadPoolExecutor(4) as threads:
        told = list(threads.map(once, range(times)))
    time.sleep(max(0.0, 0.55 - (time.monotonic() - started)))
    return told


def page(served: Served, path: str) -> Any:
    status, body, _ = call(f"{served.console}{path}", headers={"Accept": "application/json"})
    assert status == 200, body
    return json.loads(body)


def until(found: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < deadline, "it has not come about"
        time.sleep(0.1)
    return answer


def ask_until(served: Served, text: str, found: Callable[[], Any]) -> int:
    """How many times more was asked until it was so: on a slow machine runs spill over into the next block."""
    deadline = time.monotonic() + 90
    for asked in itertools.count():
        if found():
            return asked
        assert time.monotonic() < deadline, "it has not come about"
        ask(served, text)
    raise AssertionError


@pytest.mark.slow
def test_an_alarm_opens_and_closes_and_outlives_the_process(project: Path) -> None:
    mainspring("apply", cwd=project)
    served = serve(project)
    try:
        for _ in range(BLOCKS + 1):
            told = ask(served, "hello")
        assert told[0]["text"].startswith("Good day")
        good = BLOCKS + 1 + ask_until(served, "hello", lambda: page(served, "/monitors/desk")["block"])
        first = page(served, "/monitors/desk")
        assert first["alarms"] == []
        assert {row["feature"] for row in first["scores"]} == {"errors", "cost"}, "every model has its price"
        (row,) = page(served, "/monitors")["monitors"]
        assert (row["name"], row["watches"], row["open"]) == ("desk", "/assistant/desk", 0)
        bad = ask(served, "boom")
        assert all(one["error"] for one in bad)

        def firing() -> Any:
            return [one for one in page(served, "/monitors/desk")["alarms"] if one["state"] == "firing"]

        failed = 1 + ask_until(served, "boom", firing)
        (alarm,) = firing()
        assert (alarm["features"][0], alarm["kind"]) == ("errors", "rate")
        shown = json.loads(mainspring("show", "monitor/desk", "--json", cwd=project).stdout)["monitor"]
        assert [one["features"][0] for one in shown["alarms"]] == ["errors"]
        assert "alarm" in mainspring("show", "monitor/desk", cwd=project).stdout
        assert json.loads(mainspring("show", "alert", "--json", cwd=project).stdout)[0]["monitor"] == "desk"
        metrics = call(f"{served.console}/actuator/prometheus")[1].decode()
        assert 'feature="errors",kind="rate",monitor="desk"' in metrics
        status, html, _ = call(f"{served.console}/monitors/desk", headers={"Accept": "text/html"})
        assert status == 200
        assert "rate of errors" in html.decode()
        run = bad[0]["run"]
        counts = page(served, "/assistants/desk")["counts"]
        assert (counts["runs"], counts["failed"]) == (20 * (good + failed), 20 * failed)
    finally:
        assert served.stop() == 0, served.log.read_text()
    served = serve(project)
    try:
        assert page(served, "/assistants/desk")["counts"] == counts
        trace = page(served, f"/trace/{run}")
        assert (trace["status"], trace["turn"]["error"]["kind"]) == ("failed", bad[0]["error"]["kind"])
        turn = page(served, f"/trace/{told[0]['run']}")["turn"]
        assert turn["text"] == "Good day to you, [email].", "texts are redacted before they are kept"
        assert [one["id"] for one in firing()] == [alarm["id"]], "the alarm is the same one"
        ask_until(served, "hello", lambda: not firing())
        (closed,) = page(served, "/monitors/desk")["alarms"]
        assert (closed["id"], closed["state"]) == (alarm["id"], "resolved")
        mainspring("run", "monitor/desk", cwd=project)
        assert page(served, "/monitors/desk")["facts"]["reference blocks"] == 0
        asked = ask_until(served, "hello", lambda: page(served, "/monitors/desk")["facts"]["reference blocks"])
        assert page(served, "/monitors/desk")["facts"]["reference blocks"] <= asked
    finally:
        assert served.stop() == 0, served.log.read_text()


def test_an_evaluation_below_its_gate_is_an_alarm_until_it_passes(project: Path) -> None:
    mainspring("apply", cwd=project)
    mainspring("run", "kind", cwd=project, status=5)
    served = serve(project)
    try:
        (alarm,) = until(lambda: page(served, "/monitors/desk")["alarms"])
        assert (alarm["kind"], alarm["features"], alarm["score"], alarm["threshold"]) == (
            "evaluation",
            ["kind"],
            0,
            0.5,
        )
        (project / "cases.jsonl").write_text('{"question": "hello", "word": "Good day"}\n')
        mainspring("run", "kind", cwd=project)
        until(lambda: page(served, "/monitors/desk")["alarms"][0]["state"] == "resolved")
    finally:
        assert served.stop() == 0, served.log.read_text()
