"""The management listener's parts that a running server shows seldom: what hangs, what is away, what is not allowed."""

from __future__ import annotations

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.config.settings import Setting, Settings
from mainspring.protocols.actuator.health import Components, health_page
from mainspring.protocols.actuator.loggers import loggers_page
from mainspring.protocols.actuator.metrics import metrics_page
from mainspring.protocols.actuator.page import Page
from mainspring.protocols.actuator.rest import add_actuator_routes
from mainspring.protocols.actuator.runtime import Task, caches_page, logfile_page, spelled
from mainspring.protocols.http import Fault, Request, Response, Router
from mainspring.server.management.levels import Levels
from mainspring.server.management.pages import properties_of, visible
from mainspring.server.management.probes import Probes
from mainspring.server.management.registering import Instance, Registration
from mainspring.server.management.resources import CpuUse, process_numbers


def answered(page: Page, method: str, path: str, body: bytes = b"", access: str = "unrestricted") -> Response:
    router = Router()
    add_actuator_routes(router, [page], [page.name], access, lambda: "https://127.0.0.1:8081")
    raw, _, query = path.encode().partition(b"?")
    handler, decoded, stars = router.find(method, raw)

    async def ask() -> Response:
        return await handler(Request(method, decoded, query, {}, body, stars))

    return asyncio.run(ask())


def test_access_says_what_may_be_asked() -> None:
    changed: list[object] = []
    page = loggers_page(lambda *asked: changed.append(asked), asyncio.to_thread)
    assert answered(page, "POST", "/actuator/loggers/a", b'{"configuredLevel":"off"}').status == 204
    assert changed == [("a", "OFF")]
    with pytest.raises(Fault) as caught:
        answered(page, "POST", "/actuator/loggers/a", b"{}", access="read-only")
    assert caught.value.status == 405
    assert answered(page, "GET", "/actuator/loggers", access="read-only").status == 200
    assert json.loads(answered(page, "GET", "/actuator", access="none").body)["_links"].keys() == {"self"}
    with pytest.raises(Fault) as caught:
        answered(page, "GET", "/actuator/loggers", access="none")
    assert caught.value.status == 404
    links = json.loads(answered(page, "GET", "/actuator").body)["_links"]
    assert links["loggers"]["href"] == "https://127.0.0.1:8081/actuator/loggers"
    assert answered(page, "OPTIONS", "/actuator/loggers/a", access="read-only").headers == (
        (b"allow", b"GET, HEAD, OPTIONS"),
    )


def test_health_answers_though_what_it_asks_hangs() -> None:
    hangs, now = threading.Event(), [0.0]
    asked: list[float] = []

    def ask() -> Components:
        asked.append(now[0])
        if len(asked) > 1:
            hangs.wait(60)
        return {"catalog": ("UP", {})}

    async def over() -> None:
        probes = Probes(ask, lambda: now[0], patience=0.05)
        assert await probes.components() == {"catalog": ("UP", {})}
        now[0] = 0.5
        assert await probes.components() == {"catalog": ("UP", {})}
        assert asked == [0.0], "an answer is kept for a second"
        now[0] = 2.0
        for _ in range(3):
            found = await probes.components()
            assert found["probes"][0] == "DOWN"
            assert found["catalog"] == ("UP", {}), "with what was known"
        assert asked == [0.0, 2.0], "one thread hangs, not one a question"
        hangs.set()
        while "probes" in await probes.components():
            pass

    asyncio.run(over())


def test_a_group_has_the_worst_of_its_parts() -> None:
    parts: Components = {"models": ("UP", {"n": 1}), "disk": ("OUT_OF_SERVICE", {}), "queue": ("UNKNOWN", {})}

    async def components() -> Components:
        return parts

    page = health_page(components, {"readiness": ("models", "queue")}, lambda request: True)
    whole = answered(page, "GET", "/actuator/health")
    assert (whole.status, json.loads(whole.body)["status"]) == (503, "OUT_OF_SERVICE")
    ready = answered(page, "GET", "/actuator/health/readiness")
    assert (ready.status, json.loads(ready.body)["status"]) == (200, "UP")
    with pytest.raises(Fault):
        answered(page, "GET", "/actuator/health/readiness/disk")
    blind = health_page(components, {}, lambda request: False)
    assert json.loads(answered(blind, "GET", "/actuator/health").body) == {"status": "OUT_OF_SERVICE"}


def test_levels_hold_in_all_workers(tmp_path: Path) -> None:
    applied: list[tuple[int, str, str | None]] = []
    path = tmp_path / "levels.json"
    one, two = (Levels(path, lambda *asked, n=number: applied.append((n, *asked))) for number in range(2))
    two.follow()
    one.change("shop", "DEBUG")
    two.follow()
    two.follow()
    one.change("shop", None)
    two.change("other", "OFF")
    one.follow()
    assert [each for each in applied if each[0] == 1] == [(1, "shop", "DEBUG"), (1, "shop", None), (1, "other", "OFF")]
    assert [each for each in applied if each[0] == 0] == [(0, "shop", "DEBUG"), (0, "shop", None), (0, "other", "OFF")]
    path.write_text("{")
    one.follow()
    Levels(None, lambda *asked: applied.append((2, *asked))).change("alone", "INFO")
    assert applied[-1] == (2, "alone", "INFO")


def test_a_server_registers_again_and_again_and_says_once_that_nobody_answers() -> None:
    told: list[str] = []
    statuses = iter([500, 500, 201])
    seen = threading.Event()

    class Admin(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            status = next(statuses, 201)
            body = b'{"id":"7"}' if status == 201 else b"oops"
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            if status == 201:
                seen.set()

        def log_message(self, *args: object) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Admin) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        instance = Instance("shop", "http://a", "http://b/actuator", {"user.password": "secret"})
        assert "secret" not in repr(instance)
        admin = Registration(f"http://127.0.0.1:{server.server_port}/", instance, None, told.append, every=0.01)
        admin.start()
        assert seen.wait(60)
        admin.stop()
        server.shutdown()
        thread.join()
    assert len(told) in (1, 2)
    assert "does not take this server: HTTPError" in told[0]


def test_who_may_see() -> None:
    request = Request("GET", "/", b"", {}, b"")
    for rule, shown in (("never", (False, False)), ("when-authorized", (True, False)), ("always", (True, True))):
        assert tuple(visible(rule, lambda request, yes=yes: yes)(request) for yes in (True, False)) == shown


def test_what_is_called_a_secret_is_one(tmp_path: Path) -> None:
    values: dict[str, object] = {
        "values.db_password": "plain",
        "values.apikey": "plain",
        "callers.ada.key": "env:ADA",
        "online.url": "redis://${env:WORD}@host",
        "server.keys": ["env:ONE"],
        "server.port": 8080,
    }
    settings = Settings("dev", tmp_path, {key: Setting(key, value, "f:1") for key, value in values.items()})
    assert {one.key for one in properties_of(settings) if not one.secret} == {"server.port"}


@given(st.binary(max_size=40), st.integers(0, 60), st.integers(0, 60))
def test_a_part_of_a_log_is_what_the_range_says(
    tmp_path_factory: pytest.TempPathFactory, text: bytes, first: int, last: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "log"
    path.write_bytes(text)
    page = logfile_page(path, asyncio.to_thread)
    asked = Request("GET", "/", b"", {b"range": f"bytes={first}-{last}".encode()}, b"")

    async def ask() -> Response:
        return await page.operations[0].answer(asked)

    expected = text[first : last + 1]
    if first > last or first >= len(text):
        with pytest.raises(Fault) as caught:
            asyncio.run(ask())
        assert caught.value.status == 416
    else:
        found = asyncio.run(ask())
        assert (found.status, found.body) == (206, expected)


def test_numbers_of_the_process(tmp_path: Path) -> None:
    used, passed = [1.0], [10.0]
    cpu = CpuUse(lambda: used[0], lambda: passed[0])
    assert cpu() == 0.0
    used[0], passed[0] = 2.0, 14.0
    assert cpu() == 0.25
    now = [100.0]
    numbers = process_numbers(tmp_path, lambda: now[0])
    now[0] = 107.5
    assert numbers["process.uptime"][2]() == 7.5
    assert all(read() >= 0 for _, _, read in numbers.values())
    page = metrics_page(lambda: {}, numbers, asyncio.to_thread)
    assert json.loads(answered(page, "GET", "/actuator/metrics").body)["names"] == sorted(numbers)
    with pytest.raises(Fault):
        answered(page, "GET", "/actuator/metrics/process.uptime?tag=a:b")


def test_times_and_tasks_as_spring_spells_them() -> None:
    assert [spelled(seconds) for seconds in (0.0, 0.023, 1.0, 12.345678)] == [
        "PT0S",
        "PT0.023S",
        "PT1S",
        "PT12.345678S",
    ]
    assert Task("model/late", "0 * * * *", 3600.0, (0.0, "SUCCESS")).shown() == {
        "runnable": {"target": "model/late"},
        "expression": "0 * * * *",
        "nextExecution": {"time": "1970-01-01T01:00:00.000000Z"},
        "lastExecution": {"time": "1970-01-01T00:00:00.000000Z", "status": "SUCCESS"},
    }
    assert Task("look", pause=0.25).shown() == {"runnable": {"target": "look"}, "initialDelay": 0, "interval": 250}


def test_a_cache_is_emptied_by_its_name() -> None:
    caches: dict[str, Any] = {"chat": {1: 2}, "gateway/chat": {3: 4}}
    page = caches_page("shop", lambda: caches, asyncio.to_thread)
    assert json.loads(answered(page, "GET", "/actuator/caches/chat").body) == {
        "target": "builtins.dict",
        "name": "chat",
        "cacheManager": "shop",
    }
    assert answered(page, "DELETE", "/actuator/caches/chat").status == 204
    assert caches == {"chat": {}, "gateway/chat": {3: 4}}
    assert answered(page, "DELETE", "/actuator/caches").status == 204
    assert caches == {"chat": {}, "gateway/chat": {}}
