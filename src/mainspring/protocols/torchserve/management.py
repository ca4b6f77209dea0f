"""TorchServe's management: what there is for everybody; what changes it for who may. Models come by registry name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from mainspring.declare.batching import USUAL
from mainspring.protocols.bodies import decode_object, query_pairs
from mainspring.protocols.http import Fault, Request, Response, Router, json_response
from mainspring.protocols.torchserve.errors import torchserve_error
from mainspring.protocols.torchserve.inference import identified
from mainspring.serving.calls import Reason, Rejected
from mainspring.serving.inference import ServedModels
from mainspring.serving.residency import resident_bytes
from mainspring.serving.served import ServedModel

__all__ = [
    "TorchServeDescriptions",
    "TorchServeManagement",
    "add_torchserve_descriptions",
    "add_torchserve_management",
]

_TAKEN = frozenset(
    {
        "url", "model_name", "handler", "runtime", "batch_size", "max_batch_delay", "initial_workers", "synchronous",
        "response_timeout", "startup_timeout", "s3_sse_kms", "min_worker", "max_worker", "timeout", "number_gpu",
    }
)  # fmt: skip
_WORKERS = 1
"""The workers of a model: this process."""


def add_torchserve_descriptions(router: Router, models: ServedModels, process: int) -> None:
    """Serve what there is; it changes nothing.

    Args:
        router: where the routes go.
        models: the models of this process.
        process: its number.
    """
    routes = TorchServeDescriptions(models, process)
    router.add("GET", "/models", routes.torchserve_models, errors=torchserve_error, bears=identified)
    for pattern in ("/models/*", "/models/*/*"):
        router.add("GET", pattern, routes.torchserve_model, errors=torchserve_error, bears=identified)


def add_torchserve_management(
    router: Router, models: ServedModels, may: Callable[[Request], None], run_blocking: Callable[..., Any]
) -> None:
    """Serve what changes the models.

    Args:
        router: where the routes go.
        models: the models of this process.
        may: raises `Fault` for a request that may not manage.
        run_blocking: awaits a function run in a thread.
    """
    routes = TorchServeManagement(models, may, run_blocking)
    for method, pattern, handler in (
        ("POST", "/models", routes.torchserve_register),
        ("PUT", "/models/*", routes.torchserve_scale),
        ("PUT", "/models/*/*", routes.torchserve_scale),
        ("PUT", "/models/*/*/set-default", routes.torchserve_set_default),
        ("DELETE", "/models/*", routes.torchserve_unregister),
        ("DELETE", "/models/*/*", routes.torchserve_unregister),
    ):
        router.add(method, pattern, handler, errors=torchserve_error, bears=identified)


class TorchServeDescriptions:
    """What there is; `listed` and `described` raise faults that are in no wire's shape yet.

    Args:
        models: the models of this process.
        process: its number.
    """

    def __init__(self, models: ServedModels, process: int) -> None:
        self._models = models
        self._process = process

    async def torchserve_models(self, request: Request) -> Response:
        """Answer ``GET /models``."""
        return await self.listed(request)

    async def torchserve_model(self, request: Request) -> Response:
        """Answer ``GET /models/NAME``."""
        return await self.described(request)

    async def listed(self, request: Request) -> Response:
        """A page of the models."""
        query = dict(query_pairs(request))
        limit, start = _whole(query, "limit", 100), _whole(query, "next_page_token", 0)
        names = list(self._models.names())
        page = names[start : start + limit]
        found: dict[str, Any] = {"models": [{"modelName": name, "modelUrl": name} for name in page]}
        if start + limit < len(names):
            found["nextPageToken"] = str(start + limit)
        return json_response(found)

    async def described(self, request: Request) -> Response:
        """A model."""
        name, *version = request.parameters
        asked = None if version in ([], ["all"]) else version[0]
        served = self._models.find(name, asked)
        every = self._models.ready(name) if version == ["all"] else [served]
        return json_response([self._description(found) for found in every])

    def _description(self, served: ServedModel) -> Mapping[str, Any]:
        begun = datetime.fromtimestamp(self._models.created_s, UTC).isoformat(timespec="milliseconds")
        queue = served.live.batches
        limits = USUAL if queue is None else queue.limits
        waiting = 0 if queue is None else queue.waiting_rows
        started = begun.replace("+00:00", "Z")
        worker = {"id": "9000", "startTime": started, "status": "READY", "memoryUsage": resident_bytes()}
        return {
            "modelName": served.name,
            "modelVersion": served.version,
            "modelUrl": served.name,
            "runtime": served.backend,
            "minWorkers": _WORKERS,
            "maxWorkers": _WORKERS,
            "batchSize": limits.rows,
            "maxBatchDelay": limits.delay_us // 1000,
            "responseTimeout": 120,
            "loadedAtStartup": True,
            "workers": [worker | {"pid": self._process, "gpu": False}],
            "jobQueueStatus": {"remainingCapacity": limits.queue_rows - waiting, "pendingRequests": waiting},
        }


class TorchServeManagement:
    """What changes the models; `register` and its like raise faults that are in no wire's shape yet.

    Args:
        models: the models of this process.
        may: raises `Fault` for a request that may not manage.
        run_blocking: awaits a function run in a thread.
    """

    def __init__(self, models: ServedModels, may: Callable[[Request], None], run_blocking: Callable[..., Any]) -> None:
        self._models = models
        self._may = may
        self._run = run_blocking

    async def torchserve_register(self, request: Request) -> Response:
        """Answer ``POST /models``."""
        return await self.register(request)

    async def torchserve_scale(self, request: Request) -> Response:
        """Answer ``PUT /models/NAME``."""
        return await self.scale(request)

    async def torchserve_set_default(self, request: Request) -> Response:
        """Answer ``PUT /models/NAME/VERSION/set-default``."""
        return await self.set_default(request)

    async def torchserve_unregister(self, request: Request) -> Response:
        """Answer ``DELETE /models/NAME``."""
        return await self.unregister(request)

    async def register(self, request: Request) -> Response:
        """Load a model of the registry."""
        self._may(request)
        asked = _asked(request)
        url, name = asked.get("url", ""), asked.get("model_name", "")
        if not url:
            raise Fault(400, "url is the registry's name of a model")
        url, at, version = url.partition("@")
        if url not in self._models.registry.names():
            raise Fault(
                400, f"{url[:80]!r} is no model of the registry; models are loaded by name, from no URL or path"
            )
        if name not in ("", url):
            raise Fault(400, f"the model {url!r} cannot be served by another name")
        if asked.get("handler"):
            raise Fault(400, "a model's handler is recorded in the registry; a request brings none")
        workers = _whole(asked, "initial_workers", 0)
        if any(not at or served.version == version for served in self._models.ready(url)):
            raise Fault(409, f"model {url!r} is already registered")
        await self._run(self._models.registry.load, url, version if at else None)
        version = version if at else self._models.find(url).version
        return json_response({"status": f'Model "{url}" Version: {version} registered with {workers} initial workers'})

    async def scale(self, request: Request) -> Response:
        """Workers are this process: none unloads a model, one or more loads it."""
        self._may(request)
        name, *version = request.parameters
        asked = _asked(request)
        least = _whole(asked, "min_worker", 1)
        most = _whole(asked, "max_worker", max(least, 1) if least else 0)
        if most < least:
            raise Fault(400, "max_worker is less than min_worker")
        if most == 0:
            await self._unload(name, version)
        else:
            there = [served.version for served in self._models.ready(name)]
            if not there or (version and version[0] not in there):
                await self._run(self._models.registry.load, name, *version)
            self._models.find(name, version[0] if version else None)
        workers = _WORKERS if most else 0
        done = asked.get("synchronous", "false").lower() == "true"
        told = f"Workers scaled to {workers} for model: {name}" if done else "Processing worker updates..."
        return json_response({"status": told}, 200 if done else 202)

    async def set_default(self, request: Request) -> Response:
        """Check that a version is the one that answers."""
        self._may(request)
        name, version = request.parameters
        await self._run(self._models.registry.label, name, "stable", version)
        told = f'Default version successfully updated for model "{name}" to "{version}"'
        return json_response({"status": told})

    async def unregister(self, request: Request) -> Response:
        """Unload a model."""
        self._may(request)
        name, *version = request.parameters
        if self._models.get(name) is None:
            raise Rejected(Reason.NO_MODEL, f"Model not found: {name}")
        await self._unload(name, version)
        return json_response({"status": f'Model "{name}" unregistered'})

    async def _unload(self, name: str, version: Sequence[str]) -> None:
        """Unload a version, or with the only one the model."""
        self._models.find(name, version[0] if version else None)
        one = [] if len(self._models.ready(name)) == 1 else version
        await self._run(self._models.registry.unload, name, *one)


def _asked(request: Request) -> Mapping[str, str]:
    """The fields of the query, and of a body in JSON.

    Raises:
        Fault: 400, one is unknown, or no text, number or boolean.
    """
    found = dict(query_pairs(request))
    if request.body.lstrip()[:1] == b"{":
        for name, value in decode_object(request.body, "{..}").items():
            if type(value) not in (str, int, float, bool):
                raise Fault(400, f"{name[:40]!r} is no text, number or boolean")
            found[name] = str(value)
    if strange := next((name for name in found if name not in _TAKEN), None):
        raise Fault(400, f"there is no parameter {strange[:40]!r}")
    return found


def _whole(asked: Mapping[str, str], name: str, default: int) -> int:
    text = asked.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise Fault(400, f"{name} is a whole number")
    return int(text)
