"""The messages of gRPC: their text, their pools, and numbers in every form that a protocol has for them."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.ports.runtime import Card
from mainspring.protocols.grpc.schema import ProtoFile, Schema
from mainspring.protocols.http import Fault
from mainspring.protocols.oip import messages as oip
from mainspring.protocols.oip.grpc_infer import read_infer, write_infer
from mainspring.protocols.tfserving import messages as tf
from mainspring.protocols.tfserving.tensors import TYPES, read_proto, write_proto
from mainspring.protocols.torchserve import messages as torch
from mainspring.serving.calls import DATATYPES, Inference, Rejected, Tensor
from mainspring.serving.models import LiveModel
from mainspring.serving.served import ServedModel
from mainspring.serving.statistics import Statistics


@pytest.mark.parametrize("order", ["before", "after"])
def test_other_libraries_may_fill_the_default_pool(order: str) -> None:
    """Trap 1; and our messages have the numbers of those that Triton publishes."""
    script = Path(__file__).parents[2] / "grpc_pools.py"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), order], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_text_that_is_no_proto_is_refused() -> None:
    for text in (
        "message A { string a = 1 }",
        "message A { string a; }",
        "message A {",
        "thing A {}",
        "message A { string a = 1; } ?",
        "service S { rpc A (B) C; }",
    ):
        with pytest.raises(ValueError, match="proto file"):
            Schema(ProtoFile("a.proto", "a", text))


# -- bytes on the wire, written by hand from the numbers of the published files ----------------------------------------


def field(number: int, value: bytes | int) -> bytes:
    """A field as Protocol Buffers' encoding writes it: a varint, or a length and bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def test_tensorflows_requests_have_the_published_numbers() -> None:
    dims = field(2, field(2, field(1, 1)) + field(2, field(1, 3)))
    tensor = field(1, 1) + dims + field(4, struct.pack("<3f", 1, 2, 3))
    spec = field(1, b"late") + field(2, field(1, 7)) + field(3, b"serving_default")
    wire = field(1, spec) + field(2, field(1, b"x") + field(2, tensor)) + field(3, b"score")
    asked = tf.schema().message("tensorflow.serving.PredictRequest").FromString(wire)
    assert (asked.model_spec.name, asked.model_spec.version.value) == ("late", 7)
    assert asked.model_spec.signature_name == "serving_default"
    assert [dim.size for dim in asked.inputs["x"].tensor_shape.dim] == [1, 3]
    assert asked.inputs["x"].tensor_content == struct.pack("<3f", 1, 2, 3)
    assert list(asked.output_filter) == ["score"]
    label = tf.schema().message("tensorflow.serving.ModelSpec").FromString(field(1, b"late") + field(4, b"canary"))
    assert label.version_label == "canary"
    values = {5: "float_val", 6: "double_val", 7: "int_val", 8: "string_val", 10: "int64_val", 11: "bool_val"}
    values |= {13: "half_val", 16: "uint32_val", 17: "uint64_val", 4: "tensor_content"}
    named = tf.schema().message("tensorflow.TensorProto").DESCRIPTOR.fields_by_number
    assert {number: named[number].name for number in values} == values
    example = field(1, field(1, field(1, b"age") + field(2, field(2, field(1, struct.pack("<f", 4))))))
    for kind in ("ClassificationRequest", "RegressionRequest"):
        asked = tf.schema().message(f"tensorflow.serving.{kind}").FromString(field(2, field(1, field(1, example))))
        (found,) = asked.input.example_list.examples
        assert list(found.features.feature["age"].float_list.value) == [4.0]
    status = (
        tf.schema()
        .message("tensorflow.serving.GetModelStatusResponse")
        .FromString(field(1, field(1, 3) + field(2, 30)))
    )
    assert (status.model_version_status[0].version, status.model_version_status[0].state) == (3, 30)
    config = field(1, b"late") + field(2, b"/m") + field(4, b"tensorflow") + field(7, field(102, field(1, b"\x01\x02")))
    config += field(8, field(1, b"stable") + field(2, 2))
    asked = (
        tf.schema().message("tensorflow.serving.ReloadConfigRequest").FromString(field(1, field(1, field(1, config))))
    )
    (found,) = asked.config.model_config_list.config
    assert (found.name, found.base_path, list(found.model_version_policy.specific.versions)) == ("late", "/m", [1, 2])
    assert dict(found.version_labels) == {"stable": 2}


def test_torchserves_requests_have_the_published_numbers() -> None:
    wire = field(1, b"late") + field(2, b"1") + field(3, field(1, b"data") + field(2, b"[[1]]")) + field(4, b"s")
    asked = torch.schema().message("org.pytorch.serve.grpc.inference.PredictionsRequest").FromString(wire)
    assert (asked.model_name, asked.model_version, dict(asked.input), asked.sequence_id) == (
        "late",
        "1",
        {"data": b"[[1]]"},
        "s",
    )
    package = "org.pytorch.serve.grpc.management."
    numbered = {
        "RegisterModelRequest": "batch_size handler initial_workers max_batch_delay model_name response_timeout "
        "runtime synchronous url s3_sse_kms startup_timeout",
        "ScaleWorkerRequest": "model_name model_version max_worker min_worker number_gpu synchronous timeout",
        "DescribeModelRequest": "model_name model_version customized",
        "ListModelsRequest": "limit next_page_token",
    }
    for name, fields in numbered.items():
        found = torch.schema().message(package + name).DESCRIPTOR.fields_by_number
        assert [found[number].name for number in range(1, len(found) + 1)] == fields.split()


def test_mlservers_and_kserves_requests_have_the_published_numbers() -> None:
    mlserver = oip.schema().message("inference.model_repository.RepositoryModelLoadRequest")
    assert mlserver.FromString(field(2, b"late")).model_name == "late"
    answer = oip.schema().message("inference.RepositoryModelLoadResponse")(model_name="late", isLoaded=True)
    assert answer.SerializeToString() == field(1, b"late") + field(2, 1)
    metadata = oip.schema().message("inference.ModelMetadataResponse")
    assert 6 not in metadata.DESCRIPTOR.fields_by_number


# -- numbers ----------------------------------------------------------------------------------------------------------

NUMERIC = [name for name in DATATYPES if name not in ("BYTES", "BF16")]
CARD = Card("late", "onnx", "", ("a", "b"), "float32", "binary")
SERVED = ServedModel("late", LiveModel("1", "", CARD, None), Statistics())  # type: ignore[arg-type]
REQUEST = oip.schema().message("inference.ModelInferRequest")
PROTO = tf.schema().message("tensorflow.TensorProto")
DECLARED = Tensor("input", "FP32", (-1, 2))


def packed(datatype: str, data: bytes) -> np.ndarray[Any, Any]:
    """Elements read one by one, by struct and the definition of bfloat16: its bits are the first half of a float's."""
    if datatype == "BF16":
        halves = struct.unpack(f"<{len(data) // 2}H", data)
        return np.array([struct.unpack("<f", struct.pack("<I", bits << 16))[0] for bits in halves], "f4")
    letters = {"BOOL": "?", "FP16": "e", "FP32": "f", "FP64": "d"}
    signs = {
        f"{sign}INT{bits}": letter
        for sign, row in (("", "bhiq"), ("U", "BHIQ"))
        for bits, letter in zip((8, 16, 32, 64), row, strict=True)
    }
    letter = {**letters, **signs}[datatype]
    return np.array(struct.unpack(f"<{len(data) // struct.calcsize(letter)}{letter}", data), DATATYPES[datatype])


def same(found: np.ndarray[Any, Any], wanted: np.ndarray[Any, Any]) -> bool:
    """To the bit; but which of the many not-a-numbers it is may change on the way through Python's float."""
    if found.dtype != wanted.dtype or found.shape != wanted.shape:
        return False
    numbers = found == found
    return bool(((wanted == wanted) == numbers).all()) and found[numbers].tobytes() == wanted[numbers].tobytes()


WIDTHS = {name: 2 if name == "BF16" else np.dtype(DATATYPES[name]).itemsize for name in [*NUMERIC, "BF16"]}


@given(st.sampled_from(sorted(WIDTHS)), st.integers(1, 4), st.data())
def test_raw_contents_and_tensor_contents_are_the_same_numbers(datatype: str, rows: int, data: st.DataObject) -> None:
    size = rows * 2 * WIDTHS[datatype]
    sent = data.draw(st.binary(min_size=size, max_size=size))
    if datatype == "BOOL":
        sent = bytes(byte & 1 for byte in sent)
    wanted = packed(datatype, sent).reshape(rows, 2)
    tensor = {"name": "input", "datatype": datatype, "shape": [rows, 2]}
    asked = REQUEST(model_name="late", inputs=[tensor], raw_input_contents=[sent])
    assert same(read_infer(asked, SERVED, None, "oip_grpc", 100, None, 0).inputs["input"], wanted)
    proto = PROTO(dtype=TYPES[datatype], tensor_content=sent, tensor_shape={"dim": [{"size": rows}, {"size": 2}]})
    assert same(read_proto(proto, DECLARED, 100), wanted)


@given(st.sampled_from(sorted(set(WIDTHS) - {"FP16", "BF16"})), st.integers(1, 4), st.data())
def test_typed_contents_are_the_same_numbers(datatype: str, rows: int, data: st.DataObject) -> None:
    size = rows * 2 * WIDTHS[datatype]
    sent = data.draw(st.binary(min_size=size, max_size=size))
    wanted = np.nan_to_num(packed(datatype, bytes(b & 1 for b in sent) if datatype == "BOOL" else sent)).reshape(
        rows, 2
    )
    word = {"B": "bool", "U": "uint", "I": "int"}.get(datatype[0], datatype.lower())
    name = f"{word}{64 if datatype.endswith('INT64') else ''}_contents"
    tensor = {"name": "input", "datatype": datatype, "shape": [rows, 2], "contents": {name: wanted.ravel().tolist()}}
    asked = REQUEST(model_name="late", inputs=[tensor])
    assert same(read_infer(asked, SERVED, None, "oip_grpc", 100, None, 0).inputs["input"], wanted)


@given(st.sampled_from(sorted(WIDTHS)), st.integers(1, 3), st.integers(0, 7), st.data())
def test_values_are_filled_up_with_the_last(datatype: str, rows: int, given_values: int, data: st.DataObject) -> None:
    """As tensor.proto says; more values than elements are refused."""
    width = WIDTHS[datatype]
    sent = data.draw(st.binary(min_size=given_values * width, max_size=given_values * width))
    if datatype == "BOOL":
        sent = bytes(byte & 1 for byte in sent)
    values = np.nan_to_num(packed(datatype, sent)) if datatype in ("FP32", "FP64") else packed(datatype, sent)
    bits = packed("UINT16", sent).tolist() if datatype in ("FP16", "BF16") else values.tolist()
    fields = {"BOOL": "bool_val", "FP16": "half_val", "BF16": "half_val", "FP32": "float_val", "FP64": "double_val"}
    fields |= {"INT64": "int64_val", "UINT64": "uint64_val", "UINT32": "uint32_val"}
    shape = {"dim": [{"size": rows}, {"size": 2}]}
    proto = PROTO(dtype=TYPES[datatype], tensor_shape=shape, **{fields.get(datatype, "int_val"): bits})
    if given_values > rows * 2:
        with pytest.raises(Fault, match="values for"):
            read_proto(proto, DECLARED, 100)
        return
    last = values[-1:] if given_values else np.zeros(1, values.dtype)
    wanted = np.concatenate([values, *([last] * (rows * 2 - given_values))]).reshape(rows, 2)
    assert same(read_proto(proto, DECLARED, 100), wanted)


@given(st.sampled_from([*NUMERIC, "BF16"]), st.lists(st.integers(0, 1), min_size=1, max_size=5))
def test_answers_are_read_back_by_the_same_numbers(datatype: str, values: list[int]) -> None:
    tensor = Tensor("score", datatype, (-1,))
    written = np.array(values, DATATYPES[datatype])
    proto = PROTO()
    write_proto(proto, tensor, written)
    assert same(read_proto(proto, Tensor("score", "FP32", (-1,)), 100), written)
    answer = Inference("late", "1", [(tensor, written)], ["id"] * len(values))
    raw = write_infer(answer, "7", raw=True)
    assert same(packed(datatype, raw.raw_output_contents[0]), written)
    assert raw.parameters["prediction_ids"].string_param == ",".join(["id"] * len(values))
    if datatype in ("FP16", "BF16"):
        with pytest.raises(Fault, match="raw contents"):
            write_infer(answer, "7", raw=False)
        return
    (contents,) = [value for _, value in write_infer(answer, "7", raw=False).outputs[0].contents.ListFields()]
    assert np.array(list(contents), DATATYPES[datatype]).tolist() == written.tolist()


def test_shapes_that_lie_are_refused_before_anything_is_made() -> None:
    for shape in ([2**31, 2**31], [2**62, 2], [-1, 2], [2**20, 2], [], [2]):
        tensor = {"name": "input", "datatype": "FP32", "shape": shape}
        with pytest.raises((Fault, Rejected)):
            read_infer(REQUEST(model_name="late", inputs=[tensor]), SERVED, None, "", 65_536, None, 0)
        with pytest.raises((Fault, Rejected)):
            read_proto(PROTO(dtype=1, tensor_shape={"dim": [{"size": size} for size in shape]}), DECLARED, 65_536)
    for changed, text in (
        ({"dtype": 0}, "no dtype"),
        ({"dtype": 7}, "BYTES"),
        ({"dtype": 1, "tensor_shape": {"unknown_rank": True}}, "shape"),
    ):
        with pytest.raises(Fault, match=text):
            read_proto(PROTO(**changed), DECLARED, 100)
    texts = Tensor("input", "BYTES", (-1,))
    with pytest.raises(Fault, match="string_val"):
        read_proto(PROTO(dtype=7, tensor_content=b"a", tensor_shape={"dim": [{"size": 1}]}), texts, 100)
    few = PROTO(dtype=7, string_val=[b"a"], tensor_shape={"dim": [{"size": 2}]})
    assert read_proto(few, texts, 100).tolist() == [b"a", b"a"]


def test_the_least_of_the_deadlines_counts() -> None:
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 2]}
    asked = REQUEST(model_name="late", inputs=[tensor], raw_input_contents=[bytes(8)])
    assert read_infer(asked, SERVED, None, "", 10, 5.0, 0).deadline == 5.0
    asked.parameters["timeout"].int64_param = 60_000_000
    assert read_infer(asked, SERVED, None, "", 10, 5.0, 0).deadline == 5.0
    own = read_infer(asked, SERVED, None, "", 10, None, 0).deadline
    assert own is not None
    assert own > 5.0
