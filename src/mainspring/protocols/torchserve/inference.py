"""TorchServe's inference: ``/predictions`` and its description."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from mainspring.protocols.bodies import coded, decoded, id_headers
from mainspring.protocols.http import Fault, Request, Response, Router, json_response
from mainspring.protocols.payloads.answer import answer_payload
from mainspring.protocols.payloads.body import JSON, content_type, read_body, wanted_type, write_body
from mainspring.protocols.torchserve.errors import torchserve_error
from mainspring.protocols.torchserve.form import boundary_of, parts_of
from mainspring.serving.calls import Array, Call, Reason, Rejected
from mainspring.serving.inference import ServedModels
from mainspring.serving.served import ServedModel

__all__ = ["DATA", "add_torchserve_inference", "identified", "read_parts"]

DATA = ("data", "body")
"""How the names of a request's fields begin that hold rows."""

_LONGEST_ID = 128


def add_torchserve_inference(router: Router, models: ServedModels, server: tuple[str, str], max_body: int) -> None:
    """Serve predictions; explanations are answered with 501.

    Args:
        router: where the routes go.
        models: the models of this process.
        server: the server's name and version.
        max_body: greatest body in bytes, inflated.
    """
    routes = _Routes(models, server)
    predictions, explanations = coded(routes.predictions, max_body), routes.explanations
    for method in ("POST", "PUT"):
        for pattern in ("/predictions/*", "/predictions/*/*"):
            router.add(method, pattern, predictions, errors=torchserve_error, asks=True, bears=identified)
    for pattern in ("/explanations/*", "/explanations/*/*"):
        router.add("POST", pattern, explanations, errors=torchserve_error, bears=identified)
    router.add("OPTIONS", "/", routes.torchserve_description, errors=torchserve_error, bears=identified)


def identified(headers: Mapping[bytes, bytes], response: Response) -> Response:
    """A reply with the request's name, which every one of TorchServe's bears; one is made where none came."""
    identity = headers.get(b"x-request-id", b"")[:_LONGEST_ID] or str(uuid.uuid4()).encode()
    return msgspec.structs.replace(response, headers=(*response.headers, (b"x-request-id", identity)))


def read_parts(parts: Sequence[tuple[bytes, str]], served: ServedModel, max_rows: int) -> dict[str, Array]:
    """The rows of several bodies, each with its content type, one behind the other.

    Raises:
        Fault: 400, there are none; as `read_body` raises; 413, there are too many rows.
        Rejected: as `ServedModel.matrix` raises.
    """
    if not parts:
        raise Fault(400, "there is no field that is called data")
    matrices = [served.matrix(read_body(body, kind, served, max_rows), max_rows) for body, kind in parts]
    if sum(map(len, matrices)) > max_rows:
        raise Fault(413, f"more than {max_rows} rows in one request")
    return {served.inputs[0].name: matrices[0] if len(matrices) == 1 else np.concatenate(matrices)}


class _Routes:
    def __init__(self, models: ServedModels, server: tuple[str, str]) -> None:
        self._models = models
        self._server = server

    async def torchserve_description(self, request: Request) -> Response:
        name, version = self._server
        body = {"required": True, "content": {kind: {} for kind in (JSON, "multipart/form-data", "text/csv")}}
        answers = {"200": {"description": "one score a row", "content": {JSON: {"schema": {"type": "array"}}}}}
        model = {"name": "model_name", "in": "path", "required": True, "schema": {"type": "string"}}
        predict = {"operationId": "predictions", "parameters": [model], "requestBody": body, "responses": answers}
        alive = {"get": {"operationId": "ping", "responses": {"200": {"description": "healthy"}}}}
        return json_response(
            {
                "openapi": "3.0.1",
                "info": {"title": name, "version": version},
                "paths": {"/predictions/{model_name}": {"post": predict, "put": predict}, "/ping": alive},
            }
        )

    async def explanations(self, request: Request) -> Response:
        self._find(request)
        raise Rejected(Reason.NOT_SERVED, "models have no explanations")

    async def predictions(self, request: Request) -> Response:
        served = self._find(request, "torchserve")
        boundary = boundary_of(request.headers.get(b"content-type", b""))
        if boundary is None:
            return await answer_payload(self._models, served, request, "torchserve", lambda scores: scores)
        begun = time.perf_counter_ns()
        inputs = await decoded(len(request.body), self._form, request, boundary, served)
        wanted = wanted_type(request, JSON)
        decode_ns = time.perf_counter_ns() - begun
        answer = await self._models.infer(Call(served.name, inputs, "torchserve", decode_ns=decode_ns), served)
        body = write_body(answer, wanted, lambda scores: scores)
        return Response(200, body, wanted.encode(), id_headers(answer.ids))

    def _form(self, request: Request, boundary: bytes, served: ServedModel) -> dict[str, Array]:
        """The rows of a form's fields ``data``, ``data1``, ..: each has the bytes of a whole body."""
        parts = [
            (part.body, content_type(msgspec.structs.replace(request, headers={b"content-type": part.content_type})))
            for part in parts_of(request.body, boundary)
            if part.name.startswith(DATA)
        ]
        return read_parts(parts, served, self._models.max_rows)

    def _find(self, request: Request, protocol: str = "") -> ServedModel:
        name, *version = request.parameters
        if version and not version[0].isdigit():
            return self._models.find(name, label=version[0], protocol=protocol)
        return self._models.find(name, version[0] if version else None, asking=request, protocol=protocol)
