"""The same rows have the same scores, to the bit, by whatever wire they come; no bad input is the server's fault."""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from e2e.conftest import Served, call
from e2e.test_protocols import INFER, raw, tensor
from e2e.test_protocols_clouds import ARROW, CSV, LINES, NPY, PARQUET, arrow, npy, parquet
from e2e.test_protocols_v1 import columns_of
from e2e.test_server import INFERENCES, JSON, near

V1 = "/v1/models/returns"
Rows = list[list[float]]
NUMBERS = st.floats(width=32, allow_infinity=False) | st.integers(-1000, 1000).map(float)
MATRICES = st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=1, max_size=5)


def columns_by(names: list[str], rows: Rows) -> dict[str, list[float]]:
    return {name: [row[place] for row in rows] for place, name in enumerate(names)}


def objects_by(names: list[str], rows: Rows) -> list[dict[str, float]]:
    return [dict(zip(names, row, strict=True)) for row in rows]


def table_by(names: list[str], rows: Rows) -> pa.Table:
    return pa.table({name: np.array(column, "f4") for name, column in columns_by(names, rows).items()})


def test_every_wire_gives_the_same_scores(served: Served) -> None:
    names = columns_of(served.url)

    def post(path: str, body: bytes, **headers: str) -> tuple[bytes, dict[str, str]]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        status, answer, got = raw(served.url, "POST", path, body, named)
        assert status == 200, (path, body[:500], answer)
        return answer, got

    def plain(path: str, make: Callable[[Rows], Any], read: Callable[[Any], Any]) -> Callable[[Rows], list[float]]:
        return lambda rows: read(json.loads(post(path, json.dumps(make(rows)).encode())[0]))

    def binary(rows: Rows, kind: str, datatype: str) -> list[float]:
        data = np.array(rows, kind).tobytes()
        wanted = {"outputs": [{"name": "score", "parameters": {"binary_data": True}}]}
        head = json.dumps({"inputs": [tensor(rows, datatype, parameters={"binary_data_size": len(data)})]} | wanted)
        answer, got = post(INFER, head.encode() + data, inference_header_content_length=str(len(head)))
        return np.frombuffer(answer[int(got["inference-header-content-length"]) :], "<f8").tolist()

    def typed(kind: str, make: Callable[[Rows], bytes]) -> Callable[[Rows], list[float]]:
        def ask(rows: Rows) -> list[float]:
            answer, _ = post("/invocations", make(rows), content_type=kind, accept=NPY)
            return np.load(io.BytesIO(answer)).tolist()

        return ask

    wires: dict[str, Callable[[Rows], list[float]]] = {
        "v2 binary FP32": lambda rows: binary(rows, "<f4", "FP32"),
        "v2 binary FP64": lambda rows: binary(rows, "<f8", "FP64"),
        "v2 columns": plain(
            INFER,
            lambda rows: {
                "inputs": [
                    {"name": name, "datatype": "FP32", "shape": [len(rows)], "data": column}
                    for name, column in columns_by(names, rows).items()
                ]
            },
            lambda body: body["outputs"][0]["data"],
        ),
        "v1 rows": plain(f"{V1}:predict", lambda r: {"instances": r}, lambda b: b["predictions"]),
        "v1 objects": plain(f"{V1}:predict", lambda r: {"instances": objects_by(names, r)}, lambda b: b["predictions"]),
        "v1 columns": plain(f"{V1}:predict", lambda r: {"inputs": columns_by(names, r)}, lambda b: b["outputs"]),
        "v1 regress": plain(f"{V1}:regress", lambda r: {"examples": objects_by(names, r)}, lambda b: b["results"]),
        "sagemaker": plain("/invocations", lambda r: {"instances": r}, lambda b: b["predictions"]),
        "azure": plain(
            "/score", lambda r: {"input_data": {"columns": names[::-1], "data": [x[::-1] for x in r]}}, lambda b: b
        ),
        "torchserve": plain("/predictions/returns", lambda r: r, lambda b: b),
        CSV: typed(CSV, lambda rows: "\n".join(",".join(map(repr, row)) for row in rows).encode()),
        LINES: typed(LINES, lambda rows: "\n".join(json.dumps(row) for row in rows).encode()),
        NPY: typed(NPY, lambda rows: npy(np.array(rows, "f4"))),
        ARROW: typed(ARROW, lambda rows: arrow(table_by(names, rows))),
        PARQUET: typed(PARQUET, lambda rows: parquet(table_by(names, rows))),
    }
    reference = plain(INFER, lambda r: {"inputs": [tensor(r, data=r)]}, lambda body: body["outputs"][0]["data"])

    @settings(max_examples=40, deadline=None)
    @given(MATRICES)
    def agree(rows: Rows) -> None:
        wanted = reference(rows)
        assert len(wanted) == len(rows)
        for name, ask in wires.items():
            found = ask(rows)
            assert [struct.pack("<d", x) for x in found] == [struct.pack("<d", x) for x in wanted], (name, rows)

    agree()
    page = call(f"{served.console}/actuator/prometheus")[1].decode()
    families = {family.name: family for family in text_string_to_metric_families(page)}
    counted = {
        (sample.labels["protocol"], sample.labels["model"], sample.labels["version"])
        for sample in families["mainspring_inferences"].samples
        if sample.labels["outcome"] == "answered" and sample.value >= 40
    }
    wanted = ("oip", "tfserving", "sagemaker", "azureml", "torchserve")
    assert counted >= {(protocol, "returns", "1") for protocol in wanted}
    assert families["mainspring_inference_seconds"].type == "histogram"


def test_the_model_itself_gives_these_scores(served: Served) -> None:
    """The endpoint asks by keys; asked for the features that it has read, the wires give its score."""
    body = {"customer": "c01", "amount": 20.0}
    answer = json.loads(call(f"{served.url}/endpoint/returns?features=true", body)[1])
    row = [math.nan if value is None else value for value in answer["features"].values()]
    found = json.loads(raw(served.url, "POST", "/predictions/returns", json.dumps([row]).encode())[1])
    assert found == [answer["score"]]


NAMES = st.sampled_from(["input", "visits_30d", "amount_30d", "amount", "colour"])
VALUES = st.floats() | st.integers(-(2**70), 2**70) | st.none() | st.text(max_size=2) | st.just({"b64": "AA"})
LISTS = st.lists(st.lists(VALUES, max_size=4), max_size=3)
OBJECTS = st.dictionaries(NAMES, VALUES | st.lists(VALUES, max_size=3), max_size=4)
BODIES = JSON | near(
    {
        "instances": LISTS | st.lists(OBJECTS, max_size=3),
        "inputs": LISTS | OBJECTS,
        "examples": st.lists(OBJECTS, max_size=3),
        "context": OBJECTS,
        "signature_name": st.just("serving_default"),
    },
    "input_data",
)
FRAMES = near({"columns": st.lists(NAMES, max_size=4), "data": LISTS, "index": JSON}, "x")
SENT: dict[str, list[str]] = {
    "v1": ["/v1/models/returns:predict", "/v1/models/returns:classify", "/v1/models/returns:regress"],
    "clouds": ["/invocations", "/score", "/predictions/returns"],
}


def test_no_json_is_the_servers_fault(served: Served) -> None:
    @settings(max_examples=100, deadline=None)
    @given(
        st.sampled_from([path for paths in SENT.values() for path in paths]),
        BODIES | LISTS | OBJECTS | st.builds(lambda frame: {"input_data": frame}, FRAMES) | INFERENCES,
    )
    def fuzz(path: str, body: object) -> None:
        status, answer, _ = raw(served.url, "POST", path, json.dumps(body).encode())
        assert status < 500, (path, body, answer)
        json.loads(answer)

    fuzz()
    assert "Traceback" not in served.log.read_text()
    assert "Warning" not in served.log.read_text()
    assert "internal error" not in served.log.read_text()


def test_no_bytes_are_the_servers_fault(served: Served) -> None:
    """Whole bodies of every content type with some bytes of them changed, cut off or put in."""
    names = columns_of(served.url)
    table = pa.table({name: [1.0, None, 3.0] for name in names})
    raw_tensor = json.dumps({"inputs": [tensor([[1, 2, 3]], parameters={"binary_data_size": 24})]}).encode()
    form = b'--x\r\nContent-Disposition: form-data; name="data"\r\n\r\n[1,2,3]\r\n--x--\r\n'
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="gzip", use_dictionary=True)
    whole: list[tuple[str, bytes, dict[str, str]]] = [
        ("/invocations", arrow(table), {"content-type": ARROW}),
        ("/invocations", parquet(table), {"content-type": PARQUET}),
        ("/invocations", sink.getvalue(), {"content-type": PARQUET}),
        ("/invocations", npy(np.ones((2, 3))), {"content-type": NPY}),
        ("/invocations", b"1,2,3\n4,5,6\n", {"content-type": CSV}),
        ("/invocations", b"[1,2,3]\n[4,5,6]\n", {"content-type": LINES}),
        (INFER, raw_tensor + bytes(24), {"inference-header-content-length": str(len(raw_tensor))}),
        ("/predictions/returns", form, {"content-type": "multipart/form-data; boundary=x"}),
    ]

    @settings(max_examples=150, deadline=None)
    @given(
        st.sampled_from(whole),
        st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
        st.none() | st.floats(0, 1),
        st.binary(max_size=4),
    )
    def fuzz(
        asked: tuple[str, bytes, dict[str, str]], changes: list[tuple[float, int]], cut: float | None, more: bytes
    ) -> None:
        path, body, headers = asked
        sent = bytearray(body)
        for place, value in changes:
            sent[int(place * (len(sent) - 1))] = value
        if cut is not None:
            middle = int(cut * len(sent))
            sent[middle : middle + len(more)] = more
            sent = sent[: middle + 8]
        status, answer, _ = raw(served.url, "POST", path, bytes(sent), headers)
        assert status < 500, (path, headers, bytes(sent), answer)

    fuzz()
    assert served.process.poll() is None
    assert "internal error" not in served.log.read_text()
