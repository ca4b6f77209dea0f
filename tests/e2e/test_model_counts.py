"""What a running server counts of each model, version and protocol: the bytes on its wires, and how its calls ended."""

from __future__ import annotations

import gzip
import json
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from e2e.conftest import Served, call, serve
from grpc_kit import address, ask, failed, stub
from mainspring.protocols.oip import messages as oip
from mainspring.protocols.tfserving import messages as tf
from mainspring.protocols.torchserve import messages as torch

TOKEN = "a-token-of-thirty-two-characters-or-more"
ROWS = [[1.0, 2.0, 3.0]] * 60
"""So many that an answer is worth compressing."""
TENSOR = {"name": "input", "datatype": "FP32", "shape": [60, 3], "data": ROWS}


@pytest.fixture(scope="module")
def counting(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    project = tmp_path_factory.mktemp("counting") / "shop"
    shutil.copytree(built, project)
    with open(project / "mainspring.toml", "a") as file:
        file.write(f'[management]\ntoken = "{TOKEN}"\n')
    found = serve(project)
    yield found
    assert found.stop() == 0, found.log.read_text()


def page(served: Served) -> dict[str, Any]:
    text = call(f"{served.console}/actuator/prometheus", headers={"authorization": f"Bearer {TOKEN}"})[1].decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def counted(served: Served, protocol: str) -> dict[str, float]:
    """Of a protocol the bytes by their direction and the calls by their status, of the one model and version."""
    families, found = page(served), {}
    for name, by in (("mainspring_wire_bytes", "direction"), ("mainspring_calls", "code")):
        for sample in families[name].samples if name in families else ():
            labels = sample.labels
            if labels["protocol"] == protocol:
                if (labels["model"], labels["version"], labels["role"]) == ("returns", "1", "stable"):
                    found[labels[by]] = sample.value
                else:
                    assert (labels["model"] in ("", "returns"), labels["version"], labels["role"]) == (True, "", "")
                    found[f"{labels['model']}/{labels[by]}"] = sample.value
    return found


def posted(url: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    """A request whose answer is left as it came."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with urllib.request.urlopen(urllib.request.Request(url, body, named), timeout=60) as answer:
        return answer.status, answer.read()


def differences(served: Served, protocol: str, do: Callable[[], object]) -> dict[str, float]:
    before = counted(served, protocol)
    do()
    return {key: value - before.get(key, 0.0) for key, value in counted(served, protocol).items()}


@pytest.mark.parametrize(
    ("protocol", "path", "body"),
    [
        ("oip", "/v2/models/returns/infer", {"inputs": [TENSOR]}),
        ("tfserving", "/v1/models/returns/versions/1:predict", {"instances": ROWS}),
        ("sagemaker", "/invocations", {"instances": ROWS}),
        ("azureml", "/score", {"data": ROWS}),
        ("torchserve", "/predictions/returns", ROWS),
        ("native", "/endpoint/returns", {"rows": [{"customer": "c1", "amount": 2.0}] * 60}),
    ],
)
def test_bytes_are_counted_as_they_were_sent(counting: Served, protocol: str, path: str, body: object) -> None:
    answers: list[bytes] = []
    written, packed = json.dumps(body).encode(), gzip.compress(json.dumps(body).encode())

    def ask_twice() -> None:
        answers.append(posted(counting.url + path, written)[1])
        if protocol not in ("native", "azureml"):
            coded = {"content_encoding": "gzip", "accept_encoding": "gzip"}
            answers.append(posted(counting.url + path, packed, **coded)[1])

    found = differences(counting, protocol, ask_twice)
    sent = len(written) + (len(packed) if len(answers) > 1 else 0)
    assert (found["in"], found["out"], found["200"]) == (sent, sum(map(len, answers)), len(answers))


def test_calls_end_with_a_status_of_their_wire(counting: Served) -> None:
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 3], "data": ["no number"] * 3}

    def wrong() -> None:
        assert call(f"{counting.url}/v2/models/returns/infer", {"inputs": [tensor]})[0] == 400
        assert call(f"{counting.url}/v2/models/returns/versions/7/infer", {"inputs": [tensor]})[0] == 404
        late = {"inputs": [tensor | {"data": [1, 2, 3]}], "parameters": {"timeout": 1}}
        assert call(f"{counting.url}/v2/models/returns/infer", late)[0] == 504

    found = differences(counting, "oip", wrong)
    assert (found["400"], found["504"], found["returns/404"], "404" in found) == (1, 1, 1, False)


def test_calls_that_come_to_no_model_are_counted_by_their_wire(counting: Served) -> None:
    paths = {"oip": "/v2/models/{}/infer", "v1": "/v1/models/{}:predict", "torchserve": "/predictions/{}"}
    for protocol, path in paths.items():
        found = differences(counting, protocol, lambda path=path: call(counting.url + path.format("made-up"), ROWS))
        assert (found["/404"], found["/in"] > 0, found["/out"] > 0) == (1, True, True), protocol
    with grpc.insecure_channel(address(counting)) as channel:
        infer, kind = stub(channel, oip.schema(), oip.INFERENCE, "ModelInfer")
        found = differences(counting, "oip_grpc", lambda: failed(lambda: infer(kind(model_name="no"), timeout=60)))
    assert found["/NOT_FOUND"] == 1
    samples = [sample for family in page(counting).values() for sample in family.samples]
    assert "made-up" not in {sample.labels.get("model") for sample in samples}


def test_what_tells_two_clients_of_one_path_apart(counting: Served) -> None:
    model = f"{counting.url}/v1/models/returns"
    asked = {
        "tfserving": ["/versions/1:predict", "/labels/stable:predict", ":classify", ":regress"],
        "kserve": [":explain"],
        "v1": [":predict", ":PREDICT"],
    }
    row = dict(zip(("visits_30d", "amount_30d", "amount"), ROWS[0], strict=True))
    for protocol, paths in asked.items():
        for path in paths:
            status = 501 if protocol == "kserve" else 200
            body = {"examples": [row]} if path in (":classify", ":regress") else {"instances": ROWS}
            code, answers = str(status), list[int]()
            found = differences(
                counting, protocol, lambda at=path, sent=body, to=answers: to.append(call(model + at, sent)[0])
            )
            assert (answers, found[code]) == ([status], 1), (path, found)


def test_messages_are_counted_by_protocol_and_status(counting: Served) -> None:
    matrix = np.asarray(ROWS, "<f4")
    tensor = {"name": "input", "datatype": "FP32", "shape": list(matrix.shape)}
    with grpc.insecure_channel(address(counting)) as channel:
        infer, kind = stub(channel, oip.schema(), oip.INFERENCE, "ModelInfer")
        asked = kind(model_name="returns", inputs=[tensor], raw_input_contents=[matrix.tobytes()])
        answers: list[Any] = []
        found = differences(counting, "oip_grpc", lambda: answers.append(infer(asked, timeout=60)))
        assert (found["in"], found["out"], found["OK"]) == (asked.ByteSize(), answers[0].ByteSize(), 1)

        stream, _ = stub(channel, oip.schema(), oip.INFERENCE, "ModelStreamInfer")
        found = differences(
            counting,
            "oip_grpc",
            lambda: answers.extend(stream(iter([asked, asked, kind(model_name="no")]), timeout=60)),
        )
        assert (found["in"], found["/in"]) == (2 * asked.ByteSize(), kind(model_name="no").ByteSize())
        assert (found["out"], found["/out"]) == (sum(one.ByteSize() for one in answers[1:3]), answers[3].ByteSize())
        assert (found["OK"], found["/OK"]) == (0, 1), "a stream has one end, and it is of whom it asked last"

        wrong = kind(model_name="returns", inputs=[tensor], raw_input_contents=[b"short"])
        found = differences(counting, "oip_grpc", lambda: failed(lambda: infer(wrong, timeout=60)))
        assert (found["in"], found["out"], found["INVALID_ARGUMENT"]) == (wrong.ByteSize(), 0, 1)

        proto = {"dtype": 1, "tensor_shape": {"dim": [{"size": 60}, {"size": 3}]}, "tensor_content": matrix.tobytes()}
        spec, inputs = {"name": "returns"}, {"input": proto}
        found = differences(
            counting,
            "tfserving_grpc",
            lambda: ask(channel, tf.schema(), tf.PREDICTION, "Predict", model_spec=spec, inputs=inputs),
        )
        assert found["in"] > matrix.nbytes
        assert found["OK"] == 1
        data = {"data": json.dumps(ROWS).encode()}
        found = differences(
            counting,
            "torchserve_grpc",
            lambda: ask(channel, torch.schema(), torch.INFERENCE, "Predictions", model_name="returns", input=data),
        )
        assert found["in"] > len(data["data"])
        assert found["out"] > 0


def test_who_is_refused_before_a_model_is_looked_for_is_counted_with_it(built: Path, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    shutil.copytree(built, project)
    with open(project / "mainspring.toml", "a") as file:
        file.write(f'[management]\ntoken = "{TOKEN}"\n[server]\nkeys = ["k1"]\nmax_body = 4096\n')
        file.write('[callers.k2]\nkey = "k2"\nrate = 0.001\nburst = 1\n')
    served = serve(project)
    try:
        key, seldom = {"authorization": "Bearer k1"}, {"authorization": "Bearer k2"}
        paths = {
            "oip": "/v2/models/{}/infer",
            "v1": "/v1/models/{}:predict",
            "torchserve": "/predictions/{}",
            "native": "/endpoint/{}",
        }
        for protocol, path in paths.items():

            def refused(path: str = path) -> None:
                assert call(served.url + path.format("returns"), {})[0] == 401
                assert call(served.url + path.format("made-up"), {})[0] == 401
                assert call(served.url + path.format("returns"), {"a": "x" * 5000}, headers=key)[0] == 413

            found = differences(served, protocol, refused)
            assert (found["returns/401"], found["/401"], found["returns/413"]) == (1, 1, 1), protocol
        assert call(f"{served.url}/v2/health/ready", headers=seldom)[0] == 200
        tensor = {"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}
        infer = f"{served.url}/v2/models/returns/infer"
        assert call(infer, {"inputs": [tensor]}, headers=seldom)[0] == 200
        found = differences(served, "oip", lambda: call(infer, {"inputs": [tensor]}, headers=seldom))
        assert (found["returns/429"], found["200"]) == (1, 0)
        unnamed = {"sagemaker": "/invocations", "azureml": "/score"}
        for protocol, path in unnamed.items():
            found = differences(served, protocol, lambda path=path: call(served.url + path, {}))
            assert found["/401"] == 1, protocol
        with grpc.insecure_channel(address(served)) as channel:
            ask_it, kind = stub(channel, oip.schema(), oip.INFERENCE, "ModelInfer")
            no_key = differences(served, "oip_grpc", lambda: failed(lambda: ask_it(kind(), timeout=60)))
            assert no_key["/UNAUTHENTICATED"] == 1
        samples = [sample for family in page(served).values() for sample in family.samples]
        assert "made-up" not in {sample.labels.get("model") for sample in samples}
    finally:
        assert served.stop() == 0, served.log.read_text()
