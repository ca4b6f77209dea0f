"""OIP v2's model repository: what there is, loading and unloading; by the registry's names and by nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mainspring.protocols.bodies import decode_object
from mainspring.protocols.http import Fault, Request, Response, Router, json_response
from mainspring.serving.inference import ServedModels

__all__ = ["add_repository_index", "add_repository_routes", "check_load", "check_unload", "listed"]

_UNLOADING = frozenset({"unload_dependents"})


def add_repository_index(router: Router, models: ServedModels) -> None:
    """Serve the list of models, which changes nothing."""
    router.add("POST", "/v2/repository/index", _Index(models).repository_index)


def add_repository_routes(
    router: Router, models: ServedModels, may: Callable[[Request], None], run_blocking: Callable[..., Any]
) -> None:
    """Serve loading and unloading.

    Args:
        router: where the routes go.
        models: the models of this process.
        may: raises `Fault` for a request that may not manage.
        run_blocking: awaits a function run in a thread.
    """
    routes = _Routes(models, may, run_blocking)
    router.add("POST", "/v2/repository/models/*/load", routes.repository_load)
    router.add("POST", "/v2/repository/models/*/unload", routes.repository_unload)


def listed(models: ServedModels, only_ready: bool) -> list[dict[str, str]]:
    """Every model, or those that are ready."""
    found = []
    for name in models.known():
        served = models.get(name)
        if served is not None:
            found.append({"name": name, "version": served.version, "state": "READY", "reason": ""})
        elif not only_ready:
            found.append({"name": name, "version": "", "state": "UNAVAILABLE", "reason": "not loaded"})
    return found


def check_load(parameters: Iterable[str]) -> None:
    """Check the names of a load's parameters.

    Raises:
        Fault: 400, there is one.
    """
    if strange := next(iter(parameters), None):
        raise Fault(
            400,
            f"load takes no parameter {strange[:40]!r}: a model is loaded from the registry by its name, "
            "with the configuration that is recorded there",
        )


def check_unload(parameters: Iterable[str]) -> None:
    """Check the names of an unload's parameters.

    Raises:
        Fault: 400, there is one that is unknown.
    """
    if strange := next((name for name in parameters if name not in _UNLOADING), None):
        raise Fault(400, f"unload takes no parameter {strange[:40]!r}")


class _Index:
    def __init__(self, models: ServedModels) -> None:
        self._models = models

    async def repository_index(self, request: Request) -> Response:
        only_ready = _body(request).get("ready", False)
        if not isinstance(only_ready, bool):
            raise Fault(400, "ready is a boolean")
        return json_response(listed(self._models, only_ready))


class _Routes:
    def __init__(self, models: ServedModels, may: Callable[[Request], None], run_blocking: Callable[..., Any]) -> None:
        self._registry = models.registry
        self._may = may
        self._run = run_blocking

    async def repository_load(self, request: Request) -> Response:
        self._may(request)
        check_load(_parameters(request))
        (name,) = request.parameters
        await self._run(self._registry.load, name)
        return json_response({"name": name, "load": True})

    async def repository_unload(self, request: Request) -> Response:
        self._may(request)
        check_unload(_parameters(request))
        (name,) = request.parameters
        await self._run(self._registry.unload, name)
        return json_response({"name": name, "unload": True})


def _body(request: Request) -> dict[str, Any]:
    return decode_object(request.body, "{} or nothing") if request.body.strip() else {}


def _parameters(request: Request) -> Mapping[str, Any]:
    found = _body(request).get("parameters", {})
    if not isinstance(found, dict):
        raise Fault(400, "parameters is no object")
    return found
