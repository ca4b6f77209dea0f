"""KServe's v1 list and status of models, in one answer with OpenAI's and TensorFlow Serving's on the same paths."""

from __future__ import annotations

from typing import Any

import orjson

from mainspring.protocols.http import Fault, Request, Response, Route, Router, json_response
from mainspring.protocols.tfserving.rest import version_status
from mainspring.serving.inference import ServedModels

__all__ = ["add_alive_route", "add_v1_models"]


def add_alive_route(router: Router, *, azure: bool) -> None:
    """Serve ``/``: KServe's liveness, or Azure ML's where the process runs as its container."""

    async def alive(request: Request) -> Response:
        return Response(200, b"Healthy", b"text/plain; charset=utf-8") if azure else json_response({"status": "alive"})

    router.add("GET", "/", alive)


def add_v1_models(router: Router, models: ServedModels, beside: Router) -> None:
    """Serve the list of models, and the status of each.

    Args:
        router: where the routes go.
        models: the models of this process.
        beside: the routes of language models, which are in the same list.
    """
    routes = _Routes(models, beside)
    router.add("GET", "/v1/models", routes.models, any_case=True)
    router.add("GET", "/v1/models/*", routes.model, any_case=True)


class _Routes:
    def __init__(self, models: ServedModels, beside: Router) -> None:
        self._models = models
        self._beside = beside

    async def models(self, request: Request) -> Response:
        names = list(self._models.names())
        otherwise = self._otherwise(b"/v1/models")
        listed: dict[str, Any] = {"object": "list", "data": []}
        if otherwise is not None:
            answer = await self._asked(otherwise, request)
            if answer.status != 200:
                return answer
            listed = orjson.loads(answer.body)
        listed["data"] += [self._item(name) for name in names]
        return json_response(listed | {"models": names})

    async def model(self, request: Request) -> Response:
        (name,) = request.parameters
        if name not in self._models.known():
            otherwise = self._otherwise(b"/v1/models/x")
            if otherwise is not None:
                return await self._asked(otherwise, request)
            self._models.find(name)
        served = self._models.get(name)
        versions = [version_status(state) for state in self._models.states(name)]
        ready = {"name": name, "ready": served is not None, "model_version_status": versions}
        return json_response(self._item(name) | ready, 503 if served is None else 200)

    def _item(self, name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": self._models.created_s, "owned_by": "mainspring-model"}

    def _otherwise(self, path: bytes) -> Route | None:
        try:
            return self._beside.route("GET", path)[0]
        except Fault:
            return None

    async def _asked(self, route: Route, request: Request) -> Response:
        """What a route of language models answers, its faults in their own shape."""
        try:
            return await route.handler(request)
        except Exception as error:
            if not route.long:
                raise
            return route.errors(error)
