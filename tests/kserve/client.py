"""Asks a server with KServe's own clients, over REST (v1 and v2) and gRPC, in a process of its own.

Usage: ``python client.py URL GRPC_HOST:PORT MODEL COLUMNS``; prints what it was answered as JSON. Its packages are
those of ``requirements.lock`` beside it, on the path before the tests' own.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Sequence

import httpx
import numpy as np
from kserve.protocol.grpc.grpc_predict_v2_pb2 import ModelInferRequest
from kserve.protocol.infer_type import InferResponse, RequestedOutput

from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig


def exactly(values: Sequence[float]) -> list[str]:
    return [float(value).hex() for value in values]


def request(model: str, matrix: np.ndarray, name: str, *, binary: bool) -> InferRequest:
    tensor = InferInput("input", list(matrix.shape), "FP32")
    tensor.set_data_from_numpy(matrix, binary_data=binary)
    output = RequestedOutput("score", {"binary_data": binary})
    return InferRequest(model, [tensor], request_id=name, request_outputs=[output])


def scores(answer: InferResponse) -> list[str]:
    return exactly(answer.outputs[0].as_numpy().ravel())


async def refused(ask: Callable[[], Awaitable[object]]) -> list[object]:
    """The status and the text of a call that fails."""
    try:
        await ask()
    except httpx.HTTPStatusError as error:
        return [error.response.status_code, str(error)]
    raise AssertionError("it was answered")


async def over_rest(url: str, model: str, matrix: np.ndarray) -> dict[str, object]:
    first, second = InferenceRESTClient(RESTConfig(protocol="v1")), InferenceRESTClient(RESTConfig(protocol="v2"))
    answers = {
        "json": await second.infer(url, request(model, matrix, "json", binary=False), model),
        "binary": await second.infer(url, request(model, matrix, "binary", binary=True), model),
    }
    found: dict[str, object] = {name: scores(answer) for name, answer in answers.items()}
    found["ids"] = [answer.id for answer in answers.values()]
    found["v1"] = exactly((await first.infer(url, {"instances": matrix.tolist()}, model))["predictions"])
    found["live"] = [await first.is_server_live(url), await second.is_server_live(url)]
    found["ready"] = await second.is_server_ready(url)
    found["model ready"] = [await first.is_model_ready(url, model), await second.is_model_ready(url, model)]
    found["unknown"] = await refused(lambda: second.infer(url, request("nobody", matrix, "x", binary=True), "nobody"))
    found["unknown v1"] = await refused(lambda: first.infer(url, {"instances": [[1.0]]}, "nobody"))
    await first.close()
    await second.close()
    return found


async def over_grpc(address: str, model: str, matrix: np.ndarray) -> dict[str, object]:
    async with InferenceGRPCClient(address) as client:
        answer = await client.infer(request(model, matrix, "grpc", binary=True))
        typed = await client.infer(request(model, matrix, "grpc", binary=False))
        # As the published stub is asked without the client's own classes.
        plain = await client.infer(InferRequest.from_grpc(ModelInferRequest.FromString(answer_of(model, matrix))))
        return {
            "grpc": scores(answer),
            "grpc typed": scores(typed),
            "grpc message": scores(plain),
            "grpc id": answer.id,
            "grpc live": await client.is_server_live(),
            "grpc ready": await client.is_server_ready(),
            "grpc model ready": await client.is_model_ready(model),
        }


def answer_of(model: str, matrix: np.ndarray) -> bytes:
    """A request as bytes, as any client of the published message would send it."""
    return bytes(request(model, matrix, "message", binary=True).to_grpc().SerializeToString())


async def main(url: str, address: str, model: str, columns: int) -> None:
    matrix = np.random.default_rng(5).normal(size=(32, columns)).astype("float32")
    found = await over_rest(url, model, matrix) | await over_grpc(address, model, matrix)
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
