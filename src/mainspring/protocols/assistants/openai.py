"""Assistants as models of OpenAI's wire: ``model`` is an assistant's name, and citations come as annotations.

A request is answered without memory, unless its header ``x-mainspring-thread`` names a thread of the caller's. Beside
OpenAI's own members a message has ``annotations`` and ``mainspring``; streamed, they are in the last delta.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

import orjson

from mainspring.assistants.as_model import ModelRun, asked_of, model_run
from mainspring.errors import MainspringError
from mainspring.llm.fold import fold
from mainspring.llm.refused import Refused
from mainspring.llm.run import Run
from mainspring.ports.llm import Error, Event, Generation
from mainspring.protocols.assistants.rest import BEAT, SSE, Assistants, Who, assistant_error
from mainspring.protocols.http import Fault, Handler, Long, Request, Response, Router
from mainspring.protocols.llm.faults import LLMFault, as_fault
from mainspring.protocols.openai.chat import chat_request
from mainspring.protocols.openai.chat_answer import DONE, chat_answer, chat_chunks
from mainspring.protocols.openai.errors import openai_error

__all__ = ["add_assistant_models"]

_THREAD = b"x-mainspring-thread"


def add_assistant_models(
    router: Router, assistants: Assistants, who: Who, now_s: Callable[[], float], models: Router | None = None
) -> None:
    """Serve assistants under ``/v1/chat/completions`` and ``/v1/models``.

    Args:
        router: where the routes go; they must be there before the gateway's own.
        assistants: what is served.
        who: who asks.
        now_s: the clock, seconds since 1970.
        models: the gateway's routes, for every model that is no assistant.
    """
    routes = _Routes(assistants, who, now_s, models)
    long = Long(openai_error)
    router.add("POST", "/v1/chat/completions", routes.chat_completions, long=long)
    router.add("GET", "/v1/models", routes.models, long=long)
    router.add("GET", "/v1/models/*", routes.model, long=long)


class _Routes:
    def __init__(self, assistants: Assistants, who: Who, now_s: Callable[[], float], models: Router | None) -> None:
        self._assistants = assistants
        self._who = who
        self._now_s = now_s
        self._created = int(now_s())
        self._models = models

    def _otherwise(self, method: str, path: bytes) -> Handler | None:
        return None if self._models is None else self._models.find(method, path)[0]

    async def models(self, request: Request) -> Response:
        otherwise = self._otherwise("GET", b"/v1/models")
        if otherwise is None:
            self._who(request)
            listed: dict[str, Any] = {"object": "list", "data": []}
        else:
            listed = orjson.loads((await otherwise(request)).body)
        listed["data"] += [self._listed(name) for name in self._assistants()]
        return Response(200, orjson.dumps(listed))

    async def model(self, request: Request) -> Response:
        name = request.parameters[0]
        if name in self._assistants():
            self._who(request)
            return Response(200, orjson.dumps(self._listed(name)))
        otherwise = self._otherwise("GET", b"/v1/models/x")
        if otherwise is None:
            raise _not_found(name)
        return await otherwise(request)

    def _listed(self, name: str) -> dict[str, object]:
        return {"id": name, "object": "model", "created": self._created, "owned_by": "mainspring-assistant"}

    async def chat_completions(self, request: Request) -> Response:
        id = secrets.token_hex(12)
        asked, generation = chat_request(request.body, id)
        service = self._assistants().get(generation.model)
        if service is None:
            otherwise = self._otherwise("POST", b"/v1/chat/completions")
            if otherwise is None:
                raise _not_found(generation.model)
            return await otherwise(request)
        caller = self._who(request)
        if generation.sampling.n != 1 or generation.tools:
            raise LLMFault(
                400,
                f"{generation.model!r} is an assistant: it has its own tools, and gives one answer",
                param="tools" if generation.tools else "n",
            )
        thread = request.headers.get(_THREAD, b"").decode("latin-1")
        run = model_run(service, asked_of(generation, thread), caller)
        try:
            await run.begin()
        except MainspringError as error:
            raise _refused(error) from error
        created = int(self._now_s())
        headers = ((b"x-request-id", id.encode()), (b"cache-control", b"no-cache"))
        if asked.stream is True:
            usage = asked.stream_options is not None and asked.stream_options.include_usage
            parts = _chunks(run, generation, id, created, usage=usage)
            return Response(200, content_type=SSE, headers=headers, stream=parts, closed=run.close, heartbeat=BEAT)
        return Response(200, await _whole(run, generation, id, created), headers=headers)


def _not_found(name: str) -> LLMFault:
    return LLMFault(404, f"the model {name!r} does not exist", code="model_not_found", param="model")


def _refused(error: MainspringError) -> Fault:
    answer = assistant_error(error)
    return LLMFault(answer.status, orjson.loads(answer.body)["error"], code=error.code, retry=answer.status == 409)


class _Read:
    """A run as the gateway's renderer reads one."""

    def __init__(self, run: ModelRun, request: Generation) -> None:
        self._run = run
        self.request = request

    def events(self) -> AsyncGenerator[Event, None]:
        return self._run.events()


async def _chunks(
    run: ModelRun, request: Generation, id: str, created: int, *, usage: bool
) -> AsyncGenerator[bytes, None]:
    read = cast("Run", _Read(run, request))  # the two members of it that rendering uses
    async for part in chat_chunks(read, id, created, request.model, usage=usage):
        if part.endswith(DONE):
            yield _last_delta(run, request, id, created)
        yield part


def _last_delta(run: ModelRun, request: Generation, id: str, created: int) -> bytes:
    delta = {"annotations": run.annotations, "mainspring": run.member}
    chunk = {
        "id": f"chatcmpl-{id}",
        "object": "chat.completion.chunk",
        "created": created,
        "model": request.model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
    }
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


async def _whole(run: ModelRun, request: Generation, id: str, created: int) -> bytes:
    found = fold(1)
    async for event in run.events():
        if isinstance(event, Error):
            raise as_fault(Refused(event), id)
        found.add(event)
    answer = orjson.loads(chat_answer(found, id, created, request.model, logprobs=False))
    answer["choices"][0]["message"] |= {"annotations": run.annotations, "mainspring": run.member}
    return orjson.dumps(answer)
