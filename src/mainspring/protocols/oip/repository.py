"""OIP v2's model repository: what there is, loading and unloading; by the registry's names and by nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mainspring.protocols.bodies import decode_object
from mainspring.protocols.http import Fault, Request, Response, Router, json_response
from mainspring.serving.inference import ServedModels
from mainspring.serving.versions import State

__all__ = ["add_repository_index", "add_repository_routes", "check_load", "check_unload", "listed", "version_of"]

_VERSION = "version"
"""The parameter of a load and an unload that is of one version, beside the one that answers."""
_UNLOADING = frozenset({"unload_dependents", _VERSION})


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
    """Every version of every model, or those that are ready."""
    found = []
    for name in models.known():
        states = models.states(name)
        for known in states:
            if known.state is State.READY or not only_ready:
                state = {"version": known.version, "state": known.state.value, "reason": known.reason}
                found.append({"name": name, **state})
        if not states and not only_ready:
            found.append({"name": name, "version": "", "state": "UNAVAILABLE", "reason": "not loaded"})
    return found


def check_load(parameters: Iterable[str]) -> None:
    """Check the names of a load's parameters.

    Raises:
        Fault: 400, there is one but the version.
    """
    if strange := next((name for name in parameters if name != _VERSION), None):
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
        asked = _parameters(request)
        check_load(asked)
        (name,) = request.parameters
        await self._run(self._registry.load, name, version_of(asked))
        return json_response({"name": name, "load": True})

    async def repository_unload(self, request: Request) -> Response:
        self._may(request)
        asked = _parameters(request)
        check_unload(asked)
        (name,) = request.parameters
        await self._run(self._registry.unload, name, version_of(asked))
        return json_response({"name": name, "unload": True})


def version_of(asked: Mapping[str, Any]) -> str | None:
    """The version that the parameters of a load or an unload name; None is the one that answers.

    Raises:
        Fault: 400, it is no number.
    """
    found = asked.get(_VERSION)
    if found is not None and type(found) not in (str, int):
        raise Fault(400, "version is a version's number")
    return None if found is None else str(found)


def _body(request: Request) -> dict[str, Any]:
    return decode_object(request.body, "{} or nothing") if request.body.strip() else {}


def _parameters(request: Request) -> Mapping[str, Any]:
    found = _body(request).get("parameters", {})
    if not isinstance(found, dict):
        raise Fault(400, "parameters is no object")
    return found
