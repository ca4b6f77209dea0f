"""Models over gRPC on a running server: every protocol, its official clients, its statuses, and what is refused."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from certificates import signed_certificate
from e2e.conftest import Served, call, serve
from e2e.test_protocols import ROWS, oip_scores
from grpc_kit import address, ask, called, failed, stub
from mainspring.protocols.grpc.health import schema as health_schema
from mainspring.protocols.oip import messages as oip
from mainspring.protocols.tfserving import messages as tf
from mainspring.protocols.torchserve import messages as torch
from tool_env import locked_site

TOKEN, KEY = "a-token-of-thirty-two-characters-or-more", "a-key-of-thirty-two-characters-or-so"
HEALTH = "grpc.health.v1.Health"
AS_MANAGER = (("authorization", f"Bearer {TOKEN}"),)


def copied(built: Path, folder: Path, written: str) -> Path:
    shutil.copytree(built, folder / "shop")
    with open(folder / "shop" / "mainspring.toml", "a") as file:
        file.write(written)
    return folder / "shop"


@pytest.fixture(scope="module")
def managed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with a token for management, and no keys."""
    project = copied(built, tmp_path_factory.mktemp("grpc"), f'[management]\ntoken = "{TOKEN}"\n')
    found = serve(project)
    yield found
    assert found.stop() == 0, found.log.read_text()
    assert "internal error" not in found.log.read_text()
    assert "Traceback" not in found.log.read_text()


@pytest.fixture(scope="module")
def channel(managed: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address(managed)) as opened:
        yield opened


@pytest.fixture(scope="module")
def scores(managed: Served) -> list[float]:
    """What the rows score over HTTP."""
    return oip_scores(managed.url, ROWS)


def tensor(rows: list[list[float]] = ROWS, datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    return {"name": "input", "datatype": datatype, "shape": [len(rows), 3], **more}


def raw(rows: list[list[float]] = ROWS, kind: str = "<f4") -> list[bytes]:
    return [np.array(rows, kind).tobytes()]


def eventually(true: Callable[[], bool]) -> None:
    """Wait until the last calls of a version that was unloaded have let it go."""
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(AssertionError):  # it was answered: the version is UNLOADING
            if true():
                return
        assert time.monotonic() < deadline
        time.sleep(0.1)


# -- Open Inference Protocol ------------------------------------------------------------------------------------------


def test_tritons_client_knows_every_call(managed: Served, channel: grpc.Channel) -> None:
    script = Path(__file__).parents[1] / "triton_grpc_client.py"
    command = [sys.executable, "-W", "ignore", str(script), address(managed), "returns", "3", TOKEN]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [found[name] for name in ("live", "ready", "model_ready", "loaded")] == [True] * 4
    assert found["server"]["name"] == "mainspring"
    assert found["model"]["inputs"] == [{"name": "input", "datatype": "FP32", "shape": ["-1", "3"]}]
    assert found["config"]["config"]["input"] == [{"name": "input", "data_type": "TYPE_FP32", "dims": ["3"]}]
    assert found["index"] == {"models": [{"name": "returns", "version": "1", "state": "READY"}]}
    assert len(found["scores"]) == 32
    assert found["asynchronous"] == found["scores"]
    refusal, *answers = found["stream"]
    assert refusal == "no model is called 'nobody'; there are: returns"
    assert answers == [[str(place), True, [found["scores"][place]]] for place in range(4)]
    (counted,) = found["statistics"]["model_stats"]
    assert int(counted["inference_count"]) >= 3 * 32 + 4
    assert {size["batch_size"] for size in counted["batch_stats"]} >= {"1", "32"}
    assert found["unknown"] == ["StatusCode.NOT_FOUND", "no model is called 'nobody'; there are: returns"]
    assert found["no version"][0] == "StatusCode.NOT_FOUND"
    assert found["gzip"] == found["deflate"] == found["scores"]
    assert found["memory"][0] == "StatusCode.UNIMPLEMENTED"
    assert found["not managed"][0] == "StatusCode.PERMISSION_DENIED"
    assert found["config refused"][0] == "StatusCode.INVALID_ARGUMENT"
    assert found["path refused"][0] == "StatusCode.NOT_FOUND"
    assert found["unloaded"] == [
        False,
        {"models": [{"name": "returns", "state": "UNAVAILABLE", "reason": "not loaded"}]},
    ]


def test_kserves_clients_are_answered_alike_on_every_wire(managed: Served, scores: list[float]) -> None:
    """In a process of its own: its packages and its descriptors clash with the tests'."""
    folder = Path(__file__).parents[1] / "kserve"
    asked = [managed.url, address(managed), "returns", "3"]
    command = [sys.executable, "-W", "ignore", str(folder / "client.py"), *asked]
    env = os.environ | {"PYTHONPATH": str(locked_site(folder / "requirements.lock"))}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["json"]) == 32
    for wire in ("binary", "v1", "grpc", "grpc typed", "grpc message"):
        assert found[wire] == found["json"], wire
    assert (found["ids"], found["grpc id"]) == (["json", "binary"], "grpc")
    assert found["live"] == found["model ready"] == [True, True]
    assert [found[name] for name in ("ready", "grpc live", "grpc ready", "grpc model ready")] == [True] * 4
    assert found["unknown"][0] == found["unknown v1"][0] == 404
    assert "no model is called 'nobody'" in found["unknown"][1]


@pytest.mark.parametrize("name", ["triton_grpc", "plain_grpc"])
def test_the_clients_of_the_documentation_are_answered(managed: Served, name: str, scores: list[float]) -> None:
    script = Path(__file__).parents[2] / "examples" / "clients" / f"{name}.py"
    command = [sys.executable, "-W", "ignore", str(script), address(managed), "returns", *map(str, ROWS[0])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, float(done.stdout or "nan")) == (0, scores[0]), done.stderr


def test_each_datatype_raw_and_typed(channel: grpc.Channel, scores: list[float]) -> None:
    infer = called(channel, oip.schema(), oip.INFERENCE)
    whole = [[1, 2, 3], [4, 5, 6]]
    wanted = list(
        infer("ModelInfer", model_name="returns", inputs=[tensor(whole, contents={"fp32_contents": range(1, 7)})])
        .outputs[0]
        .contents.fp64_contents
    )
    for datatype, kind, field in (
        *(
            (f"{sign}INT{bits}", f"<{mark}{bits // 8}", f"{word}{'64' if bits == 64 else ''}_contents")
            for sign, mark, word in (("", "i", "int"), ("U", "u", "uint"))
            for bits in (8, 16, 32, 64)
        ),
        ("FP16", "<f2", None),
        ("FP32", "<f4", "fp32_contents"),
        ("FP64", "<f8", "fp64_contents"),
        ("BF16", None, None),
    ):
        data = np.array(whole, kind or "<f4")
        sent = data.tobytes() if kind else (data.view("<u4") >> 16).astype("<u2").tobytes()
        answer = infer("ModelInfer", model_name="returns", inputs=[tensor(whole, datatype)], raw_input_contents=[sent])
        assert np.frombuffer(answer.raw_output_contents[0], "<f8").tolist() == wanted, datatype
        assert (answer.outputs[0].datatype, list(answer.outputs[0].shape)) == ("FP64", [2])
        assert not answer.outputs[0].HasField("contents")
        typed = {field: data.ravel().tolist()} if field else {"fp32_contents": [1.0]}
        asked = {"model_name": "returns", "inputs": [tensor(whole, datatype, contents=typed)]}
        if field is None:
            assert failed(lambda asked=asked: infer("ModelInfer", **asked))[0] == "INVALID_ARGUMENT"
            continue
        answer = infer("ModelInfer", **asked)
        assert list(answer.outputs[0].contents.fp64_contents) == wanted, datatype
        assert not answer.raw_output_contents
    answer = infer("ModelInfer", model_name="returns", inputs=[tensor()], raw_input_contents=raw(), id="x")
    assert np.frombuffer(answer.raw_output_contents[0], "<f8").tolist() == scores
    assert (answer.id, answer.model_name, answer.model_version) == ("x", "returns", "1")
    assert len(answer.parameters["prediction_ids"].string_param.split(",")) == len(ROWS)


def test_columns_may_be_sent_one_by_one(managed: Served, channel: grpc.Channel, scores: list[float]) -> None:
    names = [column["name"] for column in json.loads(call(f"{managed.url}/endpoint/returns")[1])["columns"]]
    inputs = [
        {
            "name": name,
            "datatype": "FP64",
            "shape": [len(ROWS)],
            "contents": {"fp64_contents": [row[at] for row in ROWS]},
        }
        for at, name in enumerate(names)
    ]
    answer = ask(channel, oip.schema(), oip.INFERENCE, "ModelInfer", model_name="returns", inputs=inputs)
    assert list(answer.outputs[0].contents.fp64_contents) == scores


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"model_name": "nobody"}, "NOT_FOUND"),
    "no version": ({"model_version": "9"}, "NOT_FOUND"),
    "no such input": ({"inputs": [{**tensor(), "name": "x"}]}, "INVALID_ARGUMENT"),
    "no inputs": ({"inputs": [], "raw_input_contents": []}, "INVALID_ARGUMENT"),
    "twice": ({"inputs": [tensor(), tensor()], "raw_input_contents": raw() * 2}, "INVALID_ARGUMENT"),
    "raw and typed": ({"inputs": [tensor(contents={"fp32_contents": [1] * 9})]}, "INVALID_ARGUMENT"),
    "raw of some": ({"raw_input_contents": raw() * 2}, "INVALID_ARGUMENT"),
    "too few bytes": ({"raw_input_contents": [b"1234"]}, "INVALID_ARGUMENT"),
    "too few values": (
        {"inputs": [tensor(contents={"fp32_contents": [1] * 8})], "raw_input_contents": []},
        "INVALID_ARGUMENT",
    ),
    "outside INT8": (
        {"inputs": [tensor(ROWS[:1], "INT8", contents={"int_contents": [1, 2, 300]})], "raw_input_contents": []},
        "INVALID_ARGUMENT",
    ),
    "datatype": ({"inputs": [tensor(datatype="FP31")]}, "INVALID_ARGUMENT"),
    "text": ({"inputs": [tensor(datatype="BYTES")]}, "INVALID_ARGUMENT"),
    "width": ({"inputs": [{**tensor(), "shape": [3, 4]}]}, "INVALID_ARGUMENT"),
    "below zero": ({"inputs": [{**tensor(), "shape": [-1, 3]}]}, "INVALID_ARGUMENT"),
    "a shape that lies": ({"inputs": [{**tensor(), "shape": [2**31, 2**31]}]}, "INVALID_ARGUMENT"),
    "too many rows": ({"inputs": [{**tensor(), "shape": [2**40, 3]}]}, "RESOURCE_EXHAUSTED"),
    "output": ({"outputs": [{"name": "label"}]}, "INVALID_ARGUMENT"),
    "classes": (
        {"outputs": [{"name": "score", "parameters": {"classification": {"int64_param": 2}}}]},
        "INVALID_ARGUMENT",
    ),
    "shared memory": (
        {"outputs": [{"name": "score", "parameters": {"shared_memory_region": {"string_param": "a"}}}]},
        "INVALID_ARGUMENT",
    ),
    "timeout": ({"parameters": {"timeout": {"int64_param": -5}}}, "INVALID_ARGUMENT"),
    "priority": ({"parameters": {"priority": {"string_param": "high"}}}, "INVALID_ARGUMENT"),
    "empty parameter": ({"parameters": {"x": {}}}, "INVALID_ARGUMENT"),
    "no time": ({"parameters": {"timeout": {"int64_param": 1}}}, "DEADLINE_EXCEEDED"),
}


def filled(message: Any, fields: dict[str, Any]) -> Any:
    """A message of nested values; protobuf's own constructors take no messages as the values of maps."""
    for name, value in fields.items():
        described = message.DESCRIPTOR.fields_by_name[name]
        held = getattr(message, name) if described.message_type is not None else None
        if described.message_type is not None and described.message_type.GetOptions().map_entry:
            for key, inner in value.items():
                held[key].SetInParent()
                filled(held[key], inner)
        elif held is not None and isinstance(value, list):
            for inner in value:
                filled(held.add(), inner)
        elif held is not None:
            held.SetInParent()
            filled(held, value)
        elif isinstance(value, (list, range)):
            getattr(message, name).extend(value)
        else:
            setattr(message, name, value)
    return message


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_has_its_status(channel: grpc.Channel, name: str) -> None:
    changes, code = WRONG[name]
    infer, kind = stub(channel, oip.schema(), oip.INFERENCE, "ModelInfer")
    fields = {"model_name": "returns", "inputs": [tensor()], "raw_input_contents": raw()} | changes
    found, text = failed(lambda: infer(filled(kind(), fields), timeout=60))
    assert found == code, text
    assert text
    assert "Traceback" not in text


def test_bytes_that_are_no_message_are_the_clients_fault(channel: grpc.Channel) -> None:
    plainly = channel.unary_unary(f"/{oip.INFERENCE}/ModelInfer")
    assert failed(lambda: plainly(b"\xff\xff\xff", timeout=60)) == (
        "INVALID_ARGUMENT",
        "the message is no inference.ModelInferRequest",
    )
    assert failed(lambda: plainly(bytes(9_000_000), timeout=60))[0] == "RESOURCE_EXHAUSTED"
    unknown = channel.unary_unary(f"/{oip.INFERENCE}/Nothing")
    assert failed(lambda: unknown(b"", timeout=60))[0] == "UNIMPLEMENTED"


def test_a_message_that_is_small_until_it_is_inflated_is_refused(managed: Served) -> None:
    def resident() -> int:
        status = Path(f"/proc/{managed.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0])

    before = resident()
    options = (("grpc.max_send_message_length", -1), ("grpc.default_compression_algorithm", grpc.Compression.Gzip))
    with grpc.insecure_channel(address(managed), options=options) as opened:
        plainly = opened.unary_unary(f"/{oip.INFERENCE}/ModelInfer")
        code, _ = failed(lambda: plainly(bytes(512 * 2**20), timeout=60, compression=grpc.Compression.Gzip))
    assert code == "RESOURCE_EXHAUSTED"
    assert resident() - before < 100 * 1024
    assert len(gzip.compress(bytes(512 * 2**20), 1)) < 8_388_608


def test_repositories_as_kserve_and_mlserver_ask(managed: Served, channel: grpc.Channel) -> None:
    manage = called(channel, oip.schema(), oip.INFERENCE)
    mlserver = called(channel, oip.schema(), oip.REPOSITORY)
    assert [(m.name, m.state) for m in mlserver("RepositoryIndex", ready=True).models] == [("returns", "READY")]
    assert failed(lambda: mlserver("RepositoryModelUnload", model_name="returns"))[0] == "PERMISSION_DENIED"
    mlserver("RepositoryModelUnload", AS_MANAGER, model_name="returns")
    try:
        assert not manage("ModelReady", name="returns").ready
        infer = {"model_name": "returns", "inputs": [tensor()], "raw_input_contents": raw()}
        assert failed(lambda: manage("ModelInfer", **infer))[0] == "UNAVAILABLE"
        assert list(mlserver("RepositoryIndex", ready=True).models) == []
    finally:  # KServe's client names the model in field 1, which is the repository's name in Triton's message
        answer = manage("RepositoryModelLoad", AS_MANAGER, repository_name="returns")
    assert (answer.model_name, answer.isLoaded) == ("returns", True)
    assert manage("ModelReady", name="returns").ready
    for place in ("s3://bucket/model", "/etc/passwd", "../returns", "https://example.com/m.onnx"):
        for service, fields in ((manage, {"repository_name": place}), (mlserver, {"model_name": place})):
            code, _ = failed(lambda s=service, f=fields: s("RepositoryModelLoad", AS_MANAGER, **f))
            assert code == "NOT_FOUND", place


# -- health, reflection -----------------------------------------------------------------------------------------------


def test_health_is_told_and_watched(channel: grpc.Channel) -> None:
    check = called(channel, health_schema(), HEALTH)
    assert check("Check").status == check("Check", service=oip.INFERENCE).status == 1
    assert failed(lambda: check("Check", service="nobody"))[0] == "NOT_FOUND"
    watch, kind = stub(channel, health_schema(), HEALTH, "Watch")
    manage = called(channel, oip.schema(), oip.INFERENCE)
    seen = watch(kind(service=tf.PREDICTION), timeout=60)
    assert next(seen).status == 1
    unknown = watch(kind(service="nobody"), timeout=60)
    assert next(unknown).status == 3
    unknown.cancel()
    seen.cancel()
    assert manage("ServerLive").live
    assert manage("ServerReady").ready


def test_a_client_that_knows_no_message_finds_them_by_reflection(channel: grpc.Channel, scores: list[float]) -> None:
    """As grpcurl does it: only the server's descriptors, none of ours."""
    database = ProtoReflectionDescriptorDatabase(channel)
    services = database.get_services()
    assert set(services) == {
        oip.INFERENCE, oip.REPOSITORY, tf.PREDICTION, tf.MODEL, torch.INFERENCE, torch.MANAGEMENT, HEALTH,
        "feast.serving.ServingService", "GrpcFeatureServer", "mainspring.v1.Sources",
        "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
    }  # fmt: skip
    pool = DescriptorPool(database)
    for name in services:
        assert pool.FindServiceByName(name).methods
    method = pool.FindServiceByName(oip.INFERENCE).FindMethodByName("ModelInfer")
    asked, answered = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    infer = channel.unary_unary(f"/{oip.INFERENCE}/ModelInfer", asked.SerializeToString, answered.FromString)
    answer = infer(asked(model_name="returns", inputs=[tensor()], raw_input_contents=raw()), timeout=60)
    assert np.frombuffer(answer.raw_output_contents[0], "<f8").tolist() == scores
    with pytest.raises(KeyError):
        pool.FindMessageTypeByName("inference.Nobody")


# -- TensorFlow Serving -----------------------------------------------------------------------------------------------


def proto(rows: list[list[float]] = ROWS, dtype: int = 1, **values: Any) -> Any:
    dims = [{"size": len(rows)}, {"size": 3}]
    return tf.schema().message("tensorflow.TensorProto")(dtype=dtype, tensor_shape={"dim": dims}, **values)


def test_tensorflow_predicts(channel: grpc.Channel, scores: list[float]) -> None:
    predict = called(channel, tf.schema(), tf.PREDICTION)
    flat = [value for row in ROWS for value in row]
    bits16 = np.array([[1, 2, 3]], "f2").view("u2").ravel().tolist()
    for sent, wanted in (
        (proto(float_val=flat), scores),
        (proto(dtype=2, double_val=flat), scores),
        (proto(tensor_content=raw()[0]), scores),
    ):
        answer = predict("Predict", model_spec={"name": "returns", "version": {"value": 1}}, inputs={"input": sent})
        assert list(answer.outputs["score"].double_val) == wanted
        assert (answer.model_spec.name, answer.model_spec.version.value) == ("returns", 1)
    label = {"name": "returns", "version_label": "stable", "signature_name": "serving_default"}
    few = {
        "last repeated": (proto(ROWS[:1], float_val=[4]), [[4.0, 4.0, 4.0]]),
        "none is zeros": (proto(ROWS[:2]), [[0.0] * 3] * 2),
        "half": (proto(ROWS[:1], dtype=19, half_val=bits16), [[1.0, 2.0, 3.0]]),
        "bfloat16": (proto(ROWS[:1], dtype=14, half_val=[0x3F80, 0x4000, 0x4040]), [[1.0, 2.0, 3.0]]),
        "int64": (proto(ROWS[:1], dtype=9, int64_val=[1, 2, 3]), [[1.0, 2.0, 3.0]]),
    }
    for name, (sent, rows) in few.items():
        answer = predict("Predict", model_spec=label, inputs={"input": sent}, output_filter=["score"])
        infer = {"model_name": "returns", "inputs": [tensor(rows)], "raw_input_contents": raw(rows)}
        wanted = ask(channel, oip.schema(), oip.INFERENCE, "ModelInfer", **infer).raw_output_contents[0]
        assert np.array(answer.outputs["score"].double_val).tobytes() == wanted, name


def example(**features: float) -> Any:
    found = tf.schema().message("tensorflow.Example")()
    for name, value in features.items():
        kind = found.features.feature[name]
        (kind.int64_list if isinstance(value, int) else kind.float_list).value.append(value)
    return found


def test_tensorflow_classifies_and_regresses(managed: Served, channel: grpc.Channel, scores: list[float]) -> None:
    names = [column["name"] for column in json.loads(call(f"{managed.url}/endpoint/returns")[1])["columns"]]
    serving = called(channel, tf.schema(), tf.PREDICTION)
    rows = [example(**dict(zip(names, row, strict=True))) for row in ROWS]
    spec = {"name": "returns"}
    floats = np.array(scores, "f4").tolist()
    answer = serving("Regress", model_spec=spec, input={"example_list": {"examples": rows}})
    assert [one.value for one in answer.result.regressions] == floats
    shared = {
        "examples": [example(**dict(zip(names[1:], row[1:], strict=True))) for row in ROWS[:1]],
        "context": example(**{names[0]: int(ROWS[0][0])}),
    }
    answer = serving("Classify", model_spec=spec, input={"example_list_with_context": shared})
    classes = [[(one.label, one.score) for one in row.classes] for row in answer.result.classifications]
    assert classes == [[("false", float(np.float32(1.0 - scores[0]))), ("true", floats[0])]]
    tasks = [{"model_spec": spec, "method_name": f"tensorflow/serving/{verb}"} for verb in ("classify", "regress")]
    answer = serving("MultiInference", tasks=tasks, input={"example_list": {"examples": rows}})
    first, second = answer.results
    assert [row.classes[1].score for row in first.classification_result.classifications] == floats
    assert [one.value for one in second.regression_result.regressions] == floats
    for fields, text in (
        ({"example_list": {"examples": []}}, "no examples"),
        ({}, "no examples"),
        ({"example_list": {"examples": [example(colour=1.0)]}}, "no feature 'colour'"),
        ({"example_list": {"examples": [example(**{names[0]: 1.0})]}}, "has no feature"),
    ):
        code, told = failed(lambda fields=fields: serving("Regress", model_spec=spec, input=fields))
        assert (code, text in told) == ("INVALID_ARGUMENT", True), told
    assert failed(lambda: serving("MultiInference", tasks=[], input={}))[0] == "INVALID_ARGUMENT"


def test_tensorflow_describes_and_reloads(channel: grpc.Channel) -> None:
    serving, versions = called(channel, tf.schema(), tf.PREDICTION), called(channel, tf.schema(), tf.MODEL)
    answer = serving("GetModelMetadata", model_spec={"name": "returns"}, metadata_field=["signature_def"])
    described = tf.schema().message("tensorflow.serving.SignatureDefMap")()
    assert answer.metadata["signature_def"].type_url == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    described.ParseFromString(answer.metadata["signature_def"].value)
    signature = described.signature_def["serving_default"]
    assert signature.inputs["input"].dtype == 1
    assert [dim.size for dim in signature.inputs["input"].tensor_shape.dim] == [-1, 3]
    assert signature.method_name == "tensorflow/serving/predict"
    (status,) = versions("GetModelStatus", model_spec={"name": "returns"}).model_version_status
    assert (status.version, status.state, status.status.error_code) == (1, 30, 0)
    for spec, code in (
        ({"name": "nobody"}, "NOT_FOUND"),
        ({"name": "returns", "version": {"value": 7}}, "NOT_FOUND"),
        ({"name": "returns", "version_label": "canary"}, "NOT_FOUND"),
        ({}, "INVALID_ARGUMENT"),
    ):
        assert failed(lambda spec=spec: versions("GetModelStatus", model_spec=spec))[0] == code
        assert failed(lambda spec=spec: serving("Predict", model_spec=spec))[0] == code
    other = {"name": "returns", "signature_name": "other"}
    assert failed(lambda: serving("Predict", model_spec=other))[0] == "INVALID_ARGUMENT"
    missing = lambda: serving("GetModelMetadata", model_spec={"name": "returns"})  # noqa: E731
    assert failed(missing)[0] == "INVALID_ARGUMENT"

    def reload(*configs: dict[str, Any], metadata: tuple[tuple[str, str], ...] = AS_MANAGER) -> Any:
        return versions("HandleReloadConfigRequest", metadata, config={"model_config_list": {"config": list(configs)}})

    assert failed(lambda: reload({"name": "returns"}, metadata=()))[0] == "PERMISSION_DENIED"
    assert reload({"name": "returns", "model_platform": "tensorflow"}).status.error_code == 0
    for config, code in (
        ({"name": "nobody"}, "NOT_FOUND"),
        ({"name": "returns", "base_path": "/models/returns"}, "INVALID_ARGUMENT"),
        ({"name": "returns", "base_path": "s3://models/returns"}, "INVALID_ARGUMENT"),
        ({"name": "returns", "model_version_policy": {"specific": {"versions": [4]}}}, "NOT_FOUND"),
        ({"name": "returns", "version_labels": {"blue": 9}}, "NOT_FOUND"),
        ({"name": "returns", "version_labels": {"canary": 1}}, "INVALID_ARGUMENT"),
        ({"name": "returns", "model_version_policy": {"specific": {}}}, "INVALID_ARGUMENT"),
    ):
        assert failed(lambda config=config: reload(config))[0] == code, config
    assert failed(lambda: reload({"name": "returns"}, {"name": "returns"}))[0] == "INVALID_ARGUMENT"
    reload({"name": "returns", "version_labels": {"blue": 1}, "model_version_policy": {"latest": {"num_versions": 2}}})
    blue = versions("GetModelStatus", model_spec={"name": "returns", "version_label": "blue"})
    assert [status.version for status in blue.model_version_status] == [1]
    infer = {"model_name": "returns", "inputs": [tensor()], "raw_input_contents": raw()}
    assert ask(channel, oip.schema(), oip.INFERENCE, "ModelInfer", model_version="blue", **infer).model_version == "1"
    assert reload().status.error_code == 0  # a list of none serves none
    try:
        eventually(
            lambda: failed(lambda: versions("GetModelStatus", model_spec={"name": "returns"}))[0] == "UNAVAILABLE"
        )
    finally:
        reload({"name": "returns", "base_path": "returns", "version_labels": {}})
    assert versions("GetModelStatus", model_spec={"name": "returns"}).model_version_status[0].state == 30


# -- TorchServe -------------------------------------------------------------------------------------------------------


def test_torchserve_predicts(channel: grpc.Channel, scores: list[float]) -> None:
    predict = called(channel, torch.schema(), torch.INFERENCE)
    data = json.dumps(ROWS).encode()
    assert predict("Ping").health == "Healthy"
    answer = predict("Predictions", model_name="returns", input={"data": data}, sequence_id="s")
    assert (json.loads(answer.prediction), answer.sequence_id) == (scores, "s")
    two = {"data0": json.dumps(ROWS[:1]).encode(), "data1": json.dumps(ROWS[1:]).encode(), "note": b"x"}
    assert json.loads(predict("Predictions", model_name="returns", model_version="1", input=two).prediction) == scores
    stream, kind = stub(channel, torch.schema(), torch.INFERENCE, "StreamPredictions")
    answers = list(stream(kind(model_name="returns", input={"data": data}), timeout=60))
    assert [json.loads(answer.prediction) for answer in answers] == [scores]
    both, kind = stub(channel, torch.schema(), torch.INFERENCE, "StreamPredictions2")
    asked = [
        kind(model_name="returns", input={"data": data}, sequence_id="1"),
        kind(model_name="nobody", input={"data": data}, sequence_id="2"),
        kind(model_name="returns", input={"data": b"[[1]]"}, sequence_id="3"),
        kind(model_name="returns", input={"data": data}, sequence_id="4"),
    ]
    answers = list(both(iter(asked), timeout=60))
    assert [answer.sequence_id for answer in answers] == ["1", "2", "3", "4"]
    assert [answer.status.code for answer in answers] == [0, 5, 3, 0]
    assert json.loads(answers[3].prediction) == scores
    for fields, code in (
        ({"model_name": "nobody", "input": {"data": data}}, "NOT_FOUND"),
        ({"model_name": "returns"}, "INVALID_ARGUMENT"),
        ({"model_name": "returns", "input": {"data": b"\x80pickle"}}, "INVALID_ARGUMENT"),
    ):
        assert failed(lambda fields=fields: predict("Predictions", **fields))[0] == code


def test_torchserve_manages(channel: grpc.Channel) -> None:
    manage = called(channel, torch.schema(), torch.MANAGEMENT)
    assert json.loads(manage("ListModels", limit=10).msg) == {
        "models": [{"modelName": "returns", "modelUrl": "returns"}]
    }
    (described,) = json.loads(manage("DescribeModel", model_name="returns", customized=True).msg)
    assert (described["modelName"], described["modelVersion"]) == ("returns", "1")
    assert failed(lambda: manage("DescribeModel", model_name="nobody"))[0] == "NOT_FOUND"
    changes: dict[str, dict[str, Any]] = {
        "RegisterModel": {"url": "returns"},
        "ScaleWorker": {"model_name": "returns", "min_worker": 1},
        "SetDefault": {"model_name": "returns", "model_version": "1"},
        "UnregisterModel": {"model_name": "returns"},
    }
    for method, fields in changes.items():
        assert failed(lambda m=method, f=fields: manage(m, **f))[0] == "PERMISSION_DENIED"
    assert failed(lambda: manage("RegisterModel", AS_MANAGER, url="returns"))[0] == "ALREADY_EXISTS"
    for url in ("https://example.com/m.mar", "/models/m.mar", "m.mar", "s3://b/m.mar", "file:///m.mar"):
        assert failed(lambda url=url: manage("RegisterModel", AS_MANAGER, url=url))[0] == "INVALID_ARGUMENT", url
    assert "updated" in manage("SetDefault", AS_MANAGER, **changes["SetDefault"]).msg
    assert failed(lambda: manage("SetDefault", AS_MANAGER, model_name="returns"))[0] == "INVALID_ARGUMENT"
    assert "scaled to 1" in manage("ScaleWorker", AS_MANAGER, synchronous=True, **changes["ScaleWorker"]).msg
    assert manage("UnregisterModel", AS_MANAGER, model_name="returns").msg == 'Model "returns" unregistered'
    told = manage("RegisterModel", AS_MANAGER, url="returns", initial_workers=1, synchronous=True).msg
    assert told == 'Model "returns" Version: 1 registered with 1 initial workers'


# -- what all have in common ------------------------------------------------------------------------------------------


def test_a_stream_that_is_half_closed_is_answered_whole(channel: grpc.Channel, scores: list[float]) -> None:
    stream, kind = stub(channel, oip.schema(), oip.INFERENCE, "ModelStreamInfer")
    asked = [kind(model_name="returns", id=str(n), inputs=[tensor()], raw_input_contents=raw()) for n in range(20)]
    answers = list(stream(iter(asked), timeout=60))
    assert [answer.infer_response.id for answer in answers] == [str(n) for n in range(20)]
    assert all(np.frombuffer(a.infer_response.raw_output_contents[0]).tolist() == scores for a in answers)
    assert list(stream(iter(()), timeout=60)) == []


def test_calls_are_counted_by_protocol_and_status(managed: Served, channel: grpc.Channel) -> None:
    infer = {"model_name": "returns", "inputs": [tensor()], "raw_input_contents": raw()}
    ask(channel, oip.schema(), oip.INFERENCE, "ModelInfer", **infer)
    failed(lambda: ask(channel, oip.schema(), oip.INFERENCE, "ModelInfer", model_name="nobody"))
    ask(channel, tf.schema(), tf.PREDICTION, "Predict", model_spec={"name": "returns"}, inputs={"input": proto()})
    data = {"data": json.dumps(ROWS).encode()}
    ask(channel, torch.schema(), torch.INFERENCE, "Predictions", model_name="returns", input=data)
    page = call(f"{managed.console}/actuator/prometheus", headers=dict(AS_MANAGER))[1].decode()
    families = {family.name: family for family in text_string_to_metric_families(page)}
    protocols = {sample.labels["protocol"] for sample in families["mainspring_inferences"].samples if sample.value}
    assert protocols >= {"oip_grpc", "tfserving_grpc", "torchserve_grpc"}
    counted = {
        (sample.labels["method"], sample.labels["code"])
        for sample in families["mainspring_grpc_requests"].samples
        if sample.value
    }
    assert counted >= {("ModelInfer", "OK"), ("ModelInfer", "NOT_FOUND"), ("Predict", "OK"), ("Predictions", "OK")}
    assert families["mainspring_grpc_request_seconds"].type == "histogram"


def test_answers_are_in_the_prediction_log(managed: Served, channel: grpc.Channel) -> None:
    """A label is taken for an id that the log knows: those of each wire are."""
    infer, kind = stub(channel, tf.schema(), tf.PREDICTION, "Predict")
    _, called_with = infer.with_call(kind(model_spec={"name": "returns"}, inputs={"input": proto()}), timeout=60)
    trailing = dict(called_with.trailing_metadata())
    ids = trailing["x-mainspring-prediction-ids"].split(",")
    assert len(ids) == len(ROWS)
    status, body, _ = call(
        f"{managed.url}/labels", {"labels": [{"id": ids[0], "value": True, "at": "2025-03-01T00:00:00Z"}]}
    )
    assert (status, json.loads(body)["accepted"]) == (202, 1)


NUMBERS = st.floats(width=32, allow_infinity=False) | st.integers(-1000, 1000).map(float)


def test_every_wire_gives_the_same_numbers(managed: Served, channel: grpc.Channel) -> None:
    """To the bit: HTTP in JSON and in binary, and gRPC in each form of each protocol."""
    infer, asked = stub(channel, oip.schema(), oip.INFERENCE, "ModelInfer")
    predict, wanted_of = stub(channel, tf.schema(), tf.PREDICTION, "Predict")
    torchserve, torch_asked = stub(channel, torch.schema(), torch.INFERENCE, "Predictions")

    def oip_raw(rows: list[list[float]], datatype: str, kind: str) -> bytes:
        message = asked(model_name="returns", inputs=[tensor(rows, datatype)], raw_input_contents=raw(rows, kind))
        return bytes(infer(message, timeout=60).raw_output_contents[0])

    def oip_typed(rows: list[list[float]]) -> bytes:
        flat = {"fp32_contents": [value for row in rows for value in row]}
        answer = infer(asked(model_name="returns", inputs=[tensor(rows, contents=flat)]), timeout=60)
        return np.array(answer.outputs[0].contents.fp64_contents).tobytes()

    def tensorflow(rows: list[list[float]], **values: Any) -> bytes:
        message = wanted_of(model_spec={"name": "returns"}, inputs={"input": proto(rows, **values)})
        return np.array(predict(message, timeout=60).outputs["score"].double_val).tobytes()

    def torch_serve(rows: list[list[float]]) -> bytes:
        message = torch_asked(model_name="returns", input={"data": json.dumps(rows).encode()})
        return np.array(json.loads(torchserve(message, timeout=60).prediction)).tobytes()

    def http_binary(rows: list[list[float]]) -> bytes:
        (data,) = raw(rows)
        described = [tensor(rows, parameters={"binary_data_size": len(data)})]
        head = json.dumps({"inputs": described, "parameters": {"binary_data_output": True}}).encode()
        status, body, headers = call(
            f"{managed.url}/v2/models/returns/infer", head + data, {"inference-header-content-length": str(len(head))}
        )
        assert status == 200
        return body[int(headers["inference-header-content-length"]) :]

    wires: dict[str, Callable[[list[list[float]]], bytes]] = {
        "HTTP binary": http_binary,
        "raw FP32": lambda rows: oip_raw(rows, "FP32", "<f4"),
        "raw FP64": lambda rows: oip_raw(rows, "FP64", "<f8"),
        "typed": oip_typed,
        "tensor_content": lambda rows: tensorflow(rows, tensor_content=raw(rows)[0]),
        "float_val": lambda rows: tensorflow(rows, float_val=[value for row in rows for value in row]),
        "TorchServe": torch_serve,
    }

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=1, max_size=4))
    def agree(rows: list[list[float]]) -> None:
        wanted = np.array(oip_scores(managed.url, rows)).tobytes()
        for name, score in wires.items():
            assert score(rows) == wanted, (name, rows)

    agree()
    body = {"customer": "c01", "amount": 20.0}
    answer = json.loads(call(f"{managed.url}/endpoint/returns?features=true", body)[1])
    row = [math.nan if value is None else value for value in answer["features"].values()]
    assert np.frombuffer(oip_raw([row], "FP64", "<f8")).tolist() == [answer["score"]]


FUZZED = {
    "oip": (oip.schema(), oip.INFERENCE, "ModelInfer"),
    "tensorflow": (tf.schema(), tf.PREDICTION, "Predict"),
    "regress": (tf.schema(), tf.PREDICTION, "Regress"),
    "classify": (tf.schema(), tf.PREDICTION, "MultiInference"),
    "torchserve": (torch.schema(), torch.INFERENCE, "Predictions"),
    "index": (oip.schema(), oip.INFERENCE, "RepositoryIndex"),
    "status": (tf.schema(), tf.MODEL, "GetModelStatus"),
}


def test_no_bytes_are_the_servers_fault(managed: Served, channel: grpc.Channel) -> None:
    """Whole messages of every protocol with some bytes of them changed, cut off or put in."""
    spec = {"name": "returns"}
    rows = {"examples": [example(visits_30d=1.0, amount_30d=2, amount=3.0)]}
    whole: dict[str, Any] = {
        "oip": {
            "model_name": "returns",
            "inputs": [tensor()],
            "raw_input_contents": raw(),
            "outputs": [{"name": "score"}],
        },
        "tensorflow": {"model_spec": spec, "inputs": {"input": proto(float_val=[1.0] * 9)}},
        "regress": {"model_spec": spec, "input": {"example_list": rows}},
        "classify": {
            "tasks": [{"model_spec": spec, "method_name": "tensorflow/serving/classify"}],
            "input": {"example_list": rows},
        },
        "torchserve": {"model_name": "returns", "input": {"data": json.dumps(ROWS).encode()}},
        "index": {"repository_name": "a", "ready": True},
        "status": {"model_spec": {"name": "returns", "version": {"value": 1}}},
    }
    sent = {}
    for name, (schema, service, method) in FUZZED.items():
        call, kind = stub(channel, schema, service, method)
        sent[name] = kind(**whole[name]).SerializeToString()
        assert call(kind(**whole[name]), timeout=60) is not None, name

    @settings(max_examples=200, deadline=None)
    @given(
        st.sampled_from(sorted(FUZZED)),
        st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=4),
        st.none() | st.floats(0, 1),
        st.binary(max_size=4),
    )
    def fuzz(name: str, changes: list[tuple[float, int]], cut: float | None, more: bytes) -> None:
        _, service, method = FUZZED[name]
        data = bytearray(sent[name])
        for place, value in changes:
            data[int(place * (len(data) - 1))] = value
        if cut is not None:
            middle = int(cut * len(data))
            data[middle : middle + len(more)] = more
            data = data[: middle + 8]
        plainly = channel.unary_unary(f"/{service}/{method}")
        try:
            plainly(bytes(data), timeout=60)
        except grpc.RpcError as error:
            found: Any = error
            assert found.code().name in ("INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED", "UNIMPLEMENTED"), (
                name, bytes(data), found.code(), found.details(),
            )  # fmt: skip

    fuzz()
    assert managed.process.poll() is None


# -- keys, TLS, stopping ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def secured(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server with keys, a certificate and a model that one may ask."""
    folder = tmp_path_factory.mktemp("secured")
    certificate, key = signed_certificate("localhost")
    os.environ["SHOP_KEY"] = KEY
    written = '[server]\nkeys = ["env:SHOP_KEY"]\n[grpc]\ncertificate = "tls.crt"\nprivate_key = "tls.key"\n'
    project = copied(built, folder, written)
    (project / "tls.crt").write_bytes(certificate)
    (project / "tls.key").write_bytes(key)
    found = serve(project, "serve")
    yield found
    if found.process.poll() is None:
        assert found.stop() == 0, found.log.read_text()
    del os.environ["SHOP_KEY"]


def secure(served: Served) -> grpc.Channel:
    credentials = grpc.ssl_channel_credentials((served.project / "tls.crt").read_bytes())
    return grpc.secure_channel(address(served).replace("127.0.0.1", "localhost"), credentials)


def test_keys_and_tls(secured: Served) -> None:
    fields = {"model_name": "returns", "inputs": [tensor()], "raw_input_contents": raw()}
    with secure(secured) as channel:
        infer = called(channel, oip.schema(), oip.INFERENCE)
        assert failed(lambda: infer("ModelInfer", **fields))[0] == "UNAUTHENTICATED"
        assert failed(lambda: infer("ModelInfer", (("authorization", "Bearer no"),), **fields))[0] == "UNAUTHENTICATED"
        for metadata in ((("authorization", f"Bearer {KEY}"),), (("x-api-key", KEY),)):
            assert infer("ModelInfer", metadata, **fields).outputs[0].name == "score"
        assert infer("ServerLive").live
        assert infer("ServerReady").ready
        assert called(channel, health_schema(), HEALTH)("Check").status == 1
        feast = channel.unary_unary("/feast.serving.ServingService/GetFeastServingInfo")
        assert failed(lambda: feast(b"", timeout=60))[0] == "UNAUTHENTICATED"
        assert feast(b"", timeout=60, metadata=(("x-api-key", KEY),))
    with grpc.insecure_channel(address(secured)) as plain:
        assert failed(lambda: called(plain, oip.schema(), oip.INFERENCE)("ServerLive", timeout=20))[0] == "UNAVAILABLE"


def test_it_drains_when_it_is_stopped(secured: Served) -> None:
    """What was asked is answered, open streams end with UNAVAILABLE, watchers hear of it, and the process exits 0."""
    metadata = (("x-api-key", KEY),)
    with secure(secured) as channel:
        stream, kind = stub(channel, oip.schema(), oip.INFERENCE, "ModelStreamInfer")
        watch, health = stub(channel, health_schema(), HEALTH, "Watch")
        watched = watch(health(), timeout=120)
        assert next(watched).status == 1
        more = threading.Event()

        def asked() -> Iterator[Any]:
            for number in range(5):
                yield kind(model_name="returns", id=str(number), inputs=[tensor()], raw_input_contents=raw())
            more.wait(60)  # the stream stays open, and says nothing more

        answers = stream(asked(), timeout=120, metadata=metadata)
        seen = [next(answers).infer_response.id for _ in range(5)]
        assert seen == ["0", "1", "2", "3", "4"]
        secured.process.send_signal(signal.SIGTERM)
        assert failed(lambda: next(answers)) == ("UNAVAILABLE", "the server is stopping")
        more.set()
        assert [status.status for status in watched] == [2]
        assert secured.process.wait(timeout=60) == 0, secured.log.read_text()
