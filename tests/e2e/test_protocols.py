"""Every wire of models on one server: what clients of each send, the same numbers on all, and what is refused."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from e2e.conftest import Served, call, free_port, mainspring, serve
from e2e.test_server import copy

INFER = "/v2/models/returns/infer"
CLASSES, HUGE = {"classification": 2}, {"shape": [2**31, 2**31]}
ROWS = [[1.0, 2.5, 3.0], [4.0, 5.0, 6.0], [0.0, 80.25, 19.5]]


def tensor(rows: list[list[float]], datatype: str = "FP64", **more: Any) -> dict[str, Any]:
    return {"name": "input", "datatype": datatype, "shape": [len(rows), 3], **more}


def oip_scores(url: str, rows: list[list[float]]) -> list[float]:
    """The scores of rows over OIP in JSON."""
    status, body, _ = call(f"{url}{INFER}", {"inputs": [tensor(rows, data=rows)]})
    assert status == 200, body
    found: list[float] = json.loads(body)["outputs"][0]["data"]
    return found


def raw(url: str, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Any:
    """A request with any method, and the answer with its headers as they were sent."""
    client = http.client.HTTPConnection(str(urlsplit(url).hostname), int(urlsplit(url).port or 0), timeout=30)
    try:
        client.request(method, path, body, headers or {})
        answer = client.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        client.close()


def test_tritons_client_knows_every_route(served: Served) -> None:
    script = Path(__file__).parents[1] / "triton_client.py"
    addresses = [urlsplit(url).netloc for url in (served.url, served.console)]
    command = [sys.executable, "-W", "ignore", str(script), *addresses, "returns", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [found[key] for key in ("live", "ready", "model_ready", "version_ready")] == [True] * 4
    assert found["no_version_ready"] is False
    assert "binary_tensor_data" in found["server"]["extensions"]
    assert found["model"]["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 3]}]
    assert found["config"]["input"] == [{"name": "input", "data_type": "TYPE_FP32", "dims": [3]}]
    assert found["index"] == [{"name": "returns", "version": "1", "state": "READY", "reason": ""}]
    scores = found["scores"]
    assert len(scores["binary"]) == 32
    assert all(scores[name] == scores["binary"] for name in ("json", "mixed", "gzip", "deflate", "all outputs"))
    (counted,) = found["statistics"]["model_stats"]
    assert counted["inference_count"] >= 6 * 32
    assert counted["inference_stats"]["success"]["count"] == counted["execution_count"] >= 6
    assert {"batch_size": 32}.items() <= counted["batch_stats"][-1].items()
    assert found["unknown"][0] == "404"
    assert found["unloaded"] == [
        False,
        [{"name": "returns", "version": "", "state": "UNAVAILABLE", "reason": "not loaded"}],
    ]
    assert (found["loaded"], found["config refused"], found["path refused"]) == (True, "400", "404")


def test_binary_tensors_of_each_datatype(served: Served) -> None:
    whole = [[1, 2, 3], [4, 5, 6]]
    wanted = oip_scores(served.url, [[float(value) for value in row] for row in whole])
    for datatype, kind in [
        *((f"UINT{bits}", f"<u{bits // 8}") for bits in (8, 16, 32, 64)),
        *((f"INT{bits}", f"<i{bits // 8}") for bits in (8, 16, 32, 64)),
        ("FP16", "<f2"),
        ("FP32", "<f4"),
        ("FP64", "<f8"),
        ("BF16", None),
    ]:
        data = np.array(whole, kind or "<f4")
        sent = data.tobytes() if kind else (data.view("<u4") >> 16).astype("<u2").tobytes()
        head = json.dumps(
            {
                "inputs": [tensor(whole, datatype, parameters={"binary_data_size": len(sent)})],
                "parameters": {"binary_data_output": True},
            }
        ).encode()
        headers = {"Inference-Header-Content-Length": str(len(head))}
        status, body, got = raw(served.url, "POST", INFER, head + sent, headers)
        assert (status, got["content-type"]) == (200, "application/octet-stream"), (datatype, body)
        length = int(got["inference-header-content-length"])
        (output,) = json.loads(body[:length])["outputs"]
        assert output["parameters"]["binary_data_size"] == len(body) - length == 16
        assert list(struct.unpack("<2d", body[length:])) == wanted, datatype


def test_a_raw_body_is_the_only_input(served: Served) -> None:
    body = np.array(ROWS[0], "<f4").tobytes()
    status, answer, got = raw(served.url, "POST", INFER, body, {"Inference-Header-Content-Length": "0"})
    length = int(got["inference-header-content-length"])
    assert (status, list(struct.unpack("<d", answer[length:]))) == (200, oip_scores(served.url, ROWS[:1]))
    assert raw(served.url, "POST", INFER, body[:-1], {"Inference-Header-Content-Length": "0"})[0] == 400


def test_columns_may_be_sent_one_by_one(served: Served) -> None:
    described = json.loads(call(f"{served.url}/endpoint/returns")[1])["columns"]
    inputs = [
        {"name": column["name"], "datatype": "FP64", "shape": shape, "data": [row[place] for row in ROWS]}
        for place, (column, shape) in enumerate(zip(described, ([3], [3, 1], [3]), strict=True))
    ]
    status, body, _ = call(f"{served.url}{INFER}", {"inputs": inputs})
    assert (status, json.loads(body)["outputs"][0]["data"]) == (200, oip_scores(served.url, ROWS))
    status, body, _ = call(f"{served.url}{INFER}", {"inputs": inputs[:2]})
    assert (status, described[2]["name"] in json.loads(body)["error"]) == (400, True)


@pytest.mark.parametrize(
    ("head", "tail", "length"),
    [
        ({"inputs": [tensor(ROWS, parameters={"binary_data_size": 72})]}, bytes(71), None),
        ({"inputs": [tensor(ROWS, parameters={"binary_data_size": 72})]}, bytes(73), None),
        ({"inputs": [tensor(ROWS, parameters={"binary_data_size": 8})]}, bytes(8), None),
        ({"inputs": [tensor(ROWS, parameters={"binary_data_size": -1})]}, b"", None),
        ({"inputs": [tensor(ROWS, parameters={"binary_data_size": 72}, data=[0] * 9)]}, bytes(72), None),
        ({"inputs": [tensor(ROWS, parameters=[1])]}, b"", None),
        ({"inputs": [tensor(ROWS, "FP16", data=[0] * 9)]}, b"", None),
        ({"inputs": [tensor(ROWS, data=[0] * 9)], "parameters": {"timeout": -1}}, b"", None),
        ({"inputs": [tensor(ROWS, data=[0] * 9)], "parameters": {"x": []}}, b"", None),
        ({"inputs": [tensor(ROWS, data=[0] * 9)], "outputs": [{"name": "score", "parameters": CLASSES}]}, b"", None),
        ({}, b"", "10000"),
        ({}, b"", "-1"),
        ({}, b"", "nine"),
        ({"inputs": [tensor(ROWS, parameters={"binary_data_size": 9}) | HUGE]}, bytes(9), None),
    ],
)  # fmt: skip
def test_binary_requests_that_lie_are_refused(
    served: Served, head: dict[str, Any], tail: bytes, length: str | None
) -> None:
    text = json.dumps(head).encode()
    headers = {"Inference-Header-Content-Length": length or str(len(text))}
    status, body, _ = raw(served.url, "POST", INFER, text + tail, headers)
    assert status == 400, body
    assert json.loads(body)["error"]


def test_a_deadline_that_is_over_is_answered_before_the_model_computes(served: Served) -> None:
    body = {"inputs": [tensor(ROWS * 2000, data=ROWS * 2000)], "parameters": {"timeout": 1, "priority": 1}}
    body["inputs"][0]["shape"] = [6000, 3]
    status, answer, _ = call(f"{served.url}{INFER}", body)
    assert (status, "deadline" in json.loads(answer)["error"]) == (504, True)


def test_compressed_bodies_are_bounded(served: Served) -> None:
    good = json.dumps({"inputs": [tensor(ROWS, data=ROWS)]}).encode()
    for coding, sent in [
        ("gzip", gzip.compress(good)),
        ("gzip", gzip.compress(good[:9]) + gzip.compress(good[9:])),
        ("deflate", zlib.compress(good)),
        ("deflate", zlib.compress(good)[2:-4]),
        ("identity", good),
    ]:
        status, body, _ = raw(served.url, "POST", INFER, sent, {"Content-Encoding": coding})
        assert status == 200, (coding, body)
    bomb = gzip.compress(bytes(1 << 30), 9)
    for coding, sent, wanted in [
        ("gzip", bomb, 413),
        ("deflate", zlib.compress(bytes(1 << 28), 9), 413),
        ("gzip", good, 400),
        ("gzip", gzip.compress(good)[:-9], 400),
        ("deflate", good, 400),
        ("br", good, 415),
    ]:
        assert raw(served.url, "POST", INFER, sent, {"Content-Encoding": coding})[0] == wanted, coding
    many = json.dumps({"inputs": [tensor(ROWS * 100, data=ROWS * 100) | {"shape": [300, 3]}]}).encode()
    for coding, inflate in [("gzip", gzip.decompress), ("deflate", zlib.decompress)]:
        status, body, got = raw(served.url, "POST", INFER, many, {"Accept-Encoding": coding})
        assert (status, got["content-encoding"]) == (200, coding)
        assert json.loads(inflate(body))["outputs"][0]["shape"] == [300]
    assert "content-encoding" not in raw(served.url, "POST", INFER, many)[2]


def test_a_million_tiny_chunks_are_refused(served: Served) -> None:
    address = (str(urlsplit(served.url).hostname), int(urlsplit(served.url).port or 0))
    with socket.create_connection(address, timeout=60) as client:
        client.sendall(f"POST {INFER} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode())
        answer = b""
        try:
            for _ in range(1000):
                client.sendall(b"1\r\n \r\n" * 1000)
            client.sendall(b"0\r\n\r\n")
        except OSError:  # closed under our hands
            pass
        try:
            while part := client.recv(65_536):
                answer += part
        except OSError:
            pass
    assert answer[9:12] in (b"400", b""), answer[:200]  # nothing, when the connection was reset under our hands
    assert call(f"{served.url}/v2/health/ready")[0] == 200


def test_a_deep_body_is_refused(served: Served) -> None:
    deep = b'{"inputs":' + b"[" * 200_000
    assert call(f"{served.url}{INFER}", deep)[0] == 400
    nested: list[Any] = [1.0]
    for _ in range(40):
        nested = [nested]
    status, body, _ = call(f"{served.url}{INFER}", {"inputs": [{**tensor([[1, 1, 1]]), "data": nested}]})
    assert (status, "nested" in json.loads(body)["error"]) == (400, True)


def test_models_are_loaded_where_it_is_allowed_and_by_name_alone(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copy(built, tmp_path)
    with open(project / "mainspring.toml", "a") as file:
        file.write('\n[management]\ntoken = "env:MANAGEMENT"\n[server]\nkeys = ["env:KEY"]\n')
    monkeypatch.setenv("MANAGEMENT", "manage-me")
    monkeypatch.setenv("KEY", "ask-me")
    found = serve(project, "serve")
    unload, load = (f"{found.url}/v2/repository/models/returns/{verb}" for verb in ("unload", "load"))
    asking, managing = ({"Authorization": f"Bearer {key}"} for key in ("ask-me", "manage-me"))
    good = {"inputs": [tensor(ROWS, data=ROWS)]}
    try:
        assert call(unload, b"")[0] == 401
        for path, shape in (
            (INFER, {"error"}),
            ("/v1/models/returns:predict", {"error"}),
            ("/predictions/returns", {"code", "type", "message"}),
            ("/score", {"message"}),
        ):
            status, body, headers = call(f"{found.url}{path}", good)
            assert (status, set(json.loads(body)), headers["www-authenticate"]) == (401, shape, "Bearer"), path
        status, body, _ = call(unload, b"", asking)
        assert (status, "management.token" in json.loads(body)["error"]) == (403, True)
        assert call(f"{found.url}{INFER}", good, managing)[0] == 401
        assert call(f"{found.url}{INFER}", good, asking)[0] == 200
        assert json.loads(call(unload, b"", managing)[1]) == {"name": "returns", "unload": True}
        assert call(f"{found.url}{INFER}", good, asking)[0] == 503
        assert call(f"{found.url}/v2/models/returns/ready", None, asking)[0] == 503
        assert call(f"{found.url}/v2/health/ready")[0] == 200
        assert json.loads(call(load, {}, managing)[1]) == {"name": "returns", "load": True}
        assert call(f"{found.url}{INFER}", good, asking)[0] == 200
        for name in ("http:%2F%2Fexample.org%2Fmodel", "..%2F..%2Fetc", "%2Fetc%2Fpasswd", "s3:%2F%2Fb", "file:x"):
            address = f"{found.url}/v2/repository/models/{name}/load"
            assert call(address, b"", managing)[0] == 404, name
        for parameters in ({"config": "{}"}, {"file:1/model.onnx": "AAAA"}):
            assert call(load, {"parameters": parameters}, managing)[0] == 400
    finally:
        assert found.stop() == 0, found.log.read_text()


def test_pages_of_other_sites_manage_nothing(served: Served) -> None:
    path = "/v2/repository/models/returns/unload"
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert raw(served.console, "POST", path, b"", headers)[0] == 403
    assert call(f"{served.url}/v2/models/returns/ready")[0] == 200


def test_only_the_protocols_of_the_settings_are_served(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    with open(project / "mainspring.toml", "a") as file:
        file.write('\n[serving]\nprotocols = ["oip", "corba"]\n')
    assert "MS-3101" in mainspring("check", cwd=project, status=3).stderr
    toml = project / "mainspring.toml"
    toml.write_text(toml.read_text().replace('["oip", "corba"]', '[]\nmodel = "nobody"'))
    assert "MS-3102" in mainspring("serve", "--port", str(free_port()), cwd=project, status=3).stderr
    toml.write_text(toml.read_text().replace('model = "nobody"', ""))
    found = serve(project, "serve")
    try:
        assert call(f"{found.url}{INFER}", {"inputs": [tensor(ROWS, data=ROWS)]})[0] == 404
        assert call(f"{found.url}/endpoint/returns", {"customer": "c01", "amount": 20.0})[0] == 200
    finally:
        assert found.stop() == 0, found.log.read_text()
