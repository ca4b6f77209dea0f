"""Azure ML's inference server: ``/score`` with its headers, and its Swagger."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
import orjson

from mainspring.errors import MainspringError
from mainspring.protocols.azureml.swagger import swagger
from mainspring.protocols.bodies import coded, encode_json, query_pairs
from mainspring.protocols.http import Fault, Long, Request, Response, Router, fault_of, json_response
from mainspring.protocols.payloads.answer import answer_payload
from mainspring.serving.calls import Rejected
from mainspring.serving.inference import ServedModels

__all__ = ["Script", "add_azureml_routes", "azure_error"]

_LONGEST_ID = 100
_REQUEST, _MS_REQUEST, _CLIENT = b"x-request-id", b"x-ms-request-id", b"x-ms-client-request-id"
_TRACE = b"traceid"
_NAMES = (_REQUEST, _MS_REQUEST, _CLIENT, _TRACE)
_FAILED = b"x-ms-run-function-failed"


def azure_error(error: Exception) -> Response:
    """The response of a failed request: ``{"message": text}``."""
    fault = fault_of(error)
    headers: tuple[tuple[bytes, bytes], ...] = ((_FAILED, b"True"),) if fault.status >= 500 else ()
    if fault.retry_after is not None:
        headers = (*headers, (b"retry-after", b"%d" % fault.retry_after))
    if fault.challenge:
        headers = (*headers, (b"www-authenticate", fault.challenge.encode()))
    return json_response({"message": fault.message}, fault.status, headers=headers)


class Script(Protocol):
    """The user's own scoring."""

    async def run(self, data: str) -> bytes:
        """What the script answers to a body, as JSON.

        Raises:
            Fault: 500, it fails, or takes too long.
        """


def add_azureml_routes(
    router: Router, models: ServedModels, version: str, max_body: int, script: Script | None = None
) -> None:
    """Serve ``/score`` and ``/swagger.json``.

    Args:
        router: where the routes go.
        models: the models of this process.
        version: the server's.
        max_body: greatest body in bytes, inflated.
        script: answers in the model's place.
    """
    routes = _Routes(models, version, script)
    long = None if script is None else Long(azure_error)  # a script has a time limit of its own
    for method, handler in (("GET", routes.score_row), ("POST", routes.score), ("OPTIONS", routes.score_options)):
        answer = coded(handler, max_body)
        router.add(method, "/score", answer, errors=azure_error, long=long, asks=True, bears=routes.bears)
    router.add("GET", "/swagger.json", routes.swagger, errors=azure_error)


class _Routes:
    def __init__(self, models: ServedModels, version: str, script: Script | None) -> None:
        self._models = models
        self._script = script
        self._version = f"mainspring/{version}".encode()

    async def score(self, request: Request) -> Response:
        _check_names(request.headers)
        begun = time.perf_counter()
        try:
            response = await self._scored(request)
        except (Fault, Rejected, MainspringError) as error:
            response = azure_error(error)
        spent = (time.perf_counter() - begun) * 1e3
        headers = (*response.headers, (b"x-ms-run-fn-exec-ms", b"%.3f" % spent))
        return msgspec.structs.replace(response, headers=headers)

    def bears(self, headers: Mapping[bytes, bytes], response: Response) -> Response:
        """A reply with the request's names and the server's version, and whether it has failed by our fault."""
        named = (*response.headers, *_identities(headers), (b"x-ms-server-version", self._version))
        if not any(name == _FAILED for name, _ in named):
            named = (*named, (_FAILED, b"False"))
        return msgspec.structs.replace(response, headers=named)

    async def _scored(self, request: Request) -> Response:
        if self._script is None:
            return await answer_payload(
                self._models, self._models.chosen(None, request, "azureml"), request, "azureml", _bare
            )
        try:
            text = request.body.decode()
        except UnicodeDecodeError:
            raise Fault(400, "the body is no text in UTF-8") from None
        return Response(200, await self._script.run(text))

    async def score_row(self, request: Request) -> Response:
        """One row in the query: ``/score?amount=20&visits_30d=3``; a script gets the query as an object."""
        if self._script is not None:
            return await self.score(msgspec.structs.replace(request, body=orjson.dumps(dict(query_pairs(request)))))
        row = {name: _value(value) for name, value in query_pairs(request)}
        headers = {name: value for name, value in request.headers.items() if name != b"content-type"}
        return await self.score(
            msgspec.structs.replace(request, body=encode_json([row], finite=False), headers=headers)
        )

    async def score_options(self, request: Request) -> Response:
        _check_names(request.headers)
        return Response(200, b"", b"text/plain; charset=utf-8", ((b"allow", b"GET, POST, OPTIONS"),))

    async def swagger(self, request: Request) -> Response:
        asked = dict(query_pairs(request)).get("version", "2")
        if asked not in ("2", "3", "3.1"):
            raise Fault(404, f"there is no Swagger of version {asked[:20]!r}; there are 2, 3 and 3.1")
        return json_response(swagger(self._models.chosen(None), asked))


def _bare(scores: Any) -> Any:
    return scores


def _value(text: str) -> float | str | None:
    """A number of the query; what is none is refused where the model's columns are read."""
    try:
        return float(text) if text else None
    except ValueError:
        return text


def _check_names(headers: Mapping[bytes, bytes]) -> None:
    """Refuse names of a request that no answer could bear.

    Raises:
        Fault: 431, one is too long.
    """
    for name in _NAMES:
        if len(headers.get(name, b"")) > _LONGEST_ID:
            raise Fault(431, f"{name.decode()} is longer than {_LONGEST_ID} characters")


def _identities(headers: Mapping[bytes, bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """The names of a request, which its answer bears, too; one that is too long is none."""
    given = {name: value if len(value := headers.get(name, b"")) <= _LONGEST_ID else b"" for name in _NAMES}
    request = given[_REQUEST] or str(uuid.uuid4()).encode()
    found = [(_REQUEST, request), (_MS_REQUEST, given[_MS_REQUEST] or given[_CLIENT] or request)]
    if client := given[_CLIENT] or given[_MS_REQUEST]:
        found.append((_CLIENT, client))
    if given[_TRACE]:
        found.append((_TRACE, given[_TRACE]))
    return tuple(found)
