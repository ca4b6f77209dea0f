"""A slow model of the user's own, asked over gRPC by every protocol: one queue for all, and each its own answer."""

from __future__ import annotations

import concurrent.futures
import json
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import numpy as np
import pytest

from e2e.conftest import Served
from e2e.test_batching import ask, busy, score, shown, slow, statistics, wait_for
from grpc_kit import address, failed, stub
from mainspring.protocols.oip import messages as oip
from mainspring.protocols.tfserving import messages as tf
from mainspring.protocols.torchserve import messages as torch

__all__ = ["slow"]


@pytest.fixture(scope="module")
def channel(slow: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address(slow)) as opened:
        yield opened


def rows(first: Sequence[float]) -> Any:
    return np.array([[value, 1.0, 1.0] for value in first], "<f8")


def by_oip(channel: grpc.Channel, first: Sequence[float], **parameters: float) -> list[float]:
    infer, kind = stub(channel, oip.schema(), oip.INFERENCE, "ModelInfer")
    asked = oip_message(kind, first)
    for name, value in parameters.items():
        asked.parameters[name].double_param = value
    return np.frombuffer(infer(asked, timeout=60).raw_output_contents[0]).tolist()


def oip_message(kind: Any, first: Sequence[float]) -> Any:
    tensor = {"name": "input", "datatype": "FP64", "shape": [len(first), 3]}
    return kind(model_name="returns", inputs=[tensor], raw_input_contents=[rows(first).tobytes()])


def by_stream(channel: grpc.Channel, first: Sequence[float]) -> list[float]:
    stream, kind = stub(channel, oip.schema(), oip.INFERENCE, "ModelStreamInfer")
    (answer,) = stream(iter([oip_message(kind, first)]), timeout=60)
    assert not answer.error_message
    return np.frombuffer(answer.infer_response.raw_output_contents[0]).tolist()


def by_tensorflow(channel: grpc.Channel, first: Sequence[float]) -> list[float]:
    predict, kind = stub(channel, tf.schema(), tf.PREDICTION, "Predict")
    shape = {"dim": [{"size": len(first)}, {"size": 3}]}
    proto = {"dtype": 2, "tensor_shape": shape, "tensor_content": rows(first).tobytes()}
    answer = predict(kind(model_spec={"name": "returns"}, inputs={"input": proto}), timeout=60)
    return list(answer.outputs["score"].double_val) or np.frombuffer(answer.outputs["score"].tensor_content).tolist()


def by_torchserve(channel: grpc.Channel, first: Sequence[float]) -> list[float]:
    predictions, kind = stub(channel, torch.schema(), torch.INFERENCE, "Predictions")
    body = json.dumps(rows(first).tolist()).encode()
    found: list[float] = json.loads(
        predictions(kind(model_name="returns", input={"data": body}), timeout=60).prediction
    )
    return found


WAYS = (by_oip, by_stream, by_tensorflow, by_torchserve)


def test_callers_at_once_by_every_protocol_are_few_batches_and_each_gets_its_own(
    slow: Served, channel: grpc.Channel
) -> None:
    before = statistics(slow)

    def one(number: int) -> None:
        mine = [float(1000 + 10 * number + row) for row in range(1 + number % 5)]
        found = WAYS[number % 4](channel, mine) if number % 5 else ask(slow, mine)[1]["outputs"][0]["data"]
        assert found == pytest.approx([score(value) for value in mine], abs=1e-6)

    with concurrent.futures.ThreadPoolExecutor(30) as pool:  # 90 rows in all: the queue holds 100
        list(pool.map(one, range(30)))
    after = statistics(slow)
    assert after["inference_count"] - before["inference_count"] == sum(1 + number % 5 for number in range(30))
    batches = after["execution_count"] - before["execution_count"]
    assert 1 < batches < 30
    assert after["inference_stats"]["queue"]["ns"] > before["inference_stats"]["queue"]["ns"]


@pytest.mark.parametrize("way", WAYS)
def test_one_bad_caller_fails_alone(slow: Served, channel: grpc.Channel, way: Any) -> None:
    unlucky = 13.0
    with concurrent.futures.ThreadPoolExecutor(9) as pool, busy(slow, pool, 0.5):
        others = [pool.submit(way, channel, [value]) for value in (10.0, 11.0, 12.0)]
        if way is by_stream:  # an error of a message is that message's
            with pytest.raises(AssertionError):
                way(channel, [unlucky])
        else:
            assert failed(lambda: way(channel, [unlucky])) == ("INTERNAL", "internal error")
    assert [found.result() for found in others] == [
        pytest.approx([score(value)], abs=1e-6) for value in (10.0, 11.0, 12.0)
    ]


def test_too_much_is_resource_exhausted_with_when_to_come_again(slow: Served, channel: grpc.Channel) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        with busy(slow, pool):
            waiting = pool.submit(by_oip, channel, [2.0] * 90)
            wait_for(lambda: shown(slow, "mainspring_queue_rows") == 90)
            for way in (by_oip, by_tensorflow, by_torchserve):
                with pytest.raises(grpc.RpcError) as caught:
                    way(channel, [3.0] * 20)
                refused: Any = caught.value
                assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert int(dict(refused.trailing_metadata())["grpc-retry-pushback-ms"]) >= 1000
        assert len(waiting.result()) == 90


def test_nothing_is_computed_for_a_caller_that_has_left(slow: Served, channel: grpc.Channel) -> None:
    before = statistics(slow)
    with concurrent.futures.ThreadPoolExecutor(4) as pool, busy(slow, pool):
        infer, kind = stub(channel, oip.schema(), oip.INFERENCE, "ModelInfer")
        leaves = infer.future(oip_message(kind, [2.0, 3.0, 4.0]), timeout=60)
        stays = infer.future(oip_message(kind, [5.0, 6.0]), timeout=60)
        wait_for(lambda: shown(slow, "mainspring_queue_rows") == 5)
        leaves.cancel()
        wait_for(lambda: shown(slow, "mainspring_queue_rows") == 2)
    assert stays.result().outputs[0].shape == [2]
    after = statistics(slow)
    assert after["inference_count"] - before["inference_count"] == 1 + 2


def test_a_stream_that_is_half_closed_while_its_model_is_slow_is_answered_whole(
    slow: Served, channel: grpc.Channel
) -> None:
    stream, kind = stub(channel, oip.schema(), oip.INFERENCE, "ModelStreamInfer")
    asked = [oip_message(kind, [float(value)]) for value in range(100, 106)]
    answers = stream(iter(asked), timeout=60)  # the client's side is closed before the first answer is there
    scores = [np.frombuffer(one.infer_response.raw_output_contents[0]).tolist() for one in answers]
    assert scores == [pytest.approx([score(float(value))], abs=1e-6) for value in range(100, 106)]


def test_a_stream_that_breaks_off_while_its_model_is_slow_leaves_nothing_behind(
    slow: Served, channel: grpc.Channel
) -> None:
    stream, kind = stub(channel, oip.schema(), oip.INFERENCE, "ModelStreamInfer")
    with concurrent.futures.ThreadPoolExecutor(2) as pool, busy(slow, pool):
        answers = stream(iter([oip_message(kind, [7.0, 8.0])]), timeout=60)
        wait_for(lambda: shown(slow, "mainspring_queue_rows") == 2)
        answers.cancel()
        wait_for(lambda: shown(slow, "mainspring_queue_rows") == 0)
    assert by_oip(channel, [1.0]) == pytest.approx([score(1.0)], abs=1e-6)
