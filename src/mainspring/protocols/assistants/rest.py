"""Threads and runs of assistants, in JSON or as server-sent events; only a thread's owner reaches it.

``GET  /assistants``: the names
``POST /assistants/{name}/threads``: a new thread; ``GET``: all of the caller's; ``DELETE``: erase them
``GET | DELETE /assistants/{name}/threads/{id}``
``POST .../threads/{id}/runs`` ``{"input": "text"}`` or ``{"messages": [{"role", "content"}]}``, ``"stream"``, ``"run"``
``POST .../threads/{id}/runs/{run}/cancel``
``POST .../threads/{id}/interrupts/{interrupt}`` ``{"decisions": [...], "stream"}``
``POST /assistants/{name}/runs``: a run without a thread
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Annotated, Any, Literal

import msgspec

from mainspring.assistants.events import Event, encode, fold, plain
from mainspring.assistants.service import Asked, AssistantService
from mainspring.declare.identity import Identity
from mainspring.errors import MainspringError
from mainspring.ports.llm import Message
from mainspring.protocols.http import Fault, Long, Request, Response, Router, error_response, json_response

__all__ = ["Assistants", "Who", "add_assistant_routes", "assistant_error"]

Assistants = Callable[[], Mapping[str, AssistantService]]
"""The assistants that are served, by name."""
Who = Callable[[Request], Identity]
"""Who asks, as the server has authenticated it; raises `Fault` where a caller must say who it is."""

SSE = b"text/event-stream; charset=utf-8"
BEAT = (15.0, b": ping\n\n")
_STATUS = {"MS-2511": 404, "MS-2512": 404, "MS-2513": 400, "MS-2514": 404, "MS-5061": 409, "MS-5062": 409}
_RUN_ID = r"^[A-Za-z0-9_-]{1,64}$"


class _Said(msgspec.Struct):
    role: Literal["system", "user", "assistant"]
    content: str


class _Run(msgspec.Struct, forbid_unknown_fields=True):
    input: str = ""
    messages: Annotated[list[_Said], msgspec.Meta(max_length=1000)] = []
    stream: bool | None = None
    run: Annotated[str, msgspec.Meta(pattern=_RUN_ID)] | None = None


class _Decisions(msgspec.Struct, forbid_unknown_fields=True):
    decisions: list[dict[str, Any]]
    stream: bool | None = None
    run: Annotated[str, msgspec.Meta(pattern=_RUN_ID)] | None = None


_RUNS = msgspec.json.Decoder(_Run)
_DECIDED = msgspec.json.Decoder(_Decisions)


def assistant_error(error: Exception) -> Response:
    """The response of a failed request."""
    if isinstance(error, MainspringError) and error.code in _STATUS:
        return json_response({"error": error.what, "code": error.code, "fix": error.fix}, _STATUS[error.code])
    return error_response(error)


def add_assistant_routes(router: Router, assistants: Assistants, who: Who) -> None:
    """Serve assistants' threads and runs on a router.

    Args:
        router: where the routes go.
        assistants: what is served.
        who: who asks.
    """
    routes = _Routes(assistants, who)
    long = Long(assistant_error)
    thread = "/assistants/*/threads/*"
    for method, path, handler in (
        ("GET", "/assistants", routes.names),
        ("POST", "/assistants/*/runs", routes.run_alone),
        ("POST", "/assistants/*/threads", routes.create),
        ("GET", "/assistants/*/threads", routes.export),
        ("DELETE", "/assistants/*/threads", routes.erase),
        ("GET", thread, routes.thread),
        ("DELETE", thread, routes.delete),
        ("POST", thread + "/runs", routes.run),
        ("POST", thread + "/runs/*/cancel", routes.cancel),
        ("POST", thread + "/interrupts/*", routes.decide),
    ):
        router.add(method, path, handler, long=long)


class _Routes:
    def __init__(self, assistants: Assistants, who: Who) -> None:
        self._assistants = assistants
        self._who = who

    def _service(self, request: Request) -> AssistantService:
        name = request.parameters[0]
        served = self._assistants()
        if name not in served:
            raise Fault(404, f"no assistant is called {name!r}; there are: {', '.join(served) or 'none'}")
        return served[name]

    async def names(self, request: Request) -> Response:
        self._who(request)
        return json_response(
            {"assistants": [{"name": name, "knows": list(one.indexes)} for name, one in self._assistants().items()]}
        )

    async def create(self, request: Request) -> Response:
        caller = self._who(request)
        return _json(await self._service(request).create_thread(caller), 201)

    async def export(self, request: Request) -> Response:
        caller = self._who(request)
        return _json({"threads": await self._service(request).export(caller)})

    async def erase(self, request: Request) -> Response:
        caller = self._who(request)
        return _json({"erased": await self._service(request).erase(caller)})

    async def thread(self, request: Request) -> Response:
        caller = self._who(request)
        return _json(await self._service(request).thread(request.parameters[1], caller))

    async def delete(self, request: Request) -> Response:
        caller = self._who(request)
        await self._service(request).delete_thread(request.parameters[1], caller)
        return Response(204)

    async def run(self, request: Request) -> Response:
        return await self._run(request, request.parameters[1])

    async def run_alone(self, request: Request) -> Response:
        return await self._run(request, "")

    async def _run(self, request: Request, thread: str) -> Response:
        caller, service = self._who(request), self._service(request)
        body = _body(_RUNS, request.body)
        messages = [Message(said.role, (said.content,)) for said in body.messages]
        if body.input:
            messages.append(Message("user", (body.input,)))
        if not any(message.role == "user" for message in messages):
            raise Fault(400, 'ask something: {"input": "..."}, or {"messages": [{"role": "user", "content": "..."}]}')
        events = service.run(Asked(tuple(messages), thread, body.run or ""), caller)
        return await _answer(events, _streams(request, body.stream))

    async def decide(self, request: Request) -> Response:
        caller, service = self._who(request), self._service(request)
        _, thread, interrupt = request.parameters
        body = _body(_DECIDED, request.body)
        events = service.resume(thread, interrupt, body.decisions, caller, body.run or "")
        return await _answer(events, _streams(request, body.stream))

    async def cancel(self, request: Request) -> Response:
        caller, service = self._who(request), self._service(request)
        _, thread, run = request.parameters
        await service.thread(thread, caller)
        return json_response({"cancelled": await service.cancel(run, caller)})


def _streams(request: Request, asked: bool | None) -> bool:
    return b"text/event-stream" in request.headers.get(b"accept", b"") if asked is None else asked


async def _answer(events: AsyncGenerator[Event, None], stream: bool) -> Response:
    """A run as JSON, or as it goes; a fault before its first event is a status in both."""
    try:
        first = await anext(events)
        if stream:
            headers = ((b"cache-control", b"no-cache"),)
            return Response(
                200,
                content_type=SSE,
                headers=headers,
                stream=_parts(first, events),
                closed=events.aclose,
                heartbeat=BEAT,
            )
        told = [first, *[event async for event in events]]
    except BaseException:
        await events.aclose()
        raise
    return json_response(plain(fold(told)))


async def _parts(first: Event, events: AsyncGenerator[Event, None]) -> AsyncGenerator[bytes, None]:
    yield _part(first)
    async for event in events:
        yield _part(event)


def _part(event: Event) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (str(event.__struct_config__.tag).encode(), encode(event))


def _json(value: object, status: int = 200) -> Response:
    return Response(status, msgspec.json.encode(value))


def _body(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body or b"{}")
    except msgspec.DecodeError as error:
        raise Fault(400, f"the body does not fit: {error}") from None
