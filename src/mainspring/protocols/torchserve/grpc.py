"""TorchServe over gRPC: inference and management, with what the routes of HTTP do."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec
import orjson

from mainspring.protocols.bodies import id_headers
from mainspring.protocols.grpc.faults import status_of
from mainspring.protocols.grpc.service import GrpcAsking, GrpcCall, GrpcService
from mainspring.protocols.http import Fault, Request, Response
from mainspring.protocols.payloads.body import JSON, write_body
from mainspring.protocols.torchserve.inference import DATA, read_parts
from mainspring.protocols.torchserve.management import TorchServeDescriptions, TorchServeManagement
from mainspring.protocols.torchserve.messages import INFERENCE, MANAGEMENT, schema
from mainspring.serving.calls import Call, Rejected
from mainspring.serving.inference import ServedModels

__all__ = ["torchserve_services"]

PROTOCOL = "torchserve_grpc"
_CHANGES = frozenset({"RegisterModel", "ScaleWorker", "SetDefault", "UnregisterModel"})
_NUMBERS: Mapping[str, int] = {
    "CANCELLED": 1, "INVALID_ARGUMENT": 3, "DEADLINE_EXCEEDED": 4, "NOT_FOUND": 5, "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7, "RESOURCE_EXHAUSTED": 8, "UNIMPLEMENTED": 12, "INTERNAL": 13, "UNAVAILABLE": 14,
    "UNAUTHENTICATED": 16,
}  # fmt: skip
"""The codes as google.rpc.Status numbers them."""


def torchserve_services(
    models: ServedModels,
    ready: Callable[[], bool],
    process: int,
    may: Callable[[Request], None],
    run_blocking: Callable[..., Awaitable[Any]],
    told: Callable[[Exception], object],
) -> tuple[GrpcService, ...]:
    """Both services.

    Args:
        models: the models of this process.
        ready: whether every required model is warm.
        process: its number.
        may: raises `Fault` for a call that may not manage.
        run_blocking: awaits a function run in a thread.
        told: told of faults of ours that are answered inside of a stream.
    """
    inference, management = _Inference(models, ready, told), _Management(models, process, may, run_blocking)
    return (
        GrpcService(
            INFERENCE,
            schema(),
            {
                "Ping": inference.ping,
                "Predictions": inference.predictions,
                "StreamPredictions": inference.stream_predictions,
                "StreamPredictions2": inference.stream_predictions_2,
            },
        ),
        GrpcService(
            MANAGEMENT,
            schema(),
            {
                "DescribeModel": management.describe,
                "ListModels": management.list_models,
                "RegisterModel": management.register,
                "ScaleWorker": management.scale,
                "SetDefault": management.set_default,
                "UnregisterModel": management.unregister,
            },
            _CHANGES,
        ),
    )


class _Inference:
    def __init__(self, models: ServedModels, ready: Callable[[], bool], told: Callable[[Exception], object]) -> None:
        self._models = models
        self._ready = ready
        self._told = told
        self._answer = schema().message("org.pytorch.serve.grpc.inference.PredictionResponse")
        self._health = schema().message("org.pytorch.serve.grpc.inference.TorchServeHealthResponse")

    async def ping(self, asked: Any, call: GrpcCall) -> Any:
        return self._health(health="Healthy" if self._ready() else "Unhealthy")

    async def predictions(self, asked: Any, call: GrpcCall) -> Any:
        begun = time.perf_counter_ns()
        version = asked.model_version
        if version and not version.isdigit():
            served = self._models.find(asked.model_name, label=version, protocol=PROTOCOL)
        else:
            served = self._models.find(
                asked.model_name, version or None, asking=GrpcAsking(call, asked), protocol=PROTOCOL
            )
        parts = [(data, JSON) for name, data in sorted(asked.input.items()) if name.startswith(DATA)]
        inputs = read_parts(parts, served, self._models.max_rows)
        decode_ns = time.perf_counter_ns() - begun
        question = Call(
            served.name,
            inputs,
            PROTOCOL,
            served.version if version else None,
            deadline=call.deadline,
            decode_ns=decode_ns,
        )
        answer = await self._models.infer(question, served)
        if answer.ids:
            call.identified(id_headers(answer.ids))
        body = write_body(answer, JSON, lambda scores: scores)
        return self._answer(prediction=body, sequence_id=asked.sequence_id)

    async def stream_predictions(self, asked: Any, call: GrpcCall) -> AsyncIterator[Any]:
        """A model has one answer, which is a stream of one."""
        yield await self.predictions(asked, call)

    async def stream_predictions_2(self, asked: AsyncIterator[Any], call: GrpcCall) -> AsyncIterator[Any]:
        """One answer a request; a request that fails is answered with its status, and the stream goes on."""
        async for message in asked:
            try:
                yield await self.predictions(message, call)
            except Exception as error:
                code, text, _ = status_of(error)
                if not isinstance(error, (Fault, Rejected)):
                    self._told(error)
                status = {"code": _NUMBERS[code], "message": text}
                yield self._answer(sequence_id=message.sequence_id, status=status)


class _Management:
    """The routes of HTTP, asked with a message's fields."""

    def __init__(
        self,
        models: ServedModels,
        process: int,
        may: Callable[[Request], None],
        run_blocking: Callable[..., Awaitable[Any]],
    ) -> None:
        self._descriptions = TorchServeDescriptions(models, process)
        self._management = TorchServeManagement(models, may, run_blocking)

    async def describe(self, asked: Any, call: GrpcCall) -> Any:
        return _described(await self._descriptions.described(_request(call, asked, named=True)))

    async def list_models(self, asked: Any, call: GrpcCall) -> Any:
        return _described(await self._descriptions.listed(_request(call, asked, named=False)))

    async def register(self, asked: Any, call: GrpcCall) -> Any:
        return _told(await self._management.register(_request(call, asked, named=False)))

    async def scale(self, asked: Any, call: GrpcCall) -> Any:
        return _told(await self._management.scale(_request(call, asked, named=True)))

    async def set_default(self, asked: Any, call: GrpcCall) -> Any:
        if not asked.model_version:
            raise Fault(400, "model_version is the version that is to be the default")
        return _told(await self._management.set_default(_request(call, asked, named=True)))

    async def unregister(self, asked: Any, call: GrpcCall) -> Any:
        return _told(await self._management.unregister(_request(call, asked, named=True)))


def _request(call: GrpcCall, asked: Any, *, named: bool) -> Request:
    """A call as the request of HTTP that says the same; a field without a value is left out.

    Args:
        call: whose metadata goes along.
        asked: the message.
        named: whether the model's name and version are in the path.
    """
    fields = {field.name: value for field, value in asked.ListFields()}
    path: tuple[str, ...] = ()
    if named:
        name, version = fields.pop("model_name", ""), fields.pop("model_version", "")
        path = (name, version) if version else (name,)
    fields.pop("customized", None)
    query = urlencode({name: str(value).lower() if value is True else value for name, value in fields.items()})
    return msgspec.structs.replace(call.request, query=query.encode(), parameters=path)


@functools.cache
def _answer() -> Any:
    return schema().message("org.pytorch.serve.grpc.management.ManagementResponse")


def _described(response: Response) -> Any:
    """A description, which is JSON."""
    return _answer()(msg=response.body.decode())


def _told(response: Response) -> Any:
    """What has been done, in words."""
    return _answer()(msg=orjson.loads(response.body)["status"])
