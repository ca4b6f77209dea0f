"""Every page of the actuator of a running server, in the shapes that Spring Boot's documentation and its Admin give."""

from __future__ import annotations

import base64
import json
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from e2e.conftest import Served, call, serve
from mainspring.protocols.actuator.rest import PAGES
from otlp_kit import exported

V3 = "application/vnd.spring-boot.actuator.v3+json"
TOKEN = "let-me-in"
KEYS = json.dumps({"customer": "c01", "amount": 20.0}).encode()


class Admin(ThreadingHTTPServer):
    """What a Spring Boot Admin does with its clients: takes them under an id, and asks for a login.

    And what an OpenTelemetry collector does: takes spans.
    """

    def __init__(self) -> None:
        asked: list[tuple[str, str, dict[str, Any]]] = []
        spans: list[dict[str, Any]] = []
        self.asked, self.spans = asked, spans

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                scheme, _, word = self.headers["authorization"].partition(" ")
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.path == "/v1/traces":
                    assert (scheme, word) == ("Bearer", "swordfish")
                    told = exported(self.headers["content-type"], body)
                    parts = [part for one in told["resourceSpans"] for part in one["scopeSpans"]]
                    spans.extend(span for part in parts for span in part["spans"])
                else:
                    asked.append(
                        (f"{self.command} {self.path}", base64.b64decode(word).decode(), json.loads(body or b"{}"))
                    )
                created = self.command == "POST"
                said = json.dumps({"id": "a1b2c3d4e5f6"}).encode() if created else b""
                self.send_response(201 if created else 204)
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            do_POST = do_DELETE = answer  # noqa: N815

            def log_message(self, *args: object) -> None:
                return

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


@pytest.fixture(scope="module")
def admin() -> Iterator[Admin]:
    found = Admin()
    yield found
    found.shutdown()
    found.server_close()


@pytest.fixture(scope="module")
def served(built: Path, admin: Admin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    project = tmp_path_factory.mktemp("actuator") / "shop"
    shutil.copytree(built, project)
    (project / "log").write_text("one\ntwo\nthree\n")
    (project / "token").write_text(TOKEN)
    (project / "words").write_text("swordfish")
    with open(project / "mainspring.toml", "a") as file:
        file.write(f"""
[management]
enabled = true
expose = ["*"]
hide = ["labels"]
token = "file:token"
show_values = "when-authorized"
shutdown = true
logfile = "log"

[management.admin]
url = "http://127.0.0.1:{admin.server_port}"
user = "client"
password = "file:words"
share_token = true

[telemetry]
otlp = "http://127.0.0.1:{admin.server_port}"
otlp_token = "file:words"
sample = 0.0
""")
    found = serve(project, "serve")
    try:
        yield found
    finally:
        if found.process.poll() is None:
            found.stop()


def ask(served: Served, page: str, body: bytes | None = None, method: str = "", **headers: str) -> tuple[int, Any, Any]:
    asked = Request(f"{served.console}/actuator{page}", body, {"authorization": f"Bearer {TOKEN}", **headers})
    asked.method = method or ("GET" if body is None else "POST")
    try:
        with urlopen(asked, timeout=60) as answer:
            text = answer.read()
            kind = answer.headers["content-type"] or ""
            return answer.status, json.loads(text) if "json" in kind and text else text, answer.headers
    except OSError as error:
        return error.code, json.loads(error.read() or b"{}"), error.headers  # type: ignore[attr-defined]


def wait_for(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.05)
    raise AssertionError("it never came")


def test_the_index_links_every_page_where_it_was_asked(served: Served) -> None:
    port = served.console.rpartition(":")[2]
    status, index, headers = ask(served, "", host=f"models.example.com:{port}")
    assert (status, headers["content-type"]) == (200, V3)
    links = index["_links"]
    assert set(links) >= {*PAGES} - {"labels"}
    assert "labels" not in links, "hidden"
    base = f"http://models.example.com:{port}/actuator"
    assert links["self"] == {"href": base, "templated": False}
    for name in set(PAGES) - {"labels"}:
        assert links[name] == {"href": f"{base}/{name}", "templated": False}
    assert {key: link["href"].removeprefix(base) for key, link in links.items() if link["templated"]} == {
        "health-path": "/health/{*path}",
        "metrics-requiredMetricName": "/metrics/{requiredMetricName}",
        "loggers-name": "/loggers/{name}",
        "env-toMatch": "/env/{toMatch}",
        "configprops-prefix": "/configprops/{prefix}",
        "sbom-id": "/sbom/{id}",
        "caches-cache": "/caches/{cache}",
    }
    for key, link in links.items():
        if not link["templated"] and key not in ("shutdown", "self"):
            assert ask(served, link["href"].removeprefix(base))[0] == 200, key
    for page, methods in (("/health", "GET, HEAD, OPTIONS"), ("/shutdown", "POST, OPTIONS")):
        status, _, headers = ask(served, page, method="OPTIONS")
        assert (status, headers["allow"]) == (200, methods)
    assert ask(served, "/loggers/x", method="OPTIONS")[2]["allow"] == "GET, POST, HEAD, OPTIONS"
    odd = Request(f"{served.console}/actuator", headers={"host": "models.example.com/x?"})
    with pytest.raises(HTTPError, match="400"):
        urlopen(odd, timeout=60)


def test_health_shows_its_parts_to_who_has_the_token(served: Served) -> None:
    status, whole, _ = ask(served, "/health")
    assert (status, whole["status"], whole["groups"]) == (200, "UP", ["liveness", "readiness"])
    assert whole["components"]["models"] == {"status": "UP", "details": {"versions": {"returns": "1"}}}
    assert ask(served, "/health/readiness")[1]["components"].keys() == {"models", "catalog"}
    assert ask(served, "/health/readiness/models")[1]["status"] == "UP"
    assert ask(served, "/health/liveness")[1] == {"status": "UP"}
    assert ask(served, "/health/nothing")[0] == ask(served, "/health/models/none")[0] == 404
    for page in ("/health", "/health/liveness", "/health/readiness"):
        status, body, _ = call(f"{served.console}/actuator{page}")
        assert status == 200
        assert json.loads(body).keys() <= {"status", "groups"}, "a probe without the token sees no more"
    assert call(f"{served.console}/actuator/health/models")[0] == 401
    assert call(f"{served.console}/actuator/env")[0] == 401


def test_metrics_are_drilled_down_by_their_tags(served: Served) -> None:
    assert call(f"{served.url}/endpoint/returns", KEYS)[0] == 200
    names = ask(served, "/metrics")[1]["names"]
    assert names == sorted(names)
    for name in ("process.uptime", "process.cpu.usage", "system.cpu.usage", "system.cpu.count"):
        assert name in names
        shown = ask(served, f"/metrics/{name}")[1]
        assert [one["statistic"] for one in shown["measurements"]] == ["VALUE"]
        assert shown["measurements"][0]["value"] >= 0
    wait_for(lambda: ask(served, "/metrics/mainspring.requests?tag=endpoint:returns")[0] == 200)
    requests = ask(served, "/metrics/mainspring.requests?tag=endpoint:returns")[1]
    assert requests["measurements"] == [{"statistic": "COUNT", "value": 1.0}]
    assert {"tag": "code", "values": ["200"]} in requests["availableTags"]
    seconds = ask(served, "/metrics/mainspring.request.seconds?tag=route:endpoint&tag=endpoint:returns")[1]
    assert (seconds["name"], seconds["baseUnit"]) == ("mainspring.request.seconds", "seconds")
    found = {one["statistic"]: one["value"] for one in seconds["measurements"]}
    assert found["COUNT"] == 1
    assert 0 < found["TOTAL_TIME"] <= found["MAX"]
    assert [one["tag"] for one in seconds["availableTags"]] == ["app"]
    assert ask(served, "/metrics/mainspring.requests?tag=code:500")[0] == ask(served, "/metrics/none")[0] == 404
    assert ask(served, "/metrics/mainspring.requests?tag=code")[0] == 400


def test_loggers_are_read_and_changed(served: Served) -> None:
    whole = ask(served, "/loggers")[1]
    assert whole["levels"] == ["OFF", "ERROR", "WARN", "INFO", "DEBUG", "TRACE"]
    root = whole["loggers"]["ROOT"]
    assert root["configuredLevel"] == root["effectiveLevel"]
    assert "uvicorn.error" in whole["loggers"]
    assert ask(served, "/loggers/shop.prices", b'{"configuredLevel": "debug"}')[0] == 204
    assert ask(served, "/loggers/shop.prices")[1] == {"configuredLevel": "DEBUG", "effectiveLevel": "DEBUG"}
    assert ask(served, "/loggers/shop.prices", b"{}")[0] == 204
    assert ask(served, "/loggers/shop.prices")[1] == {"effectiveLevel": root["effectiveLevel"]}
    for body in (b'{"configuredLevel": "loud"}', b"{", b"[]", b'{"configuredLevel": 3}'):
        assert ask(served, "/loggers/shop.prices", body)[0] == 400
    assert ask(served, "/loggers/nobody")[0] == 404


def test_settings_have_their_origin_and_secrets_no_value(served: Served) -> None:
    env = ask(served, "/env")[1]
    assert env.keys() == {"activeProfiles", "defaultProfiles", "propertySources"}
    found = {key: value for source in env["propertySources"] for key, value in source["properties"].items()}
    assert found["management.logfile"]["value"] == "log"
    assert re.fullmatch(r"mainspring\.toml:\d+.*", found["management.logfile"]["origin"])
    for key in ("management.token", "management.admin.password"):
        assert found[key]["value"] == "******", "hidden from everybody"
    one = ask(served, "/env/management.logfile")[1]
    assert one["property"]["value"] == "log"
    assert [source["property"]["value"] for source in one["propertySources"] if "property" in source] == ["log"]
    assert one["activeProfiles"] == env["activeProfiles"]
    assert ask(served, "/env/none")[0] == 404
    beans = ask(served, "/configprops")[1]["contexts"]["shop"]["beans"]
    assert beans["management"]["prefix"] == "management"
    assert beans["management"]["properties"]["logfile"] == "log"
    assert beans["management"]["inputs"]["logfile"] == found["management.logfile"]
    below = ask(served, "/configprops/management")[1]["contexts"]["shop"]["beans"]
    assert below.keys() == {"management", "management.admin"}
    assert ask(served, "/configprops/none")[0] == 404
    every = json.dumps([env, beans])
    assert TOKEN not in every
    assert "swordfish" not in every


def test_what_runs_is_shown(served: Served) -> None:
    routes = ask(served, "/mappings")[1]["contexts"]["shop"]["mappings"]["dispatcherHandlers"]
    one = next(each for each in routes["server"] if each["predicate"] == "{POST [/endpoint/*]}")
    assert one["details"]["requestMappingConditions"]["methods"] == ["POST"]
    assert any(each["predicate"] == "{GET [/actuator/health]}" for each in routes["management"])
    tasks = ask(served, "/scheduledtasks")[1]
    assert tasks.keys() == {"cron", "fixedDelay", "fixedRate", "custom"}
    assert {"runnable", "initialDelay", "interval"} <= tasks["fixedDelay"][0].keys()
    assert 250 in {one["interval"] for one in tasks["fixedDelay"]}
    threads = ask(served, "/threaddump")[1]["threads"]
    main = next(one for one in threads if one["threadName"] == "MainThread")
    assert main["stackTrace"][0].keys() >= {"className", "methodName", "fileName", "lineNumber"}
    text = ask(served, "/threaddump", accept="text/plain")[1].decode()
    assert text.count("Thread t@") == len(threads) or "MainThread" in text
    timeline = ask(served, "/startup")[1]["timeline"]
    step = next(one for one in timeline["events"] if one["startupStep"]["name"] == "mainspring.models.load")
    assert datetime.fromisoformat(step["endTime"]) >= datetime.fromisoformat(step["startTime"])
    assert re.fullmatch(r"PT[0-9.]+S", step["duration"])
    assert ask(served, "/caches")[1] == {"cacheManagers": {"shop": {"caches": {}}}}
    assert (ask(served, "/caches/none")[0], ask(served, "/caches", method="DELETE")[0]) == (404, 204)
    assert ask(served, "/sbom")[1] == {"ids": ["application"]}
    bill = ask(served, "/sbom/application")[1]
    assert bill["bomFormat"] == "CycloneDX"
    assert any(one["purl"].startswith("pkg:pypi/orjson@") for one in bill["components"])
    assert ask(served, "/info")[1]["build"]["name"] == "shop"
    conditions = ask(served, "/conditions")[1]["contexts"]["shop"]
    assert "online.lmdb" in conditions["positiveMatches"]
    assert conditions.keys() == {"positiveMatches", "negativeMatches", "unconditionalClasses"}


def test_exchanges_hold_no_secret(served: Served) -> None:
    secret = {"authorization": "Bearer hidden", "cookie": "id=hidden", "x-api-key": "hidden", "x-shown": "seen"}
    assert call(f"{served.url}/v2/health/live?key=hidden", headers=secret)[0] == 200

    def kept() -> Any:
        return [
            one for one in ask(served, "/httpexchanges")[1]["exchanges"] if one["request"]["headers"].get("x-shown")
        ]

    one = wait_for(kept)[0]
    assert one["request"]["uri"] == f"{served.url}/v2/health/live"
    assert (one["request"]["method"], one["response"]["status"]) == ("GET", 200)
    assert one["request"]["headers"]["x-shown"] == ["seen"]
    assert re.fullmatch(r"PT[0-9.]+S", one["timeTaken"])
    assert datetime.fromisoformat(one["timestamp"])
    assert "hidden" not in json.dumps(one)


def test_the_log_is_served_in_parts(served: Served) -> None:
    status, whole, headers = ask(served, "/logfile")
    assert (status, whole, headers["accept-ranges"]) == (200, b"one\ntwo\nthree\n", "bytes")
    for asked, part in (
        ("bytes=4-6", b"two"),
        ("bytes=8-", b"three\n"),
        ("bytes=-6", b"three\n"),
        ("bytes=8-99", b"three\n"),
    ):
        status, body, headers = ask(served, "/logfile", range=asked)
        assert (status, body) == (206, part)
        assert headers["content-range"].endswith("/14")
    for asked in ("bytes=14-", "bytes=-", "lines=1-2", "bytes=x-y"):
        assert ask(served, "/logfile", range=asked)[0] == 416


def test_requests_of_a_kept_trace_are_spans_on_rest_and_grpc(served: Served, admin: Admin) -> None:
    trace, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {"traceparent": f"00-{trace}-{caller}-01"}
    status, _, answer = call(f"{served.url}/endpoint/returns", KEYS, headers)
    assert status == 200
    assert answer["traceresponse"].startswith(f"00-{trace}-")
    assert call(f"{served.url}/endpoint/returns", KEYS)[2]["traceresponse"].endswith("-00"), "not in the sample"
    (taken,) = json.loads(call(f"{served.url}/v2/models/returns")[1])["inputs"]
    width = taken["shape"][1]
    body = {"inputs": [{**taken, "shape": [1, width], "data": [1.0] * width}]}
    assert call(f"{served.url}/v2/models/returns/infer", body, headers)[0] == 200
    line = next(line for line in served.log.read_text().splitlines() if line.startswith("grpc "))
    with grpc.insecure_channel(line.split()[1]) as channel:
        asked = channel.unary_unary("/inference.GRPCInferenceService/ModelMetadata")
        asked(b"\n\x07returns", timeout=60, metadata=[("traceparent", headers["traceparent"])])
    wait_for(lambda: len([one for one in admin.spans if one["kind"] == 2]) == 3)
    assert {one["traceId"] for one in admin.spans} == {trace}
    whole = {one["name"]: one for one in admin.spans if one["kind"] == 2}
    assert whole.keys() == {"POST endpoint", "POST infer", "inference.GRPCInferenceService/ModelMetadata"}
    assert {one["parentSpanId"] for one in whole.values()} == {caller}
    assert whole["POST endpoint"]["spanId"] == answer["traceresponse"].split("-")[2]
    for name, protocol in (("POST endpoint", "native"), ("POST infer", "oip")):
        facts = {one["key"]: one["value"] for one in whole[name]["attributes"]}
        assert facts["mainspring.protocol"] == {"stringValue": protocol}
        assert facts["http.response.status_code"] == {"intValue": "200"}
        parts = [one["name"] for one in admin.spans if one.get("parentSpanId") == whole[name]["spanId"]]
        assert "compute" in parts
    page = ask(served, "/prometheus")[1].decode()
    samples = [one for family in text_string_to_metric_families(page) for one in family.samples]
    for name in ("inferences_total", "predictions_total", "inference_seconds_count", "inference_bytes_total"):
        found = {one.labels["protocol"] for one in samples if one.name == f"mainspring_{name}" and one.value}
        assert found == {"native", "oip"}, name


def test_our_own_pages(served: Served) -> None:
    model = ask(served, "/models")[1]["models"]["returns"]
    assert (model["version"], model["versions"][0]) == ("1", {"version": "1", "state": "READY"})
    assert model["labels"]["champion"] == "1"
    assert {view["name"] for view in ask(served, "/features")[1]["views"]} == {"habits"}
    assert ask(served, "/rollouts")[1] == {"rollouts": {}}
    assert isinstance(ask(served, "/pipelines")[1]["pipelines"], list)
    (monitor,) = ask(served, "/drift")[1]["monitors"]
    assert monitor.keys() == {"monitor", "window", "blocks", "weak", "alpha", "expectedPerYear", "features"}
    assert monitor["expectedPerYear"] > 0
    assert ask(served, "/labels")[0] == 404


def test_an_admin_knows_the_server_until_it_ends(served: Served, admin: Admin) -> None:
    asked, login, instance = wait_for(lambda: admin.asked)[0]
    assert (asked, login) == ("POST /instances", "client:swordfish")
    assert instance["name"] == "shop"
    assert instance["serviceUrl"] == served.url
    assert instance["managementUrl"] == f"{served.console}/actuator"
    user, password = instance["metadata"]["user.name"], instance["metadata"]["user.password"]
    basic = base64.b64encode(f"{user}:{password}".encode()).decode()
    headers = {"authorization": f"Basic {basic}"}
    assert "components" in json.loads(call(instance["healthUrl"], headers=headers)[1]), "as an admin asks it"
    status, body, _ = ask(served, "/shutdown", b"")
    assert (status, body) == (200, {"message": "Shutting down, bye..."})
    assert served.process.wait(timeout=60) == 0
    assert admin.asked[-1][0] == "DELETE /instances/a1b2c3d4e5f6"
