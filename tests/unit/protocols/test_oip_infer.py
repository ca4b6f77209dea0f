"""The quick way of reading an inference request finds what the general way finds, and refuses nothing by itself."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mainspring.protocols.oip.infer as infer
from mainspring.ports.runtime import Card
from mainspring.protocols.http import Fault
from mainspring.protocols.oip.infer import Asked, read_call
from mainspring.serving.calls import Rejected
from mainspring.serving.models import LiveModel
from mainspring.serving.served import ServedModel
from mainspring.serving.statistics import Statistics

COLUMNS, MOST = 2, 40


def served(dtype: str) -> ServedModel:
    card = Card("m", "onnx", "", tuple(f"c{n}" for n in range(COLUMNS)), dtype, "binary")
    return ServedModel("m", LiveModel("1", "", card, None), Statistics())  # type: ignore[arg-type]


def read(body: bytes, model: ServedModel) -> Asked | tuple[type[Exception], str]:
    try:
        return read_call(body, None, model, None, "wire", MOST)
    except (Fault, Rejected) as error:
        return type(error), str(error)


def both(body: bytes, model: ServedModel) -> tuple[Any, Any]:
    """What is read of a body, and what the general way alone reads of it."""
    quick = infer._usual
    first = read(body, model)
    infer._usual = lambda *_: None
    try:
        return first, read(body, model)
    finally:
        infer._usual = quick


def agree(body: bytes, model: ServedModel) -> None:
    quick, general = both(body, model)
    if isinstance(general, tuple):
        assert quick == general
        return
    assert (quick.named, quick.binary, quick.rest) == (general.named, general.binary, general.rest)
    for name in ("model", "protocol", "version", "label", "id", "parameters", "outputs", "deadline", "priority"):
        assert getattr(quick.call, name) == getattr(general.call, name), name
    assert quick.call.inputs.keys() == general.call.inputs.keys()
    for name, array in general.call.inputs.items():
        found = quick.call.inputs[name]
        assert (found.dtype, found.shape, found.tobytes()) == (array.dtype, array.shape, array.tobytes())


NUMBERS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, -0.0, 3.5e38, -3.5e38, 1e-46, 16777217, 9007199254740993]),
)
ODD = st.sampled_from([None, True, "1", [1.0, 2.0], {}, float("nan"), float("inf")])


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    rows = draw(st.integers(0, MOST + 2))
    values: list[Any] = draw(st.lists(NUMBERS, min_size=rows * COLUMNS, max_size=rows * COLUMNS))
    if draw(st.booleans()) and values:
        values[draw(st.integers(0, len(values) - 1))] = draw(ODD)
    data: Any = values
    if draw(st.booleans()):
        data = [values[at : at + COLUMNS] for at in range(0, len(values), COLUMNS)]
    shape = draw(
        st.sampled_from([[rows, COLUMNS], [rows * COLUMNS], [COLUMNS, rows], [rows, COLUMNS, 1], [-1, COLUMNS]])
    )
    datatype = draw(st.sampled_from(["FP32", "FP32", "FP64", "INT64", "BYTES", "FP99"]))
    tensor: dict[str, Any] = {"name": draw(st.sampled_from(["input", "input", "c0"])), "datatype": datatype}
    tensor |= {"shape": shape, "data": data}
    body: dict[str, Any] = {"inputs": [tensor] * draw(st.sampled_from([1, 1, 1, 0, 2]))}
    more = {"id": ["", "é", None, 3], "parameters": [{}, {"priority": 1}, {"timeout": 0}], "outputs": [[{"name": "s"}]]}
    for name in draw(st.lists(st.sampled_from([*more, "unknown"]), max_size=2)):
        body[name] = draw(st.sampled_from(more.get(name, [1])))
    return json.dumps(body).encode()


@settings(max_examples=400, deadline=None)
@given(bodies(), st.sampled_from(["float32", "float64"]))
def test_the_quick_way_finds_what_the_general_way_finds(body: bytes, dtype: str) -> None:
    agree(body, served(dtype))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"inputs":[{"name":"input","datatype":"FP32","shape":[1,2],"data":[1,2]}]} x',
        b'{"inputs":[{"name":"input","datatype":"FP32","shape":[1,2],"data":[1e999,2]}]}',
        b'{"inputs":[{"name":"input","datatype":"FP32","shape":[1.0,2],"data":[1,2]}]}',
        b'{"inputs":[{"name":"input","datatype":"FP32","shape":[1,2],"data":[NaN,2]}]}',
        b'{"inputs":[{"name":"input","datatype":"FP32","shape":[1,2],"data":[1,2]}],"id":"\xff"}',
        b'{"inputs":[{"name":"input","datatype":"FP32","shape":[1,2],"data":[1,2]}],"id":"\\ud800"}',
        b'{"inputs":[{"name":"input","datatype":"FP32","shape":[4294967296,4294967296],"data":[1,2]}]}',
    ],
)
def test_what_is_odd_is_left_to_the_general_way(body: bytes) -> None:
    agree(body, served("float32"))


def test_a_usual_request_goes_the_quick_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infer, "decode_json", None)
    values = [float(value) for value in range(2 * MOST)]
    tensor = {"name": "input", "datatype": "FP32", "shape": [MOST, 2], "data": values}
    found = read(json.dumps({"id": "x", "inputs": [tensor]}).encode(), served("float32"))
    assert isinstance(found, Asked)
    assert (found.call.id, found.named) == ("x", True)
    assert np.array_equal(found.call.inputs["input"], np.array(values, "f4").reshape(MOST, 2))
