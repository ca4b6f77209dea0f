"""Budgets on the real command line: of callers, tenants and models, over two workers, their deaths, and assistants."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import postgres
import redis_server
from e2e.conftest import Served, call, mainspring, serve

APP = """
from mainspring import App

app = App("talk")
chat = app.llm("chat", max_tokens=50)
app.endpoint(chat)
app.endpoint(app.assistant("helper", chat))
"""
TOML = """
app = "talk:app"
[server]
workers = 2
[llms.chat]
adapter = "fake"
[callers.ada]
key = "env:ADA_KEY"
tenant = "acme"
[callers.bob]
key = "env:BOB_KEY"
tenant = "acme"
[callers.eve]
key = "env:EVE_KEY"
[limits.ada]
requests = 20
window_s = 1e9
[tenant_limits.acme]
requests = 30
window_s = 1e9
[model_limits.chat]
requests = 45
window_s = 1e9
"""
ASK = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def talk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ADA", "BOB", "EVE"):
        monkeypatch.setenv(f"{name}_KEY", f"{name.lower()}-secret")
    project = tmp_path / "talk"
    project.mkdir()
    (project / "talk.py").write_text(APP)
    (project / "mainspring.toml").write_text(TOML)
    return project


@pytest.fixture
def served(talk: Path) -> Iterator[Served]:
    mainspring("apply", cwd=talk)
    found = serve(talk, "serve")
    try:
        wait_for(lambda: "2 answer" in found.log.read_text())
        yield found
    finally:
        assert found.stop() == 0, found.log.read_text()


def wait_for(found: Callable[[], object], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end
        time.sleep(0.1)


def workers_of(served: Served) -> dict[int, int]:
    """The process of each worker, by the worker's number."""
    pid, found = served.process.pid, {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if b"--worker" in words:
            found[int(words[words.index(b"--worker") + 1])] = int(child)
    return found


def asked(served: Served, who: str, count: int, body: object = ASK) -> Counter[int]:
    """So many requests at once, each on a connection of its own: the kernel spreads them over the workers."""

    def one(_: int) -> int:
        return call(f"{served.url}/v1/chat/completions", body, {"authorization": f"Bearer {who}-secret"})[0]

    with ThreadPoolExecutor(8) as pool:
        return Counter(pool.map(one, range(count)))


def test_budgets_hold_over_all_workers_and_their_deaths(served: Served) -> None:
    assert asked(served, "ada", 12) == {200: 12}
    os.kill(workers_of(served)[1], signal.SIGKILL)
    wait_for(lambda: "worker 1 is replaced" in served.log.read_text() and len(workers_of(served)) == 2)
    found = asked(served, "ada", 30)
    assert found == {200: 8, 429: 22}, "20 in all, whichever worker answers"
    assert asked(served, "bob", 25) == {200: 10, 429: 15}, "30 of the tenant's callers together"
    assert asked(served, "eve", 25) == {200: 15, 429: 10}, "45 of the model in all"
    status, body, _ = call(f"{served.url}/v1/chat/completions", ASK, {"authorization": "Bearer eve-secret"})
    assert status == 429
    said = json.loads(body)["error"]
    assert "model:chat" in said["message"]
    assert said["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize("store", ["redis", "postgres"])
def test_several_servers_have_one_budget(talk: Path, tmp_path: Path, store: str) -> None:
    with redis_server.running() if store == "redis" else postgres.running() as url:
        file = talk / "mainspring.toml"
        told = file.read_text().replace("workers = 2", "workers = 1") + f'[budgets]\nurl = "{url}"\n'
        file.write_text(told.replace("tenant_limits.acme]\nrequests = 30", "tenant_limits.acme]\ntokens = 2500"))
        mainspring("apply", cwd=talk)
        other = tmp_path / "other"
        shutil.copytree(talk, other)
        servers = [serve(talk, "serve"), serve(other, "serve")]
        try:
            first, second = servers
            assert asked(first, "ada", 12) == {200: 12}
            assert asked(second, "ada", 30) == {200: 8, 429: 22}, "20 in all, whichever server answers"
            both = asked(first, "eve", 15) + asked(second, "eve", 15)
            assert both == {200: 25, 429: 5}, "45 of the model in all"
            assert second.stop() == 0, second.log.read_text()
            servers[1] = serve(other, "serve")
            assert asked(servers[1], "eve", 5) == {429: 5}, "the store knows, whoever starts anew"
            health = json.loads(call(f"{first.console}/actuator/health", headers={})[1])
            assert health["status"] == "UP"
        finally:
            stopped = [one.stop() for one in servers if one.process.poll() is None]
        assert stopped == [0, 0]


def test_an_assistant_counts_at_its_callers_expense(served: Served) -> None:
    helper = {**ASK, "model": "helper"}
    assert asked(served, "ada", 19, helper) == {200: 19}
    assert asked(served, "ada", 3) == {200: 1, 429: 2}
    found = asked(served, "ada", 2, helper)
    assert 200 not in found, "an assistant is no way around a budget"


def test_a_budget_for_nobody_is_refused_before_anything_is_served(talk: Path) -> None:
    file = talk / "mainspring.toml"
    file.write_text(file.read_text().replace("tenant_limits.acme", "tenant_limits.acne"))
    said = mainspring("check", cwd=talk, status=None).stderr
    assert "MS-3170" in said
    assert "acme" in said
