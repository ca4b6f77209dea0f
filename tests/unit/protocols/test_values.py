"""Texts, bytes, several inputs and outputs: what the wires do with models that have them."""

from __future__ import annotations

import base64
import json
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.protocols.arrays import array_of, finite, flattened, inputs_of_columns, inputs_of_rows
from mainspring.protocols.http import Fault, Router
from mainspring.protocols.oip.infer import read_call, read_raw_call, write_answer
from mainspring.protocols.oip.tensors import read_bytes, write_bytes
from mainspring.protocols.tfserving.values import columns_body, rows_body
from mainspring.serving.calls import DATATYPES, Inference, Rejected, Tensor
from mainspring.serving.served import ServedModel


class Fake:
    """A model with inputs of our choice."""

    name, columns = "fake", ()

    def __init__(self, *inputs: Tensor) -> None:
        self.inputs = inputs

    def taken(self, names: Any) -> Any:
        return self.inputs


def fake(*inputs: Tensor) -> ServedModel:
    return cast(ServedModel, Fake(*inputs))


TEXT, NUMBER = Tensor("text", "BYTES", (-1,)), Tensor("number", "FP32", (-1, 2))


def test_texts_and_bytes_as_rows_and_as_columns() -> None:
    encoded = base64.b64encode(b"\xff\x00").decode()
    for found in (
        inputs_of_rows(["é", {"b64": encoded}], fake(TEXT), 9),
        inputs_of_columns(["é", {"b64": encoded}], fake(TEXT), 9),
        inputs_of_columns({"text": ["é", {"b64": encoded}]}, fake(TEXT), 9),
    ):
        assert found["text"].tolist() == ["é".encode(), b"\xff\x00"]
    for bad in ([1], [{"b64": 1}], [{"b64": "A"}], [{"b64": "AAAA", "x": 1}], [None]):
        with pytest.raises(Fault):
            inputs_of_columns(bad, fake(TEXT), 9)


def test_several_inputs_are_named() -> None:
    both = fake(TEXT, NUMBER)
    found = inputs_of_rows([{"text": "a", "number": [1, 2]}, {"text": "b", "number": [3, None]}], both, 9)
    assert found["text"].tolist() == [b"a", b"b"]
    assert np.array_equal(found["number"], np.array([[1, 2], [3, np.nan]], "f4"), equal_nan=True)
    with pytest.raises(Fault, match="several inputs"):
        inputs_of_rows([[1, 2]], both, 9)


def test_several_outputs_are_objects_and_bytes_are_base64() -> None:
    outputs = [
        (Tensor("label", "BYTES", (-1,)), np.array([b"a", "b"], object)),
        (Tensor("image_bytes", "BYTES", (-1,)), np.array([b"\xff", b""], object)),
        (Tensor("score", "FP64", (-1,)), np.array([0.5, np.nan])),
    ]
    rows = json.loads(rows_body(Inference("m", "1", outputs)))["predictions"]
    assert rows[0] == {"label": "a", "image_bytes": {"b64": "/w=="}, "score": 0.5}
    assert rows[1]["score"] != rows[1]["score"]
    assert json.loads(columns_body(Inference("m", "1", outputs)))["outputs"]["label"] == ["a", "b"]
    assert json.loads(rows_body(Inference("m", "1", outputs[1:2])))["predictions"] == [{"b64": "/w=="}, {"b64": ""}]


KINDS = {name: kind for name, kind in DATATYPES.items() if name not in ("BYTES", "BF16")}


@given(st.sampled_from(sorted(KINDS)), st.binary(max_size=64))
def test_binary_tensors_come_back_as_they_went(datatype: str, data: bytes) -> None:
    size = np.dtype(KINDS[datatype]).itemsize
    data = data[: len(data) // size * size]
    if datatype == "BOOL":
        data = bytes(byte & 1 for byte in data)
    found = read_bytes("x", datatype, memoryview(data), len(data) // size)
    assert write_bytes(Tensor("x", datatype, (-1,)), found) == data


@given(st.lists(st.integers(0, 0xFFFF), max_size=20))
def test_bfloat16_comes_back_as_it_went(words: list[int]) -> None:
    data = np.array(words, "<u2").tobytes()
    assert write_bytes(Tensor("x", "BF16", (-1,)), read_bytes("x", "BF16", memoryview(data), len(words))) == data


@given(st.lists(st.binary(max_size=9), max_size=9), st.binary(max_size=6))
def test_texts_come_back_as_they_went_and_no_more_are_read(texts: list[bytes], more: bytes) -> None:
    tensor = Tensor("x", "BYTES", (-1,))
    values = np.empty(len(texts), object)
    values[:] = texts
    data = write_bytes(tensor, values)
    assert read_bytes("x", "BYTES", memoryview(data), len(texts)).tolist() == texts
    for lying, count in ((data + b"\0" + more, len(texts)), (data, len(texts) + 1), (data[:-1], len(texts))):
        if lying != data or count != len(texts):
            with pytest.raises(Fault):
                read_bytes("x", "BYTES", memoryview(lying), count)


def test_raw_bodies() -> None:
    text = Tensor("text", "BYTES", (1,))
    assert read_raw_call(b"hello", fake(text), None, "oip").call.inputs["text"].tolist() == [b"hello"]
    wide = Tensor("x", "INT16", (-1, -1))
    assert read_raw_call(bytes(6), fake(wide), None, "oip").call.inputs["x"].shape == (1, 3)
    for model, body in (
        (fake(text, NUMBER), b""),
        (fake(Tensor("x", "FP32", (-1, -1, -1))), b""),
        (fake(TEXT, NUMBER), b"x"),
        (fake(wide), bytes(5)),
    ):
        with pytest.raises((Fault, Rejected)):
            read_raw_call(body, model, None, "oip")


def test_answers_are_binary_where_they_are_wanted_so() -> None:
    body = {
        "inputs": [{"name": "number", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}],
        "outputs": [{"name": "a"}, {"name": "b", "parameters": {"binary_data": False}}],
        "parameters": {"binary_data_output": True},
    }
    asked = read_call(json.dumps(body).encode(), None, fake(NUMBER), None, "oip", 9)
    assert (asked.call.outputs, asked.binary) == (("a", "b"), (True, False))
    score = np.array([0.5])
    answer = Inference("m", "1", [(Tensor(name, "FP64", (-1,)), score) for name in ("a", "b")], ["id"])
    data, length = write_answer(asked, answer)
    assert length is not None
    head = json.loads(data[:length])
    assert "data" not in head["outputs"][0]
    assert (head["outputs"][1]["data"], data[length:]) == ([0.5], score.tobytes())
    assert head["parameters"] == {"prediction_ids": "id"}
    half = Inference("m", "1", [(Tensor("a", "FP16", (-1,)), score.astype("f2"))])
    plain = json.dumps(body | {"outputs": [], "parameters": {}}).encode()
    with pytest.raises(Fault, match="binary"):
        write_answer(read_call(plain, None, fake(NUMBER), None, "oip", 9), half)


NESTED = st.recursive(st.integers(), lambda inner: st.lists(inner, max_size=3), max_leaves=12)


@given(st.lists(NESTED, max_size=3))
def test_nested_lists_are_flattened_as_numpy_would(data: list[Any]) -> None:
    try:
        wanted: Any = np.array(data)
    except ValueError:
        wanted = None
    try:
        flat, shape = flattened(data)
    except Fault:
        assert wanted is None or wanted.dtype == object
        return
    if any(isinstance(value, list) for value in flat):
        return  # later values are lists: refused where the values' types are looked at
    assert wanted is not None
    assert (tuple(shape), flat) == (wanted.shape, wanted.ravel().tolist())


def test_a_routers_words_may_be_capitals_where_they_are_asked_to() -> None:
    async def handler(request: Any) -> Any:
        return None

    async def other(request: Any) -> Any:
        return None

    router = Router()
    router.add("GET", "/v1/models/*/metadata", handler, any_case=True)
    router.add("GET", "/v2/models/*", other)
    assert router.find("GET", b"/V1/Models/A/METADATA")[2] == ("A",)
    with pytest.raises(Fault):
        router.find("GET", b"/V2/models/a")


MOST = float(np.finfo("f4").max)
EDGES = st.sampled_from(
    [MOST, -MOST, MOST * (1 + 2**-25), MOST * (1 + 2**-24), 1e39, -1e39, 2**127, 10**38, 10**39, 2**70]
)


@given(st.lists(st.floats() | st.integers(-(2**130), 2**130) | EDGES, max_size=80))
def test_few_numbers_become_float32_as_many_do(flat: list[Any]) -> None:
    """Each by itself: what stays finite, or was infinite, fits; the fewer are looked at another way than the many."""

    def fits(value: Any) -> bool:
        with np.errstate(over="ignore"):
            return bool(np.isinf(np.float32(value)) == np.isinf(np.float64(value)))

    if all(map(fits, flat)):
        found = array_of("x", "FP32", flat)
        wanted = np.array([np.float32(value) for value in flat], "f4")
        assert found.tobytes() == wanted.tobytes()
        assert finite(found) == bool(np.isfinite(wanted).all())
    else:
        with pytest.raises(Fault, match="outside FP32"):
            array_of("x", "FP32", flat)
