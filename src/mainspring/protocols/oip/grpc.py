"""OIP v2 over gRPC: Triton's service with KServe's fields, and MLServer's model repository."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from mainspring.protocols.grpc.faults import status_of
from mainspring.protocols.grpc.service import GrpcAsking, GrpcCall, GrpcService
from mainspring.protocols.http import Fault, Request
from mainspring.protocols.oip.grpc_infer import parameter, read_infer, write_infer
from mainspring.protocols.oip.messages import INFERENCE, REPOSITORY, schema
from mainspring.protocols.oip.repository import check_load, check_unload, listed, version_of
from mainspring.protocols.oip.rest import EXTENSIONS, configured, counted, described
from mainspring.serving.calls import Reason, Rejected
from mainspring.serving.inference import ServedModels
from mainspring.serving.served import ServedModel

__all__ = ["OPEN", "oip_services"]

OPEN = frozenset({f"/{INFERENCE}/ServerLive", f"/{INFERENCE}/ServerReady"})
"""The paths that everybody may ask, as those of health over HTTP."""
PROTOCOL = "oip_grpc"
_CHANGES = frozenset({"RepositoryModelLoad", "RepositoryModelUnload"})
_FINAL = "triton_enable_empty_final_response"
"""Triton's streaming client asks by this parameter which answer is a request's last one."""


def oip_services(
    models: ServedModels,
    server: tuple[str, str],
    ready: Callable[[], bool],
    may: Callable[[Request], None],
    run_blocking: Callable[..., Awaitable[Any]],
    told: Callable[[Exception], object],
) -> tuple[GrpcService, ...]:
    """The services.

    Args:
        models: the models of this process.
        server: its name and version.
        ready: whether every required model is warm.
        may: raises `Fault` for a call that may not manage.
        run_blocking: awaits a function run in a thread.
        told: told of faults of ours that are answered inside of a stream.
    """
    service = _Service(models, server, ready, told)
    repository = _Repository(models, may, run_blocking)
    inference = {
        "ServerLive": service.server_live,
        "ServerReady": service.server_ready,
        "ModelReady": service.model_ready,
        "ServerMetadata": service.server_metadata,
        "ModelMetadata": service.model_metadata,
        "ModelInfer": service.infer,
        "ModelStreamInfer": service.model_stream_infer,
        "ModelConfig": service.model_config,
        "ModelStatistics": service.model_statistics,
        "RepositoryIndex": repository.index("inference"),
        "RepositoryModelLoad": repository.load,
        "RepositoryModelUnload": repository.unload,
    }
    managed = {
        "RepositoryIndex": repository.index("inference.model_repository"),
        "RepositoryModelLoad": repository.load_plainly,
        "RepositoryModelUnload": repository.unload_plainly,
    }
    return (
        GrpcService(INFERENCE, schema(), inference, _CHANGES),
        GrpcService(REPOSITORY, schema(), managed, _CHANGES),
    )


class _Service:
    def __init__(
        self,
        models: ServedModels,
        server: tuple[str, str],
        ready: Callable[[], bool],
        told: Callable[[Exception], object],
    ) -> None:
        self._models = models
        self._server = server
        self._ready = ready
        self._told = told
        self._stream_answer = _message("ModelStreamInferResponse")
        self._answers = {
            name: _message(f"{name}Response")
            for name in ("ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelConfig")
        }
        self._statistics = _message("ModelStatisticsResponse")

    async def server_live(self, asked: Any, call: GrpcCall) -> Any:
        return self._answers["ServerLive"](live=True)

    async def server_ready(self, asked: Any, call: GrpcCall) -> Any:
        return self._answers["ServerReady"](ready=self._ready())

    async def model_ready(self, asked: Any, call: GrpcCall) -> Any:
        """A model that is known and not loaded is not ready; of an unknown one there is nothing to say."""
        try:
            self._find(asked)
        except Rejected as error:
            if error.reason is not Reason.NOT_READY:
                raise
            return self._answers["ModelReady"](ready=False)
        return self._answers["ModelReady"](ready=True)

    async def server_metadata(self, asked: Any, call: GrpcCall) -> Any:
        name, version = self._server
        return self._answers["ServerMetadata"](name=name, version=version, extensions=EXTENSIONS)

    async def model_metadata(self, asked: Any, call: GrpcCall) -> Any:
        model = self._find(asked)
        return self._answers["ModelMetadata"](**described(model, self._models.ready(model.name)))

    async def model_config(self, asked: Any, call: GrpcCall) -> Any:
        return self._answers["ModelConfig"](config=configured(self._find(asked), self._models.max_rows))

    async def model_statistics(self, asked: Any, call: GrpcCall) -> Any:
        """Of one model, or of all where none is named."""
        if asked.name:
            found = [self._find(asked)]
        else:
            found = [model for name in self._models.names() for model in reversed(self._models.ready(name))]
        return self._statistics(model_stats=[counted(model) for model in found])

    async def model_stream_infer(self, asked: AsyncIterator[Any], call: GrpcCall) -> AsyncIterator[Any]:
        """One answer a request, in their order; a request that fails is answered so, and the stream goes on."""
        async for message in asked:
            try:
                answer = await self.infer(message, call)
            except Exception as error:
                _, text, _ = status_of(error)
                if not isinstance(error, (Fault, Rejected)):
                    self._told(error)
                failed = self._stream_answer(error_message=text)
                failed.infer_response.id = message.id
                failed.infer_response.model_name = message.model_name
                yield failed
                continue
            if message.parameters and parameter(message.parameters, _FINAL) is True:
                answer.parameters["triton_final_response"].bool_param = True
            yield self._stream_answer(infer_response=answer)

    async def infer(self, asked: Any, call: GrpcCall) -> Any:
        begun = time.perf_counter_ns()
        version = asked.model_version
        served = _named(self._models, asked.model_name, version, GrpcAsking(call, asked), PROTOCOL)
        number = served.version if version else None
        question = read_infer(asked, served, number, PROTOCOL, self._models.max_rows, call.deadline, begun)
        return write_infer(await self._models.infer(question, served), asked.id, raw=bool(asked.raw_input_contents))

    def _find(self, asked: Any) -> ServedModel:
        return _named(self._models, asked.name, asked.version)


class _Repository:
    def __init__(
        self, models: ServedModels, may: Callable[[Request], None], run_blocking: Callable[..., Awaitable[Any]]
    ) -> None:
        self._models = models
        self._may = may
        self._run = run_blocking
        self._loaded = _message("RepositoryModelLoadResponse")
        self._unloaded = _message("RepositoryModelUnloadResponse")

    def index(self, package: str) -> Callable[[Any, GrpcCall], Awaitable[Any]]:
        answer = schema().message(f"{package}.RepositoryIndexResponse")

        async def index(asked: Any, call: GrpcCall) -> Any:
            return answer(models=listed(self._models, asked.ready))

        return index

    async def load(self, asked: Any, call: GrpcCall) -> Any:
        self._may(call.request)
        parameters = _values(asked.parameters)
        check_load(parameters)
        name = asked.model_name or asked.repository_name
        await self._run(self._models.registry.load, name, version_of(parameters))
        return self._loaded(model_name=name, isLoaded=True)

    async def unload(self, asked: Any, call: GrpcCall) -> Any:
        self._may(call.request)
        parameters = _values(asked.parameters)
        check_unload(parameters)
        name = asked.model_name or asked.repository_name
        await self._run(self._models.registry.unload, name, version_of(parameters))
        return self._unloaded(model_name=name, isUnloaded=True)

    async def load_plainly(self, asked: Any, call: GrpcCall) -> Any:
        self._may(call.request)
        await self._run(self._models.registry.load, asked.model_name)
        return schema().message("inference.model_repository.RepositoryModelLoadResponse")()

    async def unload_plainly(self, asked: Any, call: GrpcCall) -> Any:
        self._may(call.request)
        await self._run(self._models.registry.unload, asked.model_name)
        return schema().message("inference.model_repository.RepositoryModelUnloadResponse")()


def _named(
    models: ServedModels, name: str, version: str, asking: GrpcAsking | None = None, protocol: str = ""
) -> ServedModel:
    """Who answers: a version by its number or its label; without one whom the caller's key leads to."""
    if not version:
        return models.find(name, asking=asking, protocol=protocol)
    if version.isdigit():
        return models.find(name, version, protocol=protocol)
    return models.find(name, label=version, protocol=protocol)


def _message(name: str) -> Any:
    return schema().message(f"inference.{name}")


def _values(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of a load's or an unload's parameters, None for one without."""
    found = {}
    for name, value in parameters.items():
        kind = value.WhichOneof("parameter_choice")
        found[name] = None if kind is None else getattr(value, kind)
    return found
