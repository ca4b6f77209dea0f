"""OIP v2 over REST, JSON: health, metadata, infer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from mainspring.protocols.http import Fault, Request, Response, Router, json_response
from mainspring.protocols.oip.tensors import Tensor, decode_json, encode_json, read_tensor, write_tensor

__all__ = ["PREDICTION_IDS", "Inference", "OipModel", "OipModels", "add_oip_routes"]

PREDICTION_IDS = "prediction_ids"
"""The answer's parameter with the prediction ids of its rows, with commas between, as parameters are no lists."""
EXTENSIONS: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inference:
    """What a model has answered.

    Attributes:
        outputs: the arrays by the outputs' names; rows are the first dimension.
        ids: the prediction id of each row; empty when they are not logged.
    """

    outputs: Mapping[str, np.ndarray[Any, Any]]
    ids: Sequence[str] = ()


class OipModel(Protocol):
    """A model version as OIP sees it."""

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def version(self) -> str:
        """The version that answers."""

    @property
    def platform(self) -> str:
        """What runs it: ``onnxruntime_onnx``."""

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What it takes."""

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        """What it gives."""

    async def infer(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Inference:
        """All outputs for these inputs; rows are the first dimension."""


class OipModels(Protocol):
    """The models of this process."""

    def names(self) -> Sequence[str]:
        """Their names."""

    def versions(self, name: str) -> Sequence[str]:
        """The versions that are ready, of a model that exists; empty when none is."""

    def find(self, name: str, version: str | None) -> OipModel:
        """A ready version.

        Raises:
            Fault: 404 no such model or version, 503 not ready.
        """


def add_oip_routes(
    router: Router, models: OipModels, ready: Callable[[], bool], server: tuple[str, str], max_rows: int
) -> None:
    """Serve OIP v2 on a router.

    Args:
        router: where the routes go.
        models: the models of this process.
        ready: whether every required model is warm.
        server: the server's name and version.
        max_rows: most rows in one request.
    """
    routes = _Routes(models, ready, server, max_rows)
    router.add("GET", "/v2/health/live", routes.live)
    router.add("GET", "/v2/health/ready", routes.server_ready)
    router.add("GET", "/v2", routes.server_metadata)
    router.add("GET", "/v2/models", routes.model_names)
    for prefix in ("/v2/models/*", "/v2/models/*/versions/*"):
        router.add("GET", prefix, routes.model_metadata)
        router.add("GET", f"{prefix}/ready", routes.model_ready)
        router.add("POST", f"{prefix}/infer", routes.infer)


class _Routes:
    def __init__(self, models: OipModels, ready: Callable[[], bool], server: tuple[str, str], max_rows: int) -> None:
        self._models = models
        self._max_rows = max_rows
        self._ready = ready
        self._server = server

    async def live(self, request: Request) -> Response:
        return json_response({"live": True})

    async def server_ready(self, request: Request) -> Response:
        ready = self._ready()
        return json_response({"ready": ready, "live": True}, 200 if ready else 503)

    async def server_metadata(self, request: Request) -> Response:
        name, version = self._server
        return json_response({"name": name, "version": version, "extensions": list(EXTENSIONS)})

    async def model_names(self, request: Request) -> Response:
        return json_response({"models": list(self._models.names())})

    async def model_ready(self, request: Request) -> Response:
        model = self._find(request)
        return json_response({"name": model.name, "ready": True})

    async def model_metadata(self, request: Request) -> Response:
        model = self._find(request)
        return json_response(
            {
                "name": model.name,
                "versions": list(self._models.versions(model.name)),
                "platform": model.platform,
                "inputs": [_described(tensor) for tensor in model.inputs],
                "outputs": [_described(tensor) for tensor in model.outputs],
            }
        )

    async def infer(self, request: Request) -> Response:
        model = self._find(request)
        body = decode_json(request.body)
        if not isinstance(body, dict):
            raise Fault(400, "the body is no object")
        if not isinstance(body.get("id", ""), str):
            raise Fault(400, "the id is no text")
        inputs = _inputs(body, model, self._max_rows)
        wanted = _wanted(body, model)
        answers = await model.infer(inputs)
        outputs, finite = [], True
        for tensor in wanted:
            written, all_finite = write_tensor(tensor, answers.outputs[tensor.name])
            outputs.append(written)
            finite = finite and all_finite
        answer: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
        if "id" in body:
            answer["id"] = body["id"]
        if answers.ids:
            answer["parameters"] = {PREDICTION_IDS: ",".join(answers.ids)}
        answer["outputs"] = outputs
        return Response(200, encode_json(answer, finite=finite))

    def _find(self, request: Request) -> OipModel:
        name, *version = request.parameters
        return self._models.find(name, version[0] if version else None)


def _described(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.shape)}


def _inputs(body: Mapping[str, Any], model: OipModel, max_rows: int) -> dict[str, np.ndarray[Any, Any]]:
    items = body.get("inputs")
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise Fault(400, "the body has no list of inputs")
    declared = {tensor.name: tensor for tensor in model.inputs}
    found: dict[str, np.ndarray[Any, Any]] = {}
    for item in items:
        name = item.get("name")
        if not isinstance(name, str) or name not in declared:
            raise Fault(400, f"model {model.name!r} has no input {name!r}; it takes {', '.join(declared)}")
        if name in found:
            raise Fault(400, f"input {name!r} is there twice")
        found[name] = read_tensor(item, declared[name], max_rows)
    missing = [name for name in declared if name not in found]
    if missing:
        raise Fault(400, f"inputs are missing: {', '.join(missing)}")
    if len({array.shape[0] for array in found.values() if array.ndim}) > 1:
        raise Fault(400, "the inputs have different numbers of rows")
    if any(array.ndim and not array.shape[0] for array in found.values()):
        raise Fault(400, "the inputs have no rows")
    return found


def _wanted(body: Mapping[str, Any], model: OipModel) -> list[Tensor]:
    declared = {tensor.name: tensor for tensor in model.outputs}
    asked = body.get("outputs")
    if not asked:
        return list(model.outputs)
    names = (
        [item.get("name") if isinstance(item, dict) else None for item in asked] if isinstance(asked, list) else [None]
    )
    for name in names:
        if not isinstance(name, str) or name not in declared:
            raise Fault(400, f"model {model.name!r} has no output {name!r}; it gives {', '.join(declared)}")
    return [declared[str(name)] for name in names]
