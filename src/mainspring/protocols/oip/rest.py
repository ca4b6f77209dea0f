"""OIP v2 over REST: health, metadata, infer, statistics, configuration and the model repository."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mainspring.protocols.bodies import coded, decoded, is_small
from mainspring.protocols.http import Fault, Request, Response, Router, json_response
from mainspring.protocols.oip.infer import PREDICTION_IDS, read_call, read_raw_call, write_answer
from mainspring.serving.calls import Tensor
from mainspring.serving.inference import ServedModels
from mainspring.serving.served import ServedModel
from mainspring.serving.statistics import Spent

__all__ = [
    "EXTENSIONS",
    "HEADER_LENGTH",
    "PREDICTION_IDS",
    "add_health_routes",
    "add_oip_routes",
    "answer_infer",
    "binary_length",
    "configured",
    "counted",
    "described",
]

EXTENSIONS = (
    "binary_tensor_data",
    "model_repository",
    "statistics",
    "model_configuration",
    "schedule_policy",
    "parameters",
)
HEADER_LENGTH = b"inference-header-content-length"
_BINARY = b"application/octet-stream"


def add_health_routes(router: Router, ready: Callable[[], bool]) -> None:
    """Serve liveness and readiness, which everybody asks for, whatever models are served by.

    Args:
        router: where the routes go.
        ready: whether every required model is warm.
    """
    routes = _Health(ready)
    router.add("GET", "/v2/health/live", routes.live)
    router.add("GET", "/v2/health/ready", routes.server_ready)


def add_oip_routes(router: Router, models: ServedModels, server: tuple[str, str], max_body: int) -> None:
    """Serve OIP v2 on a router; health, loading and unloading have routes of their own.

    Args:
        router: where the routes go.
        models: the models of this process.
        server: the server's name and version.
        max_body: greatest body in bytes, inflated.
    """
    routes = _Routes(models, server)
    router.add("GET", "/v2", routes.server_metadata)
    router.add("GET", "/v2/models", routes.model_names)
    router.add("GET", "/v2/models/stats", routes.all_statistics)
    infer = coded(routes.infer, max_body)
    for prefix in ("/v2/models/*", "/v2/models/*/versions/*"):
        router.add("GET", prefix, routes.model_metadata)
        router.add("GET", f"{prefix}/ready", routes.model_ready)
        router.add("GET", f"{prefix}/config", routes.model_config)
        router.add("GET", f"{prefix}/stats", routes.model_statistics)
        router.add("POST", f"{prefix}/infer", infer, asks=True)


async def answer_infer(
    models: ServedModels, served: ServedModel, version: str | None, body: bytes, length: int | None, protocol: str
) -> tuple[bytes, int | None]:
    """Answer an inference request: the body of the answer, and how much of it is JSON; None when all of it is.

    Raises:
        Fault: 400.
        Rejected: as `ServedModels.infer` raises.
    """
    if length == 0:
        asked = read_raw_call(body, served, version, protocol)
    else:
        arguments = body, length, served, version, protocol, models.max_rows
        size = len(body)
        asked = read_call(*arguments) if is_small(size) else await decoded(size, read_call, *arguments)
    return write_answer(asked, await models.infer(asked.call, served))


def binary_length(text: bytes | None) -> int | None:
    """How much of a body is JSON, by its header.

    Raises:
        Fault: 400, the header is no number.
    """
    if text is None:
        return None
    if not text.isdigit() or len(text) > 18:
        raise Fault(400, f"the length of the JSON is no number of bytes: {text[:40].decode('latin-1')!r}")
    return int(text)


class _Health:
    def __init__(self, ready: Callable[[], bool]) -> None:
        self._ready = ready

    async def live(self, request: Request) -> Response:
        return json_response({"live": True})

    async def server_ready(self, request: Request) -> Response:
        ready = self._ready()
        return json_response({"ready": ready, "live": True}, 200 if ready else 503)


class _Routes:
    def __init__(self, models: ServedModels, server: tuple[str, str]) -> None:
        self._models = models
        self._server = server

    async def server_metadata(self, request: Request) -> Response:
        name, version = self._server
        return json_response({"name": name, "version": version, "extensions": list(EXTENSIONS)})

    async def model_names(self, request: Request) -> Response:
        return json_response({"models": list(self._models.names())})

    async def model_ready(self, request: Request) -> Response:
        return json_response({"name": self._find(request)[0].name, "ready": True})

    async def model_metadata(self, request: Request) -> Response:
        model, _ = self._find(request)
        return json_response(described(model, self._models.ready(model.name)))

    async def model_config(self, request: Request) -> Response:
        return json_response(configured(self._find(request)[0], self._models.max_rows))

    async def model_statistics(self, request: Request) -> Response:
        return json_response({"model_stats": [counted(self._find(request)[0])]})

    async def all_statistics(self, request: Request) -> Response:
        found = [model for name in self._models.names() for model in reversed(self._models.ready(name))]
        return json_response({"model_stats": [counted(model) for model in found]})

    async def infer(self, request: Request) -> Response:
        served, version = self._find(request, request, "oip")
        length = binary_length(request.headers.get(HEADER_LENGTH))
        body, head = await answer_infer(self._models, served, version, request.body, length, "oip")
        if head is None:
            return Response(200, body)
        return Response(200, body, _BINARY, ((HEADER_LENGTH, b"%d" % head),))

    def _find(
        self, request: Request, asking: Request | None = None, protocol: str = ""
    ) -> tuple[ServedModel, str | None]:
        """Who answers a path, whose version may be a number or a label, and the version."""
        name, *version = request.parameters
        if not version:
            return self._models.find(name, asking=asking, protocol=protocol), None
        if version[0].isdigit():
            return self._models.find(name, version[0], protocol=protocol), version[0]
        served = self._models.find(name, label=version[0], protocol=protocol)
        return served, served.version


def described(model: ServedModel, ready: Sequence[ServedModel]) -> dict[str, Any]:
    """A model's metadata.

    Args:
        model: the version that is asked for.
        ready: all that are ready, the oldest last.
    """
    return {
        "name": model.name,
        "versions": [found.version for found in reversed(ready)],
        "platform": model.platform,
        "inputs": [_described_tensor(tensor) for tensor in model.inputs],
        "outputs": [_described_tensor(tensor) for tensor in model.outputs],
    }


def _described_tensor(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def configured(model: ServedModel, max_rows: int) -> dict[str, Any]:
    """A model as Triton configures one; its batch is as large as a request may be."""
    return {
        "name": model.name,
        "platform": model.platform,
        "backend": model.backend,
        "max_batch_size": max_rows,
        "input": [_configured_tensor(tensor) for tensor in model.inputs],
        "output": [_configured_tensor(tensor) for tensor in model.outputs],
    }


def _configured_tensor(tensor: Tensor) -> dict[str, Any]:
    """A tensor of Triton's configuration: without the rows, and never without a dimension."""
    kind = "STRING" if tensor.datatype == "BYTES" else tensor.datatype
    found: dict[str, Any] = {"name": tensor.name, "data_type": f"TYPE_{kind}", "dims": list(tensor.shape[1:]) or [1]}
    if not tensor.shape[1:]:
        found["reshape"] = {"shape": []}
    return found


def counted(model: ServedModel) -> dict[str, Any]:
    """What a model has done, as ModelStatistics."""
    counts = model.statistics
    nothing = {"count": 0, "ns": 0}
    return {
        "name": model.name,
        "version": model.version,
        "last_inference": counts.last_ms,
        "inference_count": counts.rows,
        "execution_count": counts.batches,
        "inference_stats": {
            "success": _spent(counts.success),
            "fail": _spent(counts.fail),
            "queue": _spent(counts.queue),
            "compute_input": _spent(counts.times.compute_input),
            "compute_infer": _spent(counts.times.compute_infer),
            "compute_output": _spent(counts.times.compute_output),
            "cache_hit": nothing,
            "cache_miss": nothing,
        },
        "batch_stats": [
            {
                "batch_size": size,
                "compute_input": _spent(times.compute_input),
                "compute_infer": _spent(times.compute_infer),
                "compute_output": _spent(times.compute_output),
            }
            for size, times in sorted(counts.sizes.items())
        ],
    }


def _spent(spent: Spent) -> dict[str, int]:
    return {"count": spent.count, "ns": spent.ns}
