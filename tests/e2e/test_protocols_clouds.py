"""The containers of the clouds, and TorchServe: what each platform sends, and what it is answered."""

from __future__ import annotations

import io
import json
import shutil
import struct
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from e2e.conftest import Served, call, free_port, mainspring, serve
from e2e.test_protocols import ROWS, oip_scores, raw, tensor
from e2e.test_protocols_v1 import columns_of
from e2e.test_server import copy

NPY, CSV, LINES = "application/x-npy", "text/csv", "application/jsonlines"
ARROW, PARQUET = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"


def post(served: Served, path: str, body: Any, status: int = 200, **headers: str) -> tuple[bytes, dict[str, str]]:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    found, answer, got = raw(served.url, "POST", path, sent, named)
    assert found == status, (path, sent[:200], answer)
    return answer, got


def table(served: Served) -> pa.Table:
    matrix = np.array(ROWS)
    return pa.table({name: matrix[:, place] for place, name in enumerate(columns_of(served.url))})


def arrow(data: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, data.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(data)
    return sink.getvalue()


def arrow_file(data: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, data.schema) as writer:
        writer.write_table(data)
    return sink.getvalue()


def parquet(data: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(data, sink)
    return sink.getvalue()


def npy(array: Any) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


def test_ping(served: Served) -> None:
    assert json.loads(call(f"{served.url}/ping")[1]) == {"status": "Healthy"}


def test_invocations_in_every_content_type(served: Served) -> None:
    wanted, names = oip_scores(served.url, ROWS), columns_of(served.url)
    text = "".join(",".join(map(str, row)) + "\n" for row in ROWS)
    turned = ",".join(reversed(names)) + "\r\n" + "".join(",".join(map(str, row[::-1])) + "\r\n" for row in ROWS)
    objects = [dict(zip(names, row, strict=True)) for row in ROWS]
    lines = "".join(json.dumps({"features": row}) + "\n" for row in ROWS).encode()
    for kind, body in [
        ("application/json", {"instances": ROWS}),
        ("application/json; charset=utf-8", ROWS),
        ("application/x-www-form-urlencoded", objects),
        ("application/json", {"inputs": ROWS}),
        ("application/json", {"data": ROWS}),
        ("application/json", {"dataframe_split": {"columns": names[::-1], "data": [row[::-1] for row in ROWS]}}),
        ("application/json", {"dataframe_records": objects}),
        ("application/json", {name: [row[place] for row in ROWS] for place, name in enumerate(names)}),
        (CSV, text.encode()),
        (CSV, turned.encode()),
        (LINES, lines),
        (NPY, npy(np.array(ROWS))),
        (NPY, npy(np.asfortranarray(ROWS, "f4"))),
        (NPY, npy(np.array(ROWS, ">f8"))),
        (ARROW, arrow(table(served))),
        ("application/vnd.apache.arrow.file", arrow_file(table(served))),
        (PARQUET, parquet(table(served))),
    ]:
        answer, got = post(served, "/invocations", body, content_type=kind, accept="application/json")
        assert json.loads(answer) == {"predictions": wanted}, kind
        assert got["content-type"] == "application/json"
        assert len(got["x-mainspring-prediction-ids"].split(",")) == 3
    answer, got = post(served, "/invocations?model_name=returns", ROWS[0])
    assert json.loads(answer) == {"predictions": wanted[:1]}


READERS: list[tuple[str, Callable[[bytes], Any]]] = [
    ("application/json", lambda body: json.loads(body)["predictions"]),
    (CSV, lambda body: [float(line) for line in body.split()]),
    (LINES, lambda body: [json.loads(line) for line in body.splitlines()]),
    (NPY, lambda body: np.load(io.BytesIO(body)).tolist()),
    (ARROW, lambda body: pa.ipc.open_stream(body).read_all().column("score").to_pylist()),
    (PARQUET, lambda body: pq.read_table(io.BytesIO(body)).column("score").to_pylist()),
]


@pytest.mark.parametrize(("kind", "read"), READERS)
def test_invocations_are_answered_in_what_is_accepted(served: Served, kind: str, read: Callable[[bytes], Any]) -> None:
    answer, got = post(served, "/invocations", {"instances": ROWS}, accept=f"{kind};q=0.9, image/png")
    assert (read(answer), got["content-type"]) == (oip_scores(served.url, ROWS), kind)


def test_without_a_wish_rows_are_answered_as_they_came(served: Served) -> None:
    wanted = oip_scores(served.url, ROWS[:1])
    answer, got = post(served, "/invocations", b"1.0,2.5,3.0\n", content_type=CSV, accept="*/*")
    assert (float(answer), got["content-type"]) == (wanted[0], CSV)
    answer, got = post(served, "/invocations", npy(np.array(ROWS[0])), content_type=NPY)
    assert (np.load(io.BytesIO(answer)).tolist(), got["content-type"]) == (wanted, NPY)


def test_custom_attributes_and_the_clouds_binary_type(served: Served) -> None:
    told = {"x_amzn_sagemaker_custom_attributes": "trace=7"}
    assert post(served, "/invocations", ROWS, **told)[1]["x-amzn-sagemaker-custom-attributes"] == "trace=7"
    data = np.array(ROWS, "<f4").tobytes()
    request = {
        "inputs": [tensor(ROWS, "FP32", parameters={"binary_data_size": len(data)})],
        "outputs": [{"name": "score", "parameters": {"binary_data": True}}],
    }
    head = json.dumps(request).encode()
    for vendor in ("sagemaker", "vertex-ai"):
        kind = f"application/vnd.{vendor}-triton.binary+json;json-header-size="
        answer, got = post(served, "/invocations", head + data, content_type=f"{kind}{len(head)}")
        assert got["content-type"].startswith(kind)
        size = int(got["content-type"].removeprefix(kind))
        assert json.loads(answer[:size])["outputs"][0]["parameters"] == {"binary_data_size": 24}
        assert list(struct.unpack("<3d", answer[size:])) == oip_scores(served.url, ROWS)
        post(served, "/invocations", head + data, 400, content_type=f"{kind}x")
        post(served, "/invocations", head + data, 400, content_type=f"{kind}99999")
    answer, _ = post(served, "/invocations", {"inputs": [tensor(ROWS, data=ROWS)]})
    assert json.loads(answer)["outputs"][0]["data"] == oip_scores(served.url, ROWS)


def bad_bodies() -> Iterator[tuple[str, bytes, int]]:
    names = ["visits_30d", "amount_30d", "amount"]
    good = pa.table({name: [1.0] for name in names})
    lying = bytearray(npy(np.zeros((2, 3))))
    yield "image/png", b"", 415
    yield "application/json", b"", 400
    yield "application/json", b"7", 400
    yield "application/json", b'{"colour": 1}', 400
    yield "application/json", b'{"input_data": {"columns": ["amount", "amount"], "data": [[1, 2]]}}', 400
    yield "application/json", b'{"input_data": {"columns": ["amount"], "data": [[1, 2]]}}', 400
    yield "application/json", b'{"input_data": 7}', 400
    yield CSV, b"", 400
    yield CSV, b"1,2\n", 400
    yield CSV, b"1,2,3\n4,5\n", 400
    yield CSV, b"1,2,x\n", 400
    yield CSV, b"1,2,1_0\n", 400
    yield CSV, b"\xff\xfe\n", 400
    yield CSV, b"amount,amount,visits_30d\n1,2,3\n", 400
    yield CSV, b"1,2,3\n" * 65_537, 413
    yield LINES, b"[1,2]\n", 400
    yield LINES, b"{\n", 400
    yield NPY, b"x", 400
    yield NPY, bytes(lying[:-1]), 400
    yield NPY, bytes(lying).replace(b"(2, 3)", b"(9, 3)"), 400
    yield NPY, bytes(lying).replace(b"(2, 3)", b"(2,-3)"), 400
    yield NPY, npy(np.zeros((2, 4))), 400
    yield NPY, npy(np.array([["a", "b", "c"]])), 400
    yield NPY, npy(np.array([[{}, 1, 2]], object)), 400
    yield NPY, b"\x93NUMPY\x01\x00\x76\x00" + b"(" * 117 + b"\n", 400
    yield ARROW, b"", 400
    yield ARROW, arrow(good)[:-20][:200], 400
    yield ARROW, arrow(good, compression="zstd"), 400
    yield ARROW, arrow(good.drop_columns(["amount"])), 400
    yield ARROW, arrow(good.slice(0, 0)), 400
    yield ARROW, arrow(good.set_column(0, "visits_30d", pa.array(["a"]))), 400
    yield PARQUET, b"PAR1PAR1", 400
    yield PARQUET, parquet(good)[:-9], 400
    yield PARQUET, parquet(good.drop_columns(["amount"])), 400
    yield PARQUET, parquet(pa.table({name: np.zeros(70_000) for name in names})), 413


@pytest.mark.parametrize(("kind", "body", "status"), list(bad_bodies()))
def test_what_is_no_body_of_its_type_is_refused(served: Served, kind: str, body: bytes, status: int) -> None:
    answer, _ = post(served, "/invocations", body, status, content_type=kind)
    assert json.loads(answer)["error"]


def test_an_unknown_wish_is_refused(served: Served) -> None:
    post(served, "/invocations", ROWS, 406, accept="image/png")


def test_azure_scores_with_its_headers(served: Served) -> None:
    wanted, names = oip_scores(served.url, ROWS), columns_of(served.url)
    frame = {"input_data": {"columns": names, "index": [0, 1, 2], "data": ROWS}}
    answer, got = post(served, "/score", frame, x_ms_client_request_id="mine")
    assert json.loads(answer) == wanted
    assert (got["x-ms-request-id"], got["x-ms-client-request-id"]) == ("mine", "mine")
    assert uuid.UUID(got["x-request-id"])
    assert float(got["x-ms-run-fn-exec-ms"]) > 0
    assert got["x-ms-run-function-failed"] == "False"
    assert got["x-ms-server-version"].startswith("mainspring/")
    _, got = post(served, "/score", frame, x_request_id="r", traceid="t")
    assert (got["x-request-id"], got["x-ms-request-id"], got["traceid"]) == ("r", "r", "t")
    assert "x-ms-client-request-id" not in got
    answer, _ = post(served, "/score", frame, 431, x_request_id="r" * 101)
    assert json.loads(answer)["message"]
    answer, got = post(served, "/score", {"input_data": 7}, 400, x_request_id="r")
    assert (list(json.loads(answer)), got["x-request-id"]) == (["message"], "r")
    post(served, "/score", b"", 415, content_type="image/png")
    status, answer, _ = raw(served.url, "DELETE", "/score")
    assert status == 405
    query = "&".join(f"{name}={value}" for name, value in zip(names, ROWS[0], strict=True))
    assert json.loads(call(f"{served.url}/score?{query}")[1]) == wanted[:1]
    assert call(f"{served.url}/score?{query}x")[0] == 400
    assert call(f"{served.url}/score")[0] == 400
    assert raw(served.url, "OPTIONS", "/score")[0] == 200


def test_azures_swagger(served: Served) -> None:
    names = columns_of(served.url)
    for query, key, version in (
        ("", "swagger", "2.0"),
        ("?version=2", "swagger", "2.0"),
        ("?version=3", "openapi", "3.0.3"),
        ("?version=3.1", "openapi", "3.1.0"),
    ):
        found = json.loads(call(f"{served.url}/swagger.json{query}")[1])
        assert found[key] == version
        shapes = found["definitions"] if key == "swagger" else found["components"]["schemas"]
        assert shapes["ServiceInput"]["properties"]["input_data"]["properties"]["columns"]["items"]["enum"] == names
        example = shapes["ServiceInput"]["example"]
        assert len(json.loads(post(served, "/score", example)[0])) == 1
    assert call(f"{served.url}/swagger.json?version=4")[0] == 404


SCRIPT = """
import json, time
from beside import FACTOR

def init():
    global started
    started = True

def run(data):
    asked = json.loads(data)
    if asked == "late":
        time.sleep(30)
    return {"started": started, "scores": [FACTOR * sum(row) for row in asked["data"]]}
"""


def test_azures_entry_scripts_answer_in_the_models_place(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copy(built, tmp_path)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "score.py").write_text(SCRIPT)
    (tmp_path / "code" / "beside.py").write_text("FACTOR = 2")
    monkeypatch.setenv("AML_APP_ROOT", str(tmp_path / "code"))
    monkeypatch.setenv("AZUREML_ENTRY_SCRIPT", "score.py")
    monkeypatch.setenv("SCORING_TIMEOUT_MS", "1500")
    found = serve(project, "serve")
    try:
        answer, got = post(found, "/score", {"data": [[1, 2], [3, 4]]})
        assert json.loads(answer) == {"started": True, "scores": [6, 14]}
        assert got["x-ms-run-function-failed"] == "False"
        answer, got = post(found, "/score", {"dat": 1}, 500, x_request_id="r")
        assert (json.loads(answer), got["x-ms-run-function-failed"]) == ({"message": "the script failed"}, "True")
        assert got["x-request-id"] == "r"
        assert "KeyError" in found.log.read_text()
        post(found, "/score", b"\xff", 400)
        assert post(found, "/score", "late", 500)[1]["x-ms-run-function-failed"] == "True"
        assert call(f"{found.url}/")[1] == b"Healthy"
        assert call(f"{found.url}/v2/models/returns/ready")[0] == 200
    finally:
        found.process.kill()
        found.process.wait()
    for text, code in (("def init(): 1 / 0", "MS-2520"), ("x = 1", "MS-2520")):
        (tmp_path / "code" / "score.py").write_text(text)
        assert code in mainspring("serve", "--port", str(free_port()), cwd=project, status=1).stderr
    (tmp_path / "code" / "score.py").unlink()
    assert "MS-3103" in mainspring("serve", "--port", str(free_port()), cwd=project, status=3).stderr


def test_torchserve_predicts(served: Served) -> None:
    wanted = oip_scores(served.url, ROWS)
    for method in ("POST", "PUT"):
        for path in ("/predictions/returns", "/predictions/returns/1"):
            status, answer, got = raw(served.url, method, path, json.dumps(ROWS).encode(), {"x-request-id": "r"})
            assert (status, json.loads(answer), got["x-request-id"]) == (200, wanted, "r")
    form = (
        b'--x\r\nContent-Disposition: form-data; name="data"\r\n\r\n[1.0, 2.5, 3.0]\r\n'
        b'--x\r\nContent-Disposition: form-data; name="data2"; filename="a.csv"\r\nContent-Type: text/csv\r\n\r\n'
        b"4,5,6\n0,80.25,19.5\r\n--x--\r\n"
    )
    answer, _ = post(served, "/predictions/returns", form, content_type='multipart/form-data; boundary="x"')
    assert json.loads(answer) == wanted
    for broken in (form[:-6], form.replace(b'"data', b'"other'), b"", b"--x--"):
        post(served, "/predictions/returns", broken, 400, content_type="multipart/form-data; boundary=x")
    for path, status, kind in (
        ("/predictions/nobody", 404, "ModelNotFoundException"),
        ("/predictions/returns/7", 404, "ModelVersionNotFoundException"),
        ("/explanations/returns", 501, "NotImplementedException"),
    ):
        answer, got = post(served, path, ROWS, status)
        fault = json.loads(answer)
        assert (fault["code"], fault["type"], set(fault)) == (status, kind, {"code", "type", "message"})
        assert got["x-request-id"]
    answer, _ = post(served, "/predictions/returns", b"{", 400)
    assert json.loads(answer)["type"] == "BadRequestException"
    assert json.loads(raw(served.url, "OPTIONS", "/")[1])["openapi"] == "3.0.1"


def test_torchserve_is_managed_by_names(served: Served) -> None:
    def manage(method: str, path: str, body: bytes = b"", url: str = served.console) -> tuple[int, Any]:
        status, answer, _ = raw(url, method, path, body)
        return status, json.loads(answer)

    assert manage("GET", "/models", url=served.url) == (
        200,
        {"models": [{"modelName": "returns", "modelUrl": "returns"}]},
    )
    for path in ("/models/returns", "/models/returns/1", "/models/returns/all"):
        status, (found,) = manage("GET", path, url=served.url)
        assert (status, found["modelVersion"], found["workers"][0]["status"]) == (200, "1", "READY")
        assert found["workers"][0]["pid"] == served.process.pid
        assert 2**24 < found["workers"][0]["memoryUsage"] < 2**36
    assert manage("GET", "/models/nobody", url=served.url)[1]["type"] == "ModelNotFoundException"
    assert manage("DELETE", "/models/returns", url=served.url)[0] == 403
    assert manage("POST", "/models?url=returns")[0] == 409
    for url in (
        "https%3A%2F%2Fa.org%2Fm.mar", "file%3A%2F%2F%2Fetc%2Fpasswd", "..%2F..%2Fm.mar", "%2Fopt%2Fm", "s3%3A%2F%2F",
    ):  # fmt: skip
        status, fault = manage("POST", f"/models?url={url}")
        assert (status, fault["type"]) == (400, "BadRequestException")
    assert manage("PUT", "/models/returns/1/set-default")[0] == 200
    assert manage("PUT", "/models/returns/7/set-default")[1]["type"] == "ModelVersionNotFoundException"
    assert manage("PUT", "/models/returns?min_worker=2&synchronous=true")[0] == 200
    assert manage("PUT", "/models/returns?min_worker=x")[0] == 400
    assert manage("PUT", "/models/returns?colour=1")[0] == 400
    try:
        assert manage("DELETE", "/models/returns/7")[0] == 404
        assert manage("DELETE", "/models/returns")[0] == 200
        assert manage("DELETE", "/models/returns")[0] == 404
        post(served, "/predictions/returns", ROWS, 503)
    finally:
        status, told = manage("POST", "/models", b'{"url": "returns", "initial_workers": 1, "synchronous": true}')
    assert (status, told["status"]) == (200, 'Model "returns" Version: 1 registered with 1 initial workers')
    assert manage("PUT", "/models/returns?min_worker=0&max_worker=0")[0] == 202
    post(served, "/predictions/returns", ROWS, 503)
    assert manage("PUT", "/models/returns?min_worker=1")[0] == 202
    post(served, "/predictions/returns", ROWS)
    assert b"mainspring_predictions_total" in call(f"{served.console}/metrics")[1]
    page = {"accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    assert call(f"{served.console}/models", headers=page)[1].startswith(b"<!doctype html>")
    assert call(f"{served.console}/models.json")[2]["content-type"].startswith("application/json")
    for accept in ({}, {"accept": "*/*"}, {"accept": "application/json"}):  # TorchServe's clients
        status, listed, _ = call(f"{served.console}/models", headers=accept)
        assert (status, json.loads(listed)["models"][0]["modelName"]) == (200, "returns")
        (described,) = json.loads(call(f"{served.console}/models/returns", headers=accept)[1])
        queue = described["jobQueueStatus"]
        assert (described["modelVersion"], described["batchSize"], queue) == (
            "1", 1024, {"remainingCapacity": 16_384, "pendingRequests": 0}
        )  # fmt: skip


def test_vertex_asks_where_its_environment_says(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIP_ENDPOINT_ID", "12")
    monkeypatch.setenv("AIP_DEPLOYED_MODEL_ID", "34")
    found = serve(copy(built, tmp_path), "serve")
    try:
        wanted, route = oip_scores(found.url, ROWS), "/v1/endpoints/12/deployedModels/34"
        assert call(f"{found.url}{route}")[0] == 200
        body = {"instances": ROWS, "parameters": {"any": 1}}
        assert json.loads(post(found, f"{route}:predict", body)[0]) == {"predictions": wanted}
        answer, _ = post(found, f"{route}:predict", npy(np.array(ROWS)), content_type=NPY)
        assert np.load(io.BytesIO(answer)).tolist() == wanted
    finally:
        assert found.stop() == 0, found.log.read_text()


@pytest.fixture
def platform() -> Iterator[Path]:
    """SageMaker's folder of models."""
    root = Path("/opt/ml/models")
    if root.exists():
        pytest.skip(f"{root} is somebody's already")
    made = next(path for path in reversed((root, *root.parents)) if not path.exists())
    try:
        root.mkdir(parents=True)
    except OSError:
        pytest.skip(f"run as root: SageMaker's folder is {root}")
    try:
        yield root
    finally:
        shutil.rmtree(made)


def test_sagemaker_loads_many_models_from_its_folder_alone(
    built: Path, served: Served, platform: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SAGEMAKER_MULTI_MODEL", "true")
    root, project = platform, copy(built, tmp_path)
    outside = next((served.project / ".mainspring" / "models").iterdir())
    shutil.copytree(outside, root / "abc" / "model")
    (root / "empty").mkdir()
    (root / "link").symlink_to(outside)
    found = serve(project, "serve")
    try:
        good = {"model_name": "abc", "url": str(root / "abc" / "model")}
        for url in (
            "s3://bucket/model", f"file://{root}/abc/model", str(outside), str(root / "link"), f"{root}/../../../etc",
            str(root / "none"), str(root / "empty"), "abc/model", "/\0",
        ):  # fmt: skip
            post(found, "/models", {"model_name": "x", "url": url}, 400)
        post(found, "/models", {"model_name": "returns", "url": good["url"]}, 409)
        post(found, "/models", good)
        post(found, "/models", good, 409)
        assert json.loads(call(f"{found.url}/models")[1]) == {"models": [{"modelName": "abc", "modelUrl": good["url"]}]}
        assert json.loads(call(f"{found.url}/models/abc")[1])["modelName"] == "abc"
        wanted = oip_scores(found.url, ROWS)
        assert json.loads(post(found, "/models/abc/invoke", ROWS)[0]) == {"predictions": wanted}
        assert raw(found.url, "DELETE", "/models/abc")[0] == 200
        assert raw(found.url, "DELETE", "/models/abc")[0] == 404
        post(found, "/models/abc/invoke", ROWS, 404)
        post(found, "/invocations", ROWS)
    finally:
        assert found.stop() == 0, found.log.read_text()


def test_a_method_that_is_not_served_is_refused_in_the_wires_own_shape(served: Served) -> None:
    """With what is served there (RFC 9110, section 15.5.6)."""
    status, answer, headers = raw(served.url, "GET", "/predictions/returns", b"", {})
    assert (status, headers["allow"]) == (405, "POST, PUT")
    assert json.loads(answer)["type"] == "MethodNotAllowedException"
    status, answer, headers = raw(served.url, "PUT", "/score", b"{}", {})
    assert (status, headers["allow"], list(json.loads(answer))) == (405, "GET, OPTIONS, POST", ["message"])
    status, answer, headers = raw(served.url, "DELETE", "/v2/models/returns/infer", b"", {})
    assert (status, headers["allow"], list(json.loads(answer))) == (405, "POST", ["error"])


def test_ping_bears_the_name_of_its_request(served: Served) -> None:
    assert raw(served.url, "GET", "/ping", b"", {"x-request-id": "mine"})[2]["x-request-id"] == "mine"
    assert uuid.UUID(raw(served.url, "GET", "/ping", b"", {})[2]["x-request-id"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v2/models/returns/infer", {"inputs": [tensor([[1, 2, 3]], data=[1, 2, 3])]}),
        ("/v1/models/returns:predict", {"instances": [[1, 2, 3]]}),
        ("/predictions/returns", [[1, 2, 3]]),
        ("/invocations", {"instances": [[1, 2, 3]]}),
        ("/score", {"data": [[1, 2, 3]]}),
        ("/endpoint/returns", {"customer": "c1", "amount": 2.0}),
    ],
)
def test_what_is_not_loaded_is_503_with_when_to_come_again(unloaded: Served, path: str, body: object) -> None:
    headers = post(unloaded, path, body, 503)[1]
    assert headers["retry-after"] == "1"


def test_tensorflows_status_of_what_is_not_loaded(unloaded: Served) -> None:
    status, answer, _ = raw(unloaded.url, "GET", "/v1/models/returns", b"", {})
    assert (status, json.loads(answer)["ready"]) == (503, False)
    assert raw(unloaded.url, "GET", "/v1/models/nobody", b"", {})[0] == 404


@pytest.fixture(scope="module")
def unloaded(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose model was unloaded."""
    found = serve(copy(built, tmp_path_factory.mktemp("unloaded")))
    assert raw(found.console, "POST", "/v2/repository/models/returns/unload", b"", {})[0] == 200
    yield found
    assert found.stop() == 0, found.log.read_text()
