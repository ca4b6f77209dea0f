"""The client's own bytes of gRPC's messages, against the server's descriptors; and its one rule of trying again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mainspring.client.faults import AnswerError
from mainspring.client.messages import read_index, read_infer, write_index, write_infer
from mainspring.client.trying import Attempts
from mainspring.client.wire import Received, models
from mainspring.protocols.oip.messages import schema

REQUEST = schema().message("inference.ModelInferRequest")
RESPONSE = schema().message("inference.ModelInferResponse")
INDEX = schema().message("inference.RepositoryIndexResponse")
TEXT = st.text(max_size=20)
KINDS = {"FP32": "<f4", "FP64": "<f8", "INT8": "|i1", "INT64": "<i8", "UINT16": "<u2", "BOOL": "|b1", "FP16": "<f2"}
TENSORS = st.dictionaries(
    TEXT,
    st.sampled_from(sorted(KINDS)).flatmap(
        lambda name: st.tuples(
            st.just(name), arrays.arrays(KINDS[name], arrays.array_shapes(max_dims=3, min_side=0, max_side=4))
        )
    ),
    max_size=3,
)


@given(TEXT, TENSORS, st.none() | TEXT, st.lists(TEXT, max_size=3), st.none() | st.integers(0, 2**62))
def test_a_request_is_what_the_servers_descriptors_read(model, tensors, version, outputs, timeout) -> None:  # type: ignore[no-untyped-def]
    sent = write_infer(model, {name: array for name, (_, array) in tensors.items()}, version, outputs, timeout)
    read = REQUEST.FromString(sent)
    assert (read.model_name, read.model_version) == (model, version or "")
    assert [one.name for one in read.outputs] == outputs
    assert {name: value.int64_param for name, value in read.parameters.items()} == (
        {} if timeout is None else {"timeout": timeout}
    )
    assert [(one.name, one.datatype, tuple(one.shape)) for one in read.inputs] == [
        (name, datatype, array.shape) for name, (datatype, array) in tensors.items()
    ]
    assert list(read.raw_input_contents) == [array.tobytes() for _, array in tensors.values()]


@given(TEXT, TENSORS, st.lists(st.text("abcdef0123456789", min_size=1), max_size=3))
def test_an_answer_is_read_as_it_was_written(model, tensors, ids) -> None:  # type: ignore[no-untyped-def]
    sent = RESPONSE(model_name=model, model_version="7", id="x")
    sent.parameters["another"].int64_param = -3
    sent.parameters["flag"].double_param = 0.5
    if ids:
        sent.parameters["prediction_ids"].string_param = ",".join(ids)
    for name, (datatype, array) in tensors.items():
        sent.outputs.add(name=name, datatype=datatype, shape=array.shape)
        sent.raw_output_contents.append(array.tobytes())
    read = read_infer(sent.SerializeToString())
    assert (read.model, read.version, list(read.ids)) == (model, "7", ids)
    assert list(read.outputs) == list(tensors)
    for name, (_, array) in tensors.items():
        assert (read.outputs[name].shape, read.outputs[name].tobytes()) == (array.shape, array.tobytes())


@given(st.binary(max_size=60))
def test_garbage_is_an_error_and_nothing_else(data: bytes) -> None:
    for read in (read_infer, read_index):
        try:
            read(data)
        except (ValueError, KeyError, TypeError):
            continue


@pytest.mark.parametrize("data", [b"\x80", b"\xff" * 12, b"\x0a\x05ab", b"\x0b", b"\x08\x01", b"\x0d\x01"])
def test_an_answer_that_is_cut_off_or_of_another_kind_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match="the answer"):
        read_infer(data)


def test_the_index() -> None:
    assert schema().message("inference.RepositoryIndexRequest").FromString(write_index()).ready
    versions = INDEX(models=[{"name": "a", "version": "2"}, {"name": "a", "version": "1"}, {"name": "ü"}])
    assert read_index(versions.SerializeToString()) == ["a", "ü"]


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_rule_says_when_a_call_is_made_again() -> None:
    clock = Clock()
    attempts = Attempts(10.0, 4, clock)
    assert attempts.left() == 10.0
    assert attempts.pause(None) == 0.1
    assert attempts.pause(Received(429, {"retry-after": "3"}, b"")) == 3.0
    assert attempts.pause(Received(200, {}, b"")) is None, "it is answered"
    assert attempts.pause(None) is None, "four tries were made"
    clock.now += 20
    assert attempts.left() == 0.001
    with pytest.raises(AnswerError, match="does not answer") as found:
        attempts.answer(models(), "http://x", None, "refused")
    assert (found.value.code, "in 4 tries" in (found.value.why or "")) == ("MS-4380", True)


@pytest.mark.parametrize("status", [400, 404, 500, 504])
def test_what_another_try_would_not_mend_is_not_tried(status: int) -> None:
    assert Attempts(10.0, 4, Clock()).pause(Received(status, {}, b"")) is None


def test_no_try_begins_after_the_time_is_over() -> None:
    clock = Clock()
    attempts = Attempts(5.0, 9, clock)
    clock.now += 4.0
    assert attempts.pause(Received(503, {"retry-after": "1"}, b"")) is None
    assert attempts.pause(Received(503, {"retry-after": "0"}, b"")) == 0.0


def test_arrays_of_text_have_their_lengths_before_them() -> None:
    read = REQUEST.FromString(write_infer("m", {"t": np.array(["a", "bc"])}, None, (), None))
    assert (read.inputs[0].datatype, read.raw_input_contents[0]) == ("BYTES", b"\x01\0\0\0a\x02\0\0\0bc")
