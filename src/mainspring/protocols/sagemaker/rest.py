"""SageMaker's container: ``/ping`` and ``/invocations``, with many models by a setting of the platform's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from mainspring.protocols.bodies import coded, decode_object, query_pairs
from mainspring.protocols.http import Fault, Request, Response, Router, json_response
from mainspring.protocols.payloads.answer import answer_payload
from mainspring.protocols.torchserve.inference import identified
from mainspring.serving.inference import ServedModels
from mainspring.serving.served import ServedModel

__all__ = ["FolderLoader", "add_multi_model_routes", "add_ping_route", "add_sagemaker_routes"]

_ATTRIBUTES = b"x-amzn-sagemaker-custom-attributes"
_MOST_ATTRIBUTES = 1024


class FolderLoader(Protocol):
    """Loads a model from a folder that the platform has put there."""

    def load_folder(self, name: str, folder: Path) -> None:
        """Load it and let it answer by a name.

        Raises:
            Rejected: INVALID, there is no model of ours in the folder; CONFLICT, the name is the app's own.
        """

    def unload_folder(self, name: str) -> None:
        """Let it answer no more."""


def add_ping_route(router: Router, ready: Callable[[], bool]) -> None:
    """Serve ``/ping``, which is SageMaker's and TorchServe's."""

    async def ping(request: Request) -> Response:
        able = ready()
        return json_response({"status": "Healthy" if able else "Unhealthy"}, 200 if able else 500)

    router.add("GET", "/ping", ping, bears=identified)


def add_sagemaker_routes(router: Router, models: ServedModels, protocol: str, max_body: int) -> None:
    """Serve ``/invocations``; ``?model_name=`` chooses a model, as TorchServe's clients do.

    Args:
        router: where the routes go.
        models: the models of this process.
        protocol: the wire, for metrics.
        max_body: greatest body in bytes, inflated.
    """

    async def invocations(request: Request) -> Response:
        name = dict(query_pairs(request)).get("model_name")
        return await _answered(models, models.chosen(name, request, protocol), request, protocol)

    router.add("POST", "/invocations", coded(invocations, max_body), asks=True)


async def _answered(models: ServedModels, served: ServedModel, request: Request, protocol: str) -> Response:
    response = await answer_payload(models, served, request, protocol)
    attributes = request.headers.get(_ATTRIBUTES)
    if not attributes or len(attributes) > _MOST_ATTRIBUTES:
        return response
    return msgspec.structs.replace(response, headers=(*response.headers, (_ATTRIBUTES, attributes)))


def add_multi_model_routes(
    router: Router,
    models: ServedModels,
    loader: FolderLoader,
    run_blocking: Callable[..., Any],
    max_body: int,
    root: Path,
) -> None:
    """Serve loading, unloading and asking many models, as the platform does it; only where it says that it will.

    Args:
        router: where the routes go; they must be there before TorchServe's.
        models: the models of this process.
        loader: loads folders.
        run_blocking: awaits a function run in a thread.
        max_body: greatest body in bytes, inflated.
        root: the folder that the platform puts models in; nothing outside of it is ever read.
    """
    routes = _MultiModel(models, loader, run_blocking, root)
    router.add("POST", "/models", routes.load)
    router.add("GET", "/models", routes.listed)
    router.add("GET", "/models/*", routes.described)
    router.add("DELETE", "/models/*", routes.unload)
    router.add("POST", "/models/*/invoke", coded(routes.invoke, max_body), asks=True)


class _MultiModel:
    def __init__(
        self, models: ServedModels, loader: FolderLoader, run_blocking: Callable[..., Any], root: Path
    ) -> None:
        self._models = models
        self._loader = loader
        self._run = run_blocking
        self._root = root
        self._loaded: dict[str, str] = {}

    async def load(self, request: Request) -> Response:
        body = decode_object(request.body, '{"model_name", "url"}')
        name, url = body.get("model_name"), body.get("url")
        if not isinstance(name, str) or not name or not isinstance(url, str):
            raise Fault(400, 'a model is loaded by {"model_name": text, "url": text}')
        if name in self._loaded or self._models.get(name) is not None:
            raise Fault(409, f"model {name!r} is loaded")
        folder = await self._run(_inside, self._root, url)
        try:
            await self._run(self._loader.load_folder, name, folder)
        except MemoryError:
            raise Fault(507, "there is no memory for this model") from None
        self._loaded[name] = url
        return json_response({"status": f"model {name} is loaded"})

    async def listed(self, request: Request) -> Response:
        return json_response({"models": [_item(name, url) for name, url in self._loaded.items()]})

    async def described(self, request: Request) -> Response:
        name = self._known(request)
        return json_response(_item(name, self._loaded[name]))

    async def unload(self, request: Request) -> Response:
        name = self._known(request)
        del self._loaded[name]
        await self._run(self._loader.unload_folder, name)
        return json_response({"status": f"model {name} is unloaded"})

    async def invoke(self, request: Request) -> Response:
        return await _answered(
            self._models, self._models.find(self._known(request), protocol="sagemaker"), request, "sagemaker"
        )

    def _known(self, request: Request) -> str:
        (name,) = request.parameters
        if name not in self._loaded:
            raise Fault(404, f"no model is loaded by the name {name!r}")
        return name


def _item(name: str, url: str) -> Mapping[str, str]:
    return {"modelName": name, "modelUrl": url}


def _inside(root: Path, url: str) -> Path:
    """The folder that a request names, its links followed, where it is inside of the platform's.

    Raises:
        Fault: 400, it is not.
    """
    refused = Fault(400, "a model is loaded from a folder inside of the platform's folder of models, and from no URL")
    if "://" in url or "\0" in url or not url.startswith("/"):
        raise refused
    try:
        folder = Path(url).resolve(strict=True)
        if not folder.is_relative_to(root.resolve(strict=True)) or not folder.is_dir():
            raise refused
    except (OSError, RuntimeError):
        raise refused from None
    return folder
