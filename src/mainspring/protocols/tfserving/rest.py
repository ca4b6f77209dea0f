"""TensorFlow Serving over REST: status, metadata, predict, classify, regress; KServe's v1 ``:predict`` is the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from mainspring.protocols.arrays import finite
from mainspring.protocols.bodies import coded, decode_object, decoded, encode_json, id_headers
from mainspring.protocols.http import Fault, Request, Response, Router, json_response
from mainspring.protocols.tfserving.values import (
    SIGNATURE,
    classes_of,
    columns_body,
    numbers_of,
    read_examples,
    read_predict,
    rows_body,
)
from mainspring.serving.calls import Array, Call, Inference, Reason, Rejected, Tensor
from mainspring.serving.inference import ServedModels
from mainspring.serving.served import ServedModel
from mainspring.serving.versions import State, VersionState

__all__ = ["add_metrics_route", "add_tfserving_routes", "add_v1_predict", "version_status"]

_TYPES: Mapping[str, str] = {
    "BOOL": "DT_BOOL",
    "FP16": "DT_HALF",
    "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE",
    "BF16": "DT_BFLOAT16",
    "BYTES": "DT_STRING",
    **{f"{sign}INT{bits}": f"DT_{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64)},
}
_PREFIXES = (("/v1/models/*", ""), ("/v1/models/*/versions/*", "version"), ("/v1/models/*/labels/*", "label"))


def add_v1_predict(router: Router, models: ServedModels, wires: Collection[str], max_body: int) -> None:
    """Serve what is posted to a model: ``:predict``, ``:classify``, ``:regress``; ``:explain`` is answered with 501.

    Args:
        router: where the routes go.
        models: the models of this process.
        wires: ``tfserving``, ``kserve`` or both, as they are on: what calls are counted as.
        max_body: greatest body in bytes, inflated.
    """
    for pattern, named in _PREFIXES:
        handler = coded(_Predict(models, wires, named).predict, max_body)
        router.add("POST", pattern, handler, any_case=True, asks=True)


def add_tfserving_routes(router: Router, models: ServedModels) -> None:
    """Serve status and metadata; the status of a model without a version is served with KServe's."""
    for pattern, named in _PREFIXES:
        routes = _Described(models, named)
        if named:
            router.add("GET", pattern, routes.model_status, any_case=True)
        router.add("GET", f"{pattern}/metadata", routes.metadata, any_case=True)


def add_metrics_route(router: Router, path: str, page: Callable[[bytes], tuple[bytes, bytes]]) -> None:
    """Serve the metrics page where a wire has it.

    Args:
        router: where the route goes.
        path: where it is.
        page: the page for an Accept header: content type and text.
    """

    async def metrics(request: Request) -> Response:
        content_type, text = page(request.headers.get(b"accept", b""))
        return Response(200, text, content_type)

    router.add("GET", path, metrics, any_case=True)


_STATES: Mapping[State, str] = {
    State.LOADING: "LOADING",
    State.READY: "AVAILABLE",
    State.UNLOADING: "UNLOADING",
    State.UNAVAILABLE: "END",
}


def version_status(state: VersionState) -> dict[str, object]:
    """The status of a version; one that could not be loaded has come to its end by an error."""
    failed = state.state is State.UNAVAILABLE
    status = {"error_code": "UNKNOWN" if failed else "OK", "error_message": state.reason if failed else ""}
    return {"version": state.version, "state": _STATES[state.state], "status": status}


def known_states(models: ServedModels, name: str, version: str | None, label: str | None) -> Sequence[VersionState]:
    """Every version of a model that is known here, loaded or not, or the one that is named.

    Raises:
        Rejected: NO_MODEL, NO_VERSION; NOT_READY, none is known, and the model could be loaded.
    """
    states = models.states(name)
    if label is not None or all(state.state is State.UNLOADING for state in states):
        number = models.find(name, version, label).version
        return [state for state in states if state.version == number]
    if version is None:
        return states
    found = [state for state in states if state.version == version]
    if not found:
        raise Rejected(Reason.NO_VERSION, f"model {name!r} has no version {version[:40]}")
    return found


class _Named:
    """Finds models by paths that name a version or a label."""

    def __init__(self, models: ServedModels, named: str) -> None:
        self._models = models
        self._named = named

    def _find(self, name: str, asked: str | None, asking: Request | None = None, protocol: str = "") -> ServedModel:
        if self._named == "version":
            return self._models.find(name, asked, protocol=protocol)
        return self._models.find(name, label=asked if self._named else None, asking=asking, protocol=protocol)


class _Predict(_Named):
    def __init__(self, models: ServedModels, wires: Collection[str], named: str) -> None:
        super().__init__(models, named)
        self._only = next(iter(wires)) if len(wires) == 1 else ""
        self._verbs: Mapping[str, Callable[[ServedModel, dict[str, Any], int, str], Any]] = {
            "predict": self._predict,
            "classify": self._classify,
            "regress": self._regress,
        }

    async def predict(self, request: Request) -> Response:
        *before, last = request.parameters
        last, colon, verb = last.rpartition(":")
        answer = self._verbs.get(verb.lower())
        if not colon:
            raise Fault(405, f"POST {request.path} is not served; name a verb: {request.path}:predict")
        name, asked = (before[0], last) if before else (last, None)
        protocol = self._only or _spoken(self._named, verb)
        served = self._find(name, asked, request, protocol)
        if answer is None:
            raise Rejected(Reason.NOT_SERVED, f"models have no verb {verb[:40]!r}; they have {', '.join(self._verbs)}")
        size, shape = len(request.body), '{"instances": [..]} or {"inputs": ..}'
        body = await decoded(size, decode_object, request.body, shape)
        found: Response = await answer(served, body, size, protocol)
        return found

    async def _predict(self, served: ServedModel, body: dict[str, Any], size: int, protocol: str) -> Response:
        begun = time.perf_counter_ns()
        inputs, by_rows = await decoded(size, read_predict, body, served, self._models.max_rows)
        answer = await self._infer(served, inputs, begun, protocol)
        return Response(200, (rows_body if by_rows else columns_body)(answer), headers=id_headers(answer.ids))

    async def _classify(self, served: ServedModel, body: dict[str, Any], size: int, protocol: str) -> Response:
        if not served.binary:
            raise Fault(400, f"model {served.name!r} is a regression; ask it to :regress")
        return await self._results(served, body, size, protocol, classes_of)

    async def _regress(self, served: ServedModel, body: dict[str, Any], size: int, protocol: str) -> Response:
        return await self._results(served, body, size, protocol, numbers_of)

    async def _results(
        self, served: ServedModel, body: dict[str, Any], size: int, protocol: str, results: Callable[[Inference], Any]
    ) -> Response:
        begun = time.perf_counter_ns()
        inputs = await decoded(size, read_examples, body, served, self._models.max_rows)
        answer = await self._infer(served, inputs, begun, protocol)
        written = encode_json({"results": results(answer)}, finite=finite(answer.outputs[0][1]))
        return Response(200, written, headers=id_headers(answer.ids))

    async def _infer(self, served: ServedModel, inputs: dict[str, Array], begun: int, protocol: str) -> Inference:
        decode_ns = time.perf_counter_ns() - begun
        return await self._models.infer(Call(served.name, inputs, protocol, decode_ns=decode_ns), served)


def _spoken(named: str, verb: str) -> str:
    """What a client of the shared path speaks, by what only one of both has; else ``v1``, as nothing tells them apart.

    Args:
        named: what the path names besides the model: a version and a label only TensorFlow Serving's do.
        verb: of the path.
    """
    if named or verb.lower() in ("classify", "regress"):
        return "tfserving"
    return "kserve" if verb.lower() == "explain" else "v1"


class _Described(_Named):
    async def model_status(self, request: Request) -> Response:
        name, *asked = request.parameters
        version = asked[0] if asked and self._named == "version" else None
        states = known_states(self._models, name, version, asked[0] if asked and version is None else None)
        return json_response({"model_version_status": [version_status(state) for state in states]})

    async def metadata(self, request: Request) -> Response:
        name, *asked = request.parameters
        served = self._find(name, asked[0] if asked else None)
        signature = {
            "inputs": {tensor.name: _tensor_info(tensor) for tensor in served.inputs},
            "outputs": {tensor.name: _tensor_info(tensor) for tensor in served.outputs},
            "method_name": "tensorflow/serving/predict",
        }
        return json_response(
            {
                "model_spec": {"name": served.name, "signature_name": "", "version": served.version},
                "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
            }
        )


def _tensor_info(tensor: Tensor) -> dict[str, object]:
    dimensions = [{"size": str(size), "name": ""} for size in tensor.shape]
    return {
        "dtype": _TYPES[tensor.datatype],
        "tensor_shape": {"dim": dimensions, "unknown_rank": False},
        "name": f"{tensor.name}:0",
    }
