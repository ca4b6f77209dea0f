"""Alarms that start a training in CI, told to doubles of the services on loopback."""

from __future__ import annotations

import base64
import json
import queue
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mainspring.adapters.sqlite.catalog import SqliteCatalog
from mainspring.config.settings import load_settings
from mainspring.deploy.ci.dispatch import Ask, Dispatcher, dispatch_of
from mainspring.errors import MainspringError
from mainspring.ports.catalog import Alert
from mainspring.server.monitors import ModelMonitors

TOKEN = "t0ken-of-tests"
FACTS = {"app": "shop", "model": "returns", "monitor": "returns", "alert": "a1", "kind": "drift", "features": "amount"}


class Service(ThreadingHTTPServer):
    """GitHub, GitLab and Jenkins as far as a run is started there: each by its own route, login and body."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.faults: list[tuple[int, dict[str, str]]] = []
        self.asked: list[str] = []
        self.started: queue.Queue[Any] = queue.Queue()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        self.server.asked.append(self.path)
        status, headers = self.server.faults.pop(0) if self.server.faults else (self._status(body), {})
        if status == 0:
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in {"Content-Length": "0", **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def _status(self, body: str) -> int:
        login = self.headers.get("Authorization", "")
        if self.path == "/repos/team/shop/dispatches":
            if login != f"Bearer {TOKEN}":
                return 401
            told = json.loads(body)
            if not isinstance(told.get("event_type"), str) or len(told.get("client_payload", {})) > 10:
                return 422
            self.server.started.put(told)
            return 204
        form = dict(urllib.parse.parse_qsl(body))
        if self.path == "/job/shop/buildWithParameters":
            if login != "Basic " + base64.b64encode(f"ada:{TOKEN}".encode()).decode():
                return 401
        elif self.path == "/api/v4/projects/7/trigger/pipeline":
            if form.pop("token", "") != TOKEN:
                return 404
        else:
            return 404
        self.server.started.put(form)
        return 201


@pytest.fixture
def service() -> Iterator[Service]:
    found = Service()
    thread = threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join(60)


def github(service: Service, token: str = TOKEN) -> Ask:
    return Ask("github", f"{service.url}/repos/team/shop/dispatches", token)


def became(ask: Ask, waits: list[float] | None = None) -> str:
    """What became of one alarm."""
    said: queue.Queue[str] = queue.Queue()

    def pause(seconds: float) -> bool:
        (waits if waits is not None else []).append(seconds)
        return False

    dispatcher = Dispatcher(ask, lambda facts, why: said.put(why), pause)
    try:
        assert dispatcher.offer(FACTS)
        return said.get(timeout=60)
    finally:
        dispatcher.close()


def test_each_service_starts_a_run(service: Service) -> None:
    assert became(github(service)) == ""
    assert service.started.get_nowait() == {"event_type": "drift-detected", "client_payload": FACTS}
    assert became(Ask("jenkins", f"{service.url}/job/shop/", f"ada:{TOKEN}")) == ""
    assert service.started.get_nowait() == {"DRIFT": "true"}
    assert became(Ask("gitlab", f"{service.url}/api/v4/projects/7/trigger/pipeline", TOKEN, "trunk")) == ""
    assert service.started.get_nowait() == {"ref": "trunk", "variables[DRIFT]": "yes"}


def test_what_breaks_is_tried_again_as_long_apart_as_is_said(service: Service) -> None:
    service.faults = [(503, {}), (429, {"Retry-After": "7"}), (429, {"Retry-After": "86400"}), (0, {})]
    waits: list[float] = []
    assert became(github(service), waits) == ""
    assert len(waits) == 4
    assert waits[1:3] == [7.0, 60.0], "an hour and more is not waited for"
    assert 1 <= waits[0] <= 1.25
    assert service.started.qsize() == 1


def test_what_is_refused_is_not_tried_again_and_no_redirect_gets_the_token(service: Service) -> None:
    assert "401" in became(github(service, "wrong"))
    service.faults = [(302, {"Location": f"{service.url}/elsewhere"})]
    assert "302" in became(github(service))
    assert service.asked == ["/repos/team/shop/dispatches"] * 2
    service.faults = [(500, {})] * 9
    assert "500" in became(github(service))
    assert len(service.faults) == 4, "five tries"
    assert "refused" in became(Ask("github", "http://127.0.0.1:1/x", TOKEN))


def test_the_queue_is_bounded_and_a_stop_waits_for_nothing(service: Service) -> None:
    service.faults = [(503, {})] * 100
    waiting, said = threading.Event(), []
    stopped = threading.Event()

    def pause(seconds: float) -> bool:
        waiting.set()
        return stopped.wait(60)

    dispatcher = Dispatcher(github(service), lambda facts, why: said.append(why), pause)
    assert dispatcher.offer(FACTS)
    assert waiting.wait(60)
    taken = [dispatcher.offer(FACTS) for _ in range(20)]
    assert taken == [True] * 16 + [False] * 4
    stopped.set()
    dispatcher.close()
    assert len(said) == 1


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ('url = "http://ci.example.com/x"\ntoken = "env:CI_TOKEN"', "MS-2752"),
        ('url = "ftp://ci.example.com/x"\ntoken = "env:CI_TOKEN"', "MS-2752"),
        ('url = "https://ci.example.com/x"', "MS-2753"),
    ],
)
def test_what_does_not_do_is_said_when_the_server_starts(tmp_path: Path, lines: str, code: str) -> None:
    (tmp_path / "mainspring.toml").write_text(f"[ci.dispatch]\n{lines}\n")
    with pytest.raises(MainspringError) as caught:
        dispatch_of(load_settings(tmp_path))
    assert caught.value.code == code


def test_an_alarm_of_a_monitor_reaches_ci_and_is_noted(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI_TOKEN", TOKEN)
    url = f"{service.url}/repos/team/shop/dispatches"
    (tmp_path / "mainspring.toml").write_text(f'[ci.dispatch]\nurl = "{url}"\ntoken = "env:CI_TOKEN"\n')
    catalog = SqliteCatalog(tmp_path / "catalog.db")
    services = SimpleNamespace(settings=load_settings(tmp_path), catalog=catalog, state=tmp_path)
    node = SimpleNamespace(inputs=["/model/returns"])
    plan = SimpleNamespace(app="shop", node=lambda name: node)
    monitors = ModelMonitors(services, plan, {}, None, None, print)  # type: ignore[arg-type]
    try:
        alert = Alert("a1", "f", "drifts", "", "drift", "firing", 1, 2, 3.0, 1.0, 0.5, ("amount",))
        monitors._retrain(alert)
        told = service.started.get(timeout=60)
    finally:
        monitors.close()
    assert told["client_payload"]["model"] == "returns"
    (event,) = [one for one in catalog.events(limit=10) if one.what.startswith("monitor.")]
    assert event.what == "monitor.dispatched"
    assert TOKEN not in json.dumps(event.data)
    catalog.close()
