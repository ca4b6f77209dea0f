"""What every reply of a wire bears is on those that no handler has made: refusals by key, size, method and time."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable

import pytest

from mainspring.protocols.azureml.rest import add_azureml_routes
from mainspring.protocols.http import Fault, Request, Response, Router
from mainspring.protocols.torchserve.errors import torchserve_error
from mainspring.protocols.torchserve.inference import identified
from mainspring.server.http.asgi import Limits, Listener


async def slow(request: Request) -> Response:
    await asyncio.sleep(5)
    return Response(200)


async def broken(request: Request) -> Response:
    raise ValueError("a fault of ours")


def asked(
    router: Router, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, dict[str, list[str]], bytes]:
    """A request by ASGI's messages: status, headers and body."""

    def let_in(request: Request) -> None:
        if b"no-key" in request.headers:
            raise Fault(401, "a key is needed", challenge="Bearer")

    listener = Listener(router, Limits(100, 0.1), guard=let_in)
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": named,
    }
    answer: Callable[..., Awaitable[None]] = listener
    asyncio.run(answer(scope, receive, send))  # type: ignore[arg-type]
    found: dict[str, list[str]] = {}
    for name, value in sent[0]["headers"]:  # type: ignore[attr-defined]
        found.setdefault(name.decode(), []).append(value.decode())
    return int(str(sent[0]["status"])), found, bytes(sent[1]["body"])  # type: ignore[arg-type]


def torchserve() -> Router:
    router = Router()
    for path, handler in (("/slow", slow), ("/broken", broken)):
        router.add("POST", path, handler, errors=torchserve_error, bears=identified)
    return router


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", "/slow", b"", {"no_key": "1"}, 401),
        ("POST", "/slow", b"x" * 101, {}, 413),
        ("POST", "/slow", b"", {}, 504),
        ("GET", "/slow", b"", {}, 405),
        ("POST", "/broken", b"", {}, 500),
    ],
)
def test_torchserves_refusals_bear_the_requests_id(
    method: str, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    found, got, answer = asked(torchserve(), method, path, body, **headers, x_request_id="mine")
    assert (found, got["x-request-id"], json.loads(answer)["code"]) == (status, ["mine"], status)
    assert uuid.UUID(asked(torchserve(), method, path, body, **headers)[1]["x-request-id"][0])


@pytest.mark.parametrize(("headers", "body", "status"), [({"no_key": "1"}, b"", 401), ({}, b"x" * 101, 413)])
def test_azures_refusals_bear_the_names_of_the_request(headers: dict[str, str], body: bytes, status: int) -> None:
    router = Router()
    add_azureml_routes(router, None, "1", 100)  # type: ignore[arg-type]
    found, got, answer = asked(router, "POST", "/score", body, **headers, x_ms_request_id="mine", traceid="t" * 101)
    assert (found, list(json.loads(answer))) == (status, ["message"])
    assert (got["x-ms-request-id"], got["x-ms-client-request-id"]) == (["mine"], ["mine"])
    assert (len(got["x-request-id"]), got["x-ms-run-function-failed"]) == (1, ["False"])
    assert "traceid" not in got, "one that is too long is answered by nothing"
    assert asked(router, "POST", "/score", traceid="t" * 101)[0] == 431
