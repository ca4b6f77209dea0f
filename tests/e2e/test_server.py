"""The server over real sockets: OIP, the entity-keyed route, labels, pushes, the actuator, drain and hot swap."""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from e2e.conftest import Served, call, free_port, mainspring, serve

KEYS = {"customer": "c01", "amount": 20.0}


def test_an_answer_by_entity_keys(served: Served) -> None:
    status, body, _ = call(f"{served.url}/endpoint/returns?features=true", KEYS)
    answer = json.loads(body)
    assert status == 200
    assert 0 <= answer["score"] <= 1
    assert answer["prediction"] is (answer["score"] >= 0.5)
    assert len(answer["id"]) == 32
    assert set(answer["features"]) == {"visits_30d", "amount_30d", "amount"}
    assert answer["version"] == "1"


def test_an_answer_leads_back_to_rows_run_and_code(served: Served) -> None:
    answer = json.loads(call(f"{served.url}/endpoint/returns?features=true", KEYS)[1])
    labels = {"labels": [{"id": answer["id"], "value": True, "at": "2030-01-01T00:00:00Z"}]}
    assert call(f"{served.url}/labels", labels)[0] == 202
    found = json.loads(mainspring("show", f"prediction/{answer['id']}", "--json", cwd=served.project).stdout)
    assert found["values"] == pytest.approx(answer["features"])
    assert (found["score"], str(found["version"])) == (pytest.approx(answer["score"]), answer["version"])
    assert [label["value"] for label in found["labels"]] == [1.0]
    shown = json.loads(mainspring("show", "model/returns", "--json", cwd=served.project).stdout)["versions"]
    assert found["entity"] in {version["id"] for version in shown}
    assert {table["url"] for table in found["tables"]} == {"/source/visits", "/feature_view/habits"}
    assert found["training_rows"] > 0
    assert found["run"]["status"] == "ok"
    assert "answered by model/returns" in mainspring("show", f"prediction/{answer['id']}", cwd=served.project).stdout
    done = mainspring("show", "prediction/nobody", cwd=served.project, status=2)
    assert "no prediction is called 'nobody'" in done.stderr


def test_many_answers_at_once(served: Served) -> None:
    rows = [{"customer": f"c{n:02d}", "amount": float(n)} for n in range(50)]
    body = {"rows": rows, "now": "2025-11-30T00:00:00Z"}
    answers = json.loads(call(f"{served.url}/endpoint/returns", body)[1])["predictions"]
    single = [json.loads(call(f"{served.url}/endpoint/returns", {**row, "now": body["now"]})[1]) for row in rows[:5]]
    assert [a["score"] for a in answers[:5]] == [a["score"] for a in single]
    assert len({a["id"] for a in answers}) == 50


def test_features_move_with_the_moment_of_the_question(served: Served) -> None:
    def visits(now: str) -> int:
        body = {**KEYS, "now": now}
        answer = json.loads(call(f"{served.url}/endpoint/returns?features=true", body)[1])
        return int(answer["features"]["visits_30d"])

    assert visits("2026-06-01T00:00:00Z") == 0
    assert visits("2025-12-01T00:00:00Z") >= 0


def test_bad_requests_are_refused_with_a_reason(served: Served) -> None:
    url = f"{served.url}/endpoint/returns"
    for body, status, words in [
        (b"{", 400, "not JSON"),
        (b"[]", 400, "a JSON list, no JSON object: one question is"),
        ([KEYS], 400, '{"rows": [{..}, ..]}'),
        ({"rows": []}, 400, "rows is empty"),
        ({**KEYS, "now": 2**63}, 400, "between 1970 and 2262"),
        ({**KEYS, "now": "0001-01-01T00:00:00+14:00"}, 400, "between 1970 and 2262"),
        ({"amount": 1.0}, 400, "customer"),
        ({"customer": 7, "amount": 1.0}, 400, "customer"),
        ({"customer": "c", "amount": "lots"}, 400, "amount"),
        ({"customer": "c", "amount": 1.0, "colour": "red"}, 400, "colour"),
        ({"rows": [1]}, 400, "batch"),
        ({**KEYS, "now": "yesterday"}, 400, "moment"),
        ({**KEYS, "now": "2025-01-01T00:00:00"}, 400, "zone"),
    ]:
        found, answer, _ = call(url, body)
        assert found == status, (body, answer)
        assert words in json.loads(answer)["error"], (body, answer)
    assert call(f"{served.url}/endpoint/nothing", KEYS)[0] == 404
    assert call(f"{served.url}/nothing")[0] == 404
    assert call(url)[0] == 200
    assert call(f"{served.url}/labels")[0] == 405


def test_a_body_beyond_the_limit_is_refused(served: Served) -> None:
    try:
        status = call(f"{served.url}/endpoint/returns", b"x" * (9 << 20))[0]
    except OSError:  # the server may close while we are still sending
        return
    assert status == 413


def test_oip_v2(served: Served) -> None:
    base = f"{served.url}/v2"
    assert json.loads(call(f"{base}/health/live")[1]) == {"live": True}
    assert json.loads(call(f"{base}/health/ready")[1]) == {"ready": True, "live": True}
    assert json.loads(call(base)[1])["name"] == "mainspring"
    metadata = json.loads(call(f"{base}/models/returns")[1])
    assert metadata["inputs"][0]["shape"] == [-1, 3]
    tensor = {"name": "input", "datatype": metadata["inputs"][0]["datatype"], "shape": [2, 3]}
    body = {"id": "a", "inputs": [{**tensor, "data": [1, 2, 3, 4, 5, 6]}]}
    answer = json.loads(call(f"{base}/models/returns/infer", body)[1])
    assert answer["id"] == "a"
    assert answer["outputs"][0]["shape"] == [2]
    nested = {"inputs": [{**tensor, "data": [[1, 2, 3], [4, 5, 6]]}]}
    again = json.loads(call(f"{base}/models/returns/versions/1/infer", nested)[1])
    assert again["outputs"][0]["data"] == answer["outputs"][0]["data"]
    bare = b'{"inputs":[{"name":"input","datatype":"FP32","shape":[1,3],"data":[NaN,2,3]}]}'
    assert call(f"{base}/models/returns/infer", bare)[0] == 200


def test_what_oip_answers_is_in_the_prediction_log(served: Served) -> None:
    tensor = {"name": "input", "datatype": "FP64", "shape": [3, 3], "data": [[1, 2.5, 3], [None, 5, 6], [7, 8, 9]]}
    answer = json.loads(call(f"{served.url}/v2/models/returns/infer", {"inputs": [tensor]})[1])
    ids = answer["parameters"]["prediction_ids"].split(",")
    assert len(set(ids)) == 3
    for identity, score, row in zip(ids, answer["outputs"][0]["data"], tensor["data"], strict=True):
        found = json.loads(mainspring("show", f"prediction/{identity}", "--json", cwd=served.project).stdout)
        assert (found["score"], found["endpoint"]) == (score, "returns")
        assert list(found["values"].values()) == row
    label = {"id": ids[0], "value": True, "at": "2025-12-01T00:00:00Z"}
    assert call(f"{served.url}/labels", {"labels": [label]})[0] == 202
    found = json.loads(mainspring("show", f"prediction/{ids[0]}", "--json", cwd=served.project).stdout)
    assert [label["value"] for label in found["labels"]] == [1.0]


def test_oip_takes_as_many_rows_as_the_settings_allow(served: Served) -> None:
    tensor = {"name": "input", "datatype": "FP32", "shape": [65_537, 3], "data": [0] * (65_537 * 3)}
    status, body, _ = call(f"{served.url}/v2/models/returns/infer", {"inputs": [tensor]})
    assert (status, "at most 65536" in json.loads(body)["error"]) == (413, True)


def test_oip_refuses_what_does_not_fit(served: Served) -> None:
    url = f"{served.url}/v2/models/returns/infer"
    good = {"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
    for change, status in [
        ({"shape": [1, 4]}, 400),
        ({"shape": [2, 3]}, 400),
        ({"shape": [2147483647, 3]}, 413),
        ({"shape": [-1, 3]}, 400),
        ({"datatype": "FP8"}, 400),
        ({"data": ["a", 2, 3]}, 400),
        ({"data": [[1, 2], 3]}, 400),
        ({"name": "x"}, 400),
        ({"name": ["input"]}, 400),
        ({"datatype": "BYTES", "data": ["a", "b", "c"]}, 400),
        ({"datatype": ["FP32"]}, 400),
        ({"datatype": {}}, 400),
        ({"shape": [0, 3], "data": []}, 400),
        ({"data": [1e308, 2, 3]}, 400),
    ]:
        assert call(url, {"inputs": [{**good, **change}]})[0] == status, change
    assert call(url, {"inputs": [good, good]})[0] == 400
    assert call(url, {"inputs": []})[0] == 400
    assert call(url, {"inputs": [good], "outputs": [{"name": "none"}]})[0] == 400
    assert call(f"{served.url}/v2/models/nothing/infer", {"inputs": [good]})[0] == 404
    assert call(f"{served.url}/v2/models/returns/versions/99/infer", {"inputs": [good]})[0] == 404


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
"""Any JSON, with bare NaN and Infinity, surrogates and numbers that no 64 bits hold."""


def near(valid: dict[str, st.SearchStrategy[object]], extra: str) -> st.SearchStrategy[dict[str, object]]:
    """Objects of which each part is as it should be, anything else, or not there."""
    parts = {name: usual | usual | usual | JSON for name, usual in valid.items()}
    return st.fixed_dictionaries({}, optional={**parts, extra: JSON}) | st.fixed_dictionaries(parts)


MOMENTS = st.sampled_from(["2025-12-01T00:00:00Z", "9999-12-31T23:59:59-14:00", -1, 0, 2**62, "x"])
ROWS = near({"customer": st.sampled_from(["c01", "nobody"]), "amount": st.floats(), "now": MOMENTS}, "colour")
QUESTIONS = JSON | ROWS | near({"rows": st.lists(ROWS, max_size=3), "now": MOMENTS}, "colour")
TENSORS = near(
    {
        "name": st.just("input"),
        "datatype": st.sampled_from(["FP32", "FP64", "INT8", "UINT64", "BOOL", "BYTES", "FP16"]),
        "shape": st.lists(st.sampled_from([0, 1, 2, 3, -1]), min_size=2, max_size=2),
        "data": st.lists(st.floats() | st.integers(-(2**70), 2**70) | st.text(max_size=2), min_size=3, max_size=3),
    },
    "parameters",
)
INFERENCES = JSON | near(
    {
        "id": st.text(max_size=3),
        "inputs": st.lists(TENSORS, max_size=2),
        "outputs": st.lists(near({"name": st.just("score")}, "parameters"), max_size=2),
    },
    "parameters",
)
LABELS = JSON | near(
    {"labels": st.lists(near({"id": st.just("a"), "value": st.booleans(), "at": MOMENTS}, "name"), max_size=2)}, "x"
)


@pytest.mark.parametrize(
    ("path", "bodies"),
    [("/endpoint/returns", QUESTIONS), ("/v2/models/returns/infer", INFERENCES), ("/labels", LABELS)],
)
def test_nothing_that_a_client_sends_is_an_internal_error(
    served: Served, path: str, bodies: st.SearchStrategy[object]
) -> None:
    @settings(max_examples=250, deadline=None)
    @given(bodies | st.binary(max_size=30))
    def fuzz(body: object) -> None:
        sent = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, answer, _ = call(f"{served.url}{path}", sent)
        assert status < 500, (sent, answer)
        json.loads(answer)

    fuzz()
    assert "Warning" not in served.log.read_text()


def test_labels_arrive_later(served: Served) -> None:
    answer = json.loads(call(f"{served.url}/endpoint/returns", KEYS)[1])
    label = {"id": answer["id"], "value": True, "at": "2025-12-01T00:00:00Z"}
    status, body, _ = call(f"{served.url}/labels", {"labels": [label]})
    assert (status, json.loads(body)["accepted"]) == (202, 1)
    assert json.loads(call(f"{served.url}/labels", {"labels": [label]})[1])["accepted"] == 0
    assert call(f"{served.url}/labels", {"labels": [{"id": 1}]})[0] == 400


def test_what_cannot_be_a_label_is_refused_and_the_right_one_counts_afterwards(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    with open(project / "mainspring.toml", "a") as file:
        file.write("\n[serving]\nreplay = false\n")
    found = serve(project, "serve")
    try:
        identity = json.loads(call(f"{found.url}/endpoint/returns", KEYS)[1])["id"]
        now = time.time_ns() // 1000
        good = {"id": identity, "value": True, "at": now}
        for change, words in [
            ({"value": 7}, "returned (bool)"),
            ({"value": 0.5}, "returned (bool)"),
            ({"name": "colour"}, "returned"),
            ({"at": "2099-01-01T00:00:00Z"}, "future"),
        ]:
            status, body, _ = call(f"{found.url}/labels", {"labels": [good, {**good, **change}]})
            assert status == 422, (change, body)
            assert words in json.loads(body)["error"]
        late = f"id,value,at\n{identity},true,2099-01-01T00:00:00Z\n".encode()
        assert call(f"{found.url}/labels", late, {"Content-Type": "text/csv"})[0] == 422
        for change in ({"at": now + 30_000_000}, {"name": "returned"}):
            status, body, _ = call(f"{found.url}/labels", {"labels": [{**good, **change}]})
            assert (status, json.loads(body)) == (202, {"accepted": 1, "duplicate": 0})
    finally:
        assert found.stop() == 0


def test_labels_arrive_as_a_file(served: Served) -> None:
    ids = [json.loads(call(f"{served.url}/endpoint/returns", KEYS)[1])["id"] for _ in range(4)]
    csv = f"id,value,at\n{ids[0]},true,2025-12-01T00:00:00Z\n{ids[1]},false,1764547200000000\n".encode()
    status, body, _ = call(f"{served.url}/labels", csv, {"Content-Type": "text/csv; charset=utf-8"})
    assert (status, json.loads(body)) == (202, {"accepted": 2, "duplicate": 0})
    at = pa.array([1_764_547_200_000] * 2, pa.timestamp("ms", "UTC"))
    parquet, kind = io.BytesIO(), {"Content-Type": "application/vnd.apache.parquet"}
    pq.write_table(pa.table({"id": ids[2:], "value": [1.0, 0.0], "at": at, "name": ["", None]}), parquet)
    status, body, _ = call(f"{served.url}/labels", parquet.getvalue(), kind)
    assert (status, json.loads(body)) == (202, {"accepted": 2, "duplicate": 0})
    assert json.loads(call(f"{served.url}/labels", parquet.getvalue(), kind)[1]) == {"accepted": 0, "duplicate": 2}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"id,value\na,1\n",
        b"id,value,at\na,,2025-12-01T00:00:00Z\n",
        b"id,value,at\na,perhaps,2025-12-01T00:00:00Z\n",
        b"id,value,at\na,nan,2025-12-01T00:00:00Z\n",
        b"id,value,at\na,1,2025-12-01T00:00:00\n",
        b"id,value,at\na,1,soon\n",
        b'id,value,at\n"a,1',
    ],
)
def test_a_file_with_a_fault_is_refused_whole(served: Served, data: bytes) -> None:
    status, body, _ = call(f"{served.url}/labels", data or b"\n", {"Content-Type": "text/csv"})
    assert status == 400, body
    assert json.loads(body)["error"]


def test_pushed_rows_are_answered_with_at_once(served: Served) -> None:
    row = {"customer": "brand-new", "amount": 12.5, "at": "2025-12-05T10:00:00Z", "returned": None}
    status, body, _ = call(f"{served.url}/sources/visits/push", {"rows": [row]}, {"Idempotency-Key": "k1"})
    assert (status, json.loads(body)["accepted"]) == (200, 1)
    repeated = json.loads(call(f"{served.url}/sources/visits/push", {"rows": [row]}, {"Idempotency-Key": "k1"})[1])
    assert repeated["seq"] == json.loads(body)["seq"]
    other = {"rows": [{**row, "customer": "somebody-else"}]}
    status, body, _ = call(f"{served.url}/sources/visits/push", other, {"Idempotency-Key": "k1"})
    assert (status, json.loads(body)["code"]) == (409, "MS-2121")
    assert call(f"{served.url}/sources/visits/push", other, {"Idempotency-Key": "k2"})[0] == 200
    fine = {"rows": [{**row, "at": "2025-12-05T10:00:00.123456789Z"}]}
    status, body, _ = call(f"{served.url}/sources/visits/push", fine)
    assert (status, json.loads(body)["code"]) == (400, "MS-2304")
    assert 'sources.visits.truncate = "us"' in json.loads(body)["fix"]
    question = {"customer": "brand-new", "amount": 1.0, "now": "2025-12-05T10:00:00Z"}
    answer = json.loads(call(f"{served.url}/endpoint/returns?features=true", question)[1])
    assert answer["features"]["visits_30d"] == 1
    assert answer["features"]["amount_30d"] == 12.5
    assert call(f"{served.url}/sources/visits/push", {"rows": [{"colour": "red"}]})[0] == 400
    assert call(f"{served.url}/sources/nothing/push", {"rows": []})[0] == 400


def test_a_source_with_an_interval_is_read_again_while_it_is_served(built: Path, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    shutil.copytree(built, project, ignore=shutil.ignore_patterns("dev.lock", "server.log"))
    app = project / "shop.py"
    app.write_text(app.read_text().replace('app.source(Visit, time="at")', 'app.source(Visit, time="at", every="1s")'))
    mainspring("apply", cwd=project)
    asked = {"customer": "newcomer", "amount": 20.0}
    served = serve(project, "serve")
    try:
        assert json.loads(call(f"{served.url}/endpoint/returns", asked)[1])["status"] == {"habits": "MISSING"}
        data = project / "data" / "visits.csv"
        head, first, *rest = data.read_text().splitlines()
        row = dict(zip(head.split(","), first.split(","), strict=True))
        row |= {"customer": "newcomer", "at": "2024-01-01T00:00:00Z"}
        whole = tmp_path / "visits.csv"
        whole.write_text("\n".join([head, first, *rest, ",".join(row[name] for name in head.split(","))]) + "\n")
        whole.replace(data)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            status = json.loads(call(f"{served.url}/endpoint/returns", asked)[1])["status"]
            if status != {"habits": "MISSING"}:
                break
            time.sleep(0.2)
        assert status == {"habits": "PRESENT"}
    finally:
        assert served.stop() == 0, served.log.read_text()


def test_the_actuator(served: Served) -> None:
    index = json.loads(call(f"{served.console}/actuator")[1])
    assert index["_links"]["health"]["href"].startswith(served.console)
    status, body, headers = call(f"{served.console}/actuator/health")
    assert (status, json.loads(body)["status"]) == (200, "UP")
    assert headers["content-type"] == "application/vnd.spring-boot.actuator.v3+json"
    assert {name for name, part in json.loads(body)["components"].items() if part["status"] == "UP"} == {
        "models",
        "catalog",
        "online",
        "predictionLog",
    }
    assert call(f"{served.console}/actuator/health/readiness")[0] == 200
    assert json.loads(call(f"{served.console}/actuator/info")[1])["process"]["pid"] == served.process.pid
    conditions = json.loads(call(f"{served.console}/actuator/conditions")[1])["contexts"]["shop"]
    assert "online.lmdb" in conditions["positiveMatches"]
    assert call(f"{served.console}/actuator/env")[0] == 404


def test_a_page_that_the_actuator_does_not_have_is_refused(built: Path, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    shutil.copytree(built, project, ignore=shutil.ignore_patterns("dev.lock", "server.log"))
    settings = project / "mainspring.toml"
    settings.write_text(f'{settings.read_text()}\n[management]\nexpose = ["health", "heapdump"]\n')
    ports = ("--port", str(free_port()), "--console-port", str(free_port()))
    done = mainspring("dev", "--no-watch", *ports, cwd=project, status=3)
    assert "MS-3022" in done.stderr
    assert "mainspring.toml" in done.stderr


def test_the_prometheus_page_parses(served: Served) -> None:
    call(f"{served.url}/endpoint/returns", KEYS)
    text = call(f"{served.console}/actuator/prometheus")[1].decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    seconds = families["mainspring_request_seconds"]
    mine = [s for s in seconds.samples if (s.labels.get("endpoint"), s.labels["route"]) == ("returns", "endpoint")]
    buckets = [s for s in mine if s.name.endswith("_bucket")]
    assert [s.value for s in buckets] == sorted(s.value for s in buckets)
    assert buckets[-1].labels["le"] == "+Inf"
    count = next(s for s in mine if s.name.endswith("_count"))
    assert count.value == buckets[-1].value > 0


def copy(built: Path, tmp_path: Path) -> Path:
    project = tmp_path / "shop"
    shutil.copytree(built, project, ignore=shutil.ignore_patterns("dev.lock", "server.log"))
    return project


def test_sigterm_drains_and_exits_0_and_the_log_is_kept(built: Path, tmp_path: Path) -> None:
    found = serve(copy(built, tmp_path), "serve")
    ids = [json.loads(call(f"{found.url}/endpoint/returns", KEYS)[1])["id"] for _ in range(20)]
    assert found.stop() == 0, found.log.read_text()
    sealed = list((found.project / ".mainspring" / "predictions" / "returns").glob("seg-*.parquet"))
    assert sealed

    kept = [row for path in sealed for row in pq.read_table(path).column("prediction_id").to_pylist()]
    assert set(ids) <= set(kept)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 12 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted: run as root, with CAP_SYS_ADMIN")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_stops_no_answer_and_is_told(built: Path, small_disk: Path) -> None:
    found = serve(copy(built, small_disk), "dev")

    def log() -> tuple[int, str, int]:
        status, body, _ = call(f"{found.console}/actuator/health")
        part = json.loads(body)["components"]["predictionLog"]
        return status, part["status"], part["details"]["dropped"]

    def ask(batches: int) -> set[int]:
        return {call(f"{found.url}/endpoint/returns", {"rows": [KEYS] * 5000})[0] for _ in range(batches)}

    try:
        filler = small_disk / "filler"
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        assert ask(7) == {200}
        assert log()[:2] == (503, "DOWN")
        assert log()[2] > 0
        assert call(f"{found.url}/v2/health/ready")[0] == 200
        filler.unlink()
        wait_for(lambda: log()[:2] == (200, "UP"))
        dropped = log()[2]
        assert ask(2) == {200}
        assert log()[2] == dropped
    finally:
        assert found.stop() == 0, found.log.read_text()


def test_sigterm_under_load_resets_no_connection(built: Path, tmp_path: Path) -> None:
    """Keep-alive clients are told to leave by an answer; only then, and when they are idle, are they closed."""
    found = serve(copy(built, tmp_path), "serve")
    port = int(found.url.rpartition(":")[2])
    ends: list[str] = []
    begun: set[int] = set()

    def ask(pause: float) -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        while True:
            try:
                client.request("POST", "/endpoint/returns", json.dumps(KEYS))
                answer = client.getresponse()
                answer.read()
            except OSError as error:
                ends.append(type(error).__name__)
                break
            begun.add(threading.get_ident())
            if answer.getheader("connection") == "close":
                ends.append(f"{answer.status} close")
                break
            time.sleep(pause)
        client.close()

    clients = [threading.Thread(target=ask, args=(pause,)) for pause in (0, 0, 0, 0, 0.1, 0.2)]
    idle = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    idle.request("GET", "/v2/health/live")
    idle.getresponse().read()
    for client in clients:
        client.start()
    wait_for(lambda: len(begun) == 6)
    assert found.stop() == 0, found.log.read_text()
    for client in clients:
        client.join()
    assert ends == ["200 close"] * 6
    assert idle.sock.recv(1) == b"", "closed in order, not reset"
    idle.close()
    with pytest.raises(OSError, match="refused"):
        call(found.url)


def test_nothing_acknowledged_is_lost_on_sigkill(built: Path, tmp_path: Path) -> None:
    found = serve(copy(built, tmp_path), "serve")
    ids = [json.loads(call(f"{found.url}/endpoint/returns", KEYS)[1])["id"] for _ in range(30)]
    os.kill(found.process.pid, signal.SIGKILL)
    found.process.wait()
    again = serve(found.project, "serve")
    again.stop()

    folder = found.project / ".mainspring" / "predictions" / "returns"
    kept = [
        row for path in folder.glob("seg-*.parquet") for row in pq.read_table(path).column("prediction_id").to_pylist()
    ]
    assert set(ids) <= set(kept)
    assert len(kept) == len(set(kept))


def test_a_promotion_is_taken_over_without_a_failed_request(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    path = project / "shop.py"
    path.write_text(path.read_text().replace("LogisticRegression()", "LogisticRegression(C=0.01)"))
    mainspring("run", "returns", cwd=project)
    found = serve(project, "serve")
    statuses: list[int] = []
    versions: list[str] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            status, body, _ = call(f"{found.url}/endpoint/returns", KEYS)
            statuses.append(status)
            versions.append(json.loads(body).get("version", ""))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        live = versions_after(versions, 0)
        other = "1" if live == "2" else "2"
        mainspring("promote", "returns", other, "--force", cwd=project)
        deadline = time.monotonic() + 60
        while (not versions or versions[-1] != other) and time.monotonic() < deadline:
            time.sleep(0.05)
        mainspring("rollback", "returns", cwd=project)
        deadline = time.monotonic() + 60
        while versions[-1] != live and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        stop.set()
        asking.join()
        assert found.stop() == 0
    assert set(statuses) == {200}
    assert {"1", "2"} <= set(versions)
    assert versions[-1] == live


def versions_after(versions: list[str], count: int) -> str:
    deadline = time.monotonic() + 60
    while len(versions) <= count and time.monotonic() < deadline:
        time.sleep(0.01)
    return versions[count]


def test_keys_close_the_endpoints(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    with open(project / "mainspring.toml", "a") as file:
        file.write('\n[server]\nkeys = ["env:SHOP_KEY"]\n')
    os.environ["SHOP_KEY"] = "sesame"
    try:
        found = serve(project, "serve")
    finally:
        del os.environ["SHOP_KEY"]
    try:
        assert call(f"{found.url}/endpoint/returns", KEYS)[0] == 401
        assert call(f"{found.url}/endpoint/returns", KEYS, {"Authorization": "Bearer wrong"})[0] == 401
        assert call(f"{found.url}/endpoint/returns", KEYS, {"Authorization": "Bearer sesame"})[0] == 200
        assert call(f"{found.url}/v2/health/ready")[0] == 200
    finally:
        found.stop()


def test_a_token_closes_everything_of_the_management_listener_but_health(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copy(built, tmp_path)
    with open(project / "mainspring.toml", "a") as file:
        file.write('\n[management]\ntoken = "env:SHOP_TOKEN"\n')
    monkeypatch.setenv("SHOP_TOKEN", "sesame:open")
    found = serve(project, "dev")
    basic = {who: base64.b64encode(f"{who}:sesame:open".encode()).decode() for who in ("", "ada")}
    try:
        for path in ("/", "/conditions", "/models/returns.json", "/static/console.css", "/nothing", "/actuator/info"):
            status, body, headers = call(f"{found.console}{path}")
            assert (status, headers["www-authenticate"].partition(" ")[0]) == (401, "Basic"), path
            assert b"shop" not in body
            for wrong in ("Bearer sesame", "Basic sesame", f"Basic {basic['ada'][:-4]}", "Bearer", "sesame:open"):
                assert call(f"{found.console}{path}", headers={"Authorization": wrong})[0] == 401, (path, wrong)
            for right in ("Bearer sesame:open", f"Basic {basic['']}", f"basic {basic['ada']}"):
                status = call(f"{found.console}{path}", headers={"Authorization": right})[0]
                assert status == (404 if path == "/nothing" else 200), (path, right)
        form = f"{found.console}/serving/returns/try"
        assert call(form, b"customer=c01&amount=1")[0] == 401
        assert call(form, b"customer=c01&amount=1", {"Authorization": f"Basic {basic['ada']}"})[0] == 200
        assert call(f"{found.console}/actuator/health")[0] == 200
        assert call(f"{found.url}/endpoint/returns", KEYS)[0] == 200
    finally:
        assert found.stop() == 0
    monkeypatch.setenv("SHOP_TOKEN", "")
    refused = mainspring("serve", "--port", "0", cwd=project, status=3)
    assert "MS-3023" in refused.stderr


def test_a_server_of_a_model_that_onnx_scores_loads_no_library_that_made_it(built: Path, tmp_path: Path) -> None:
    told = mainspring("why", "returns", cwd=built).stdout
    assert "served: onnx scores every number of rows" in told
    assert "skops" in told
    project = tmp_path / "shop"
    shutil.copytree(built, project)
    served = serve(project, "serve")
    try:
        assert call(f"{served.url}/endpoint/returns", KEYS)[0] == 200
        files = Path(f"/proc/{served.process.pid}/maps").read_text()
        assert "/onnxruntime/" in files
        assert not re.search("/(sklearn|scipy|pandas)/", files)
    finally:
        assert served.stop() == 0


def test_serve_shows_the_console_where_it_is_enabled(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    settings = project / "mainspring.toml"
    text = settings.read_text()
    settings.write_text(f"{text}\n[console]\nenabled = true\n[management]\nenabled = true\n")
    found = serve(project, "serve")
    try:
        shown = json.loads(call(f"{found.console}/models/returns.json")[1])
        assert shown["name"] == "returns"
    finally:
        assert found.stop() == 0
    settings.write_text(f"{text}\n[console]\nenabled = true\n[management]\nenabled = false\n")
    refused = mainspring("serve", "--port", "0", cwd=project, status=3)
    assert "MS-3024" in refused.stderr
    assert "mainspring.toml" in refused.stderr


def with_two_endpoints(built: Path, tmp_path: Path) -> Path:
    project = copy(built, tmp_path)
    app = project / "shop.py"
    app.write_text(app.read_text() + '\napp.endpoint(returns, called="again", latency="1us")\n')
    return project


def test_each_endpoint_has_its_own_requests_errors_and_latency(built: Path, tmp_path: Path) -> None:
    found = serve(with_two_endpoints(built, tmp_path), "dev")

    def rows() -> dict[str, dict[str, float]]:
        return {row["name"]: row for row in json.loads(call(f"{found.console}/serving.json")[1])["endpoints"]}

    try:
        before = rows()
        for endpoint, right, wrong in (("returns", 5, 0), ("again", 2, 3)):
            for body in [KEYS] * right + [{"colour": "red"}] * wrong:
                call(f"{found.url}/endpoint/{endpoint}", body)
        call(f"{found.url}/endpoint/nobody", KEYS)
        after = rows()
        counted = {n: tuple(after[n][part] - before[n][part] for part in ("requests", "errors")) for n in after}
        assert counted == {"returns": (5, 0), "again": (2, 3)}
        assert all(0 < row["p50"] <= row["p99"] for row in after.values())
        assert [(row["promised"], row["late"]) for row in after.values()] == [(None, False), (0.001, True)]
        shown = call(f"{found.console}/serving", headers={"Accept": "text/html"})[1].decode()
        assert shown.count("p99 is above the promised latency") == 1
        text = call(f"{found.console}/actuator/prometheus")[1].decode()
        assert 'mainspring_endpoint_latency_seconds{app="shop",endpoint="again"} 1e-06' in text
        assert "nobody" not in text
    finally:
        assert found.stop() == 0, found.log.read_text()


def test_serve_answers_for_the_endpoints_that_are_named(built: Path, tmp_path: Path) -> None:
    project = with_two_endpoints(built, tmp_path)
    found = serve(project, "serve", "again")
    try:
        assert json.loads(call(f"{found.url}/endpoint")[1]) == {"endpoints": ["again"]}
        assert call(f"{found.url}/endpoint/again", KEYS)[0] == 200
        assert call(f"{found.url}/endpoint/returns", KEYS)[0] == 404
        assert json.loads(call(f"{found.url}/v2/models")[1]) == {"models": ["returns"]}
    finally:
        assert found.stop() == 0
    unknown = mainspring("serve", "agian", "--port", "0", cwd=project, status=2)
    assert "did you mean 'again'?" in unknown.stderr


def test_a_port_in_use_and_a_second_dev_are_refused(served: Served) -> None:
    port = served.url.rpartition(":")[2]
    taken = mainspring("serve", "--port", port, cwd=served.project, status=3)
    assert taken.stderr.splitlines()[-4].startswith("error MS-3016") or "MS-3016" in taken.stderr
    second = mainspring("dev", "--port", str(free_port()), "--console-port", "0", cwd=served.project, status=4)
    assert "MS-4170" in second.stderr


def test_dev_serves_the_new_app_when_it_has_changed_and_keeps_the_old_one_when_it_is_broken(
    built: Path, tmp_path: Path
) -> None:
    project = copy(built, tmp_path)
    found = serve(project, "dev", "--watch")
    app = project / "shop.py"
    text = app.read_text()
    try:
        app.write_text(text + "\nthis is no Python\n")
        wait_for(lambda: "MS-" in found.log.read_text())
        assert call(f"{found.url}/endpoint/returns", KEYS)[0] == 200
        app.write_text(text.replace("app.endpoint(returns", 'app.endpoint(returns, called="again"'))
        wait_for(lambda: status_of(f"{found.url}/endpoint/again") == 200)
        assert call(f"{found.url}/endpoint/returns", KEYS)[0] == 404
        assert call(f"{found.console}/serving.json")[0] == 200
    finally:
        assert found.stop() == 0, found.log.read_text()
    assert "starting it anew" in found.log.read_text()


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def status_of(url: str) -> int:
    try:
        return call(url, KEYS)[0]
    except OSError:  # it is starting
        return 0
