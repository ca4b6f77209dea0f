"""OIP v2 ``generate`` and ``generate_stream`` over REST: a declared language model takes text and gives text.

The text is what the model goes on from, as for Triton's language models; conversations have OpenAI's wire.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
import orjson
from msgspec import Meta

from mainspring.llm.gateway import Gateway
from mainspring.llm.refused import Refused
from mainspring.llm.run import Run
from mainspring.llm.values import Call
from mainspring.ports.llm import Error, Generation, Sampling, Text
from mainspring.protocols.http import Long, Request, Response, Router
from mainspring.protocols.llm.asking import authorised, call_of, request_headers, streamed
from mainspring.protocols.llm.faults import LLMFault, as_fault, decoded

__all__ = ["add_generate_routes"]

_BEAT = b": ping\n\n"
_VERSION = "1"
"""A language model is its name; clients that name a version name this one."""


class _Parameters(msgspec.Struct, forbid_unknown_fields=True):
    """What a request sets beside its text."""

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: int | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    exclude_input_in_output: bool = True


class _Asked(msgspec.Struct):
    """The body of a request."""

    text_input: str
    id: str = ""
    parameters: _Parameters = msgspec.field(default_factory=_Parameters)


_DECODER = msgspec.json.Decoder(_Asked)


def add_generate_routes(router: Router, gateway: Gateway) -> None:
    """Serve both on a router.

    Args:
        router: where the routes go.
        gateway: who answers.
    """
    routes, long = _Routes(gateway), Long()
    for prefix in ("/v2/models/*", "/v2/models/*/versions/*"):
        router.add("POST", f"{prefix}/generate", routes.generate, long=long)
        router.add("POST", f"{prefix}/generate_stream", routes.generate_stream, long=long)


class _Routes:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def generate(self, request: Request) -> Response:
        asked, call, identity = self._asked(request, stream=False)
        done = await self._gateway.complete(call)
        if isinstance(done, Refused):
            raise as_fault(done, identity)
        run, answer = done
        body = orjson.dumps({**_head(asked, call), "text_output": answer.text(0)})
        return Response(200, body, headers=request_headers(identity, run))

    async def generate_stream(self, request: Request) -> Response:
        asked, call, identity = self._asked(request, stream=True)
        run = await self._gateway.open(call)
        if isinstance(run, Refused):
            raise as_fault(run, identity)
        return streamed(run, _parts(run, _head(asked, call)), identity, _BEAT)

    def _asked(self, request: Request, *, stream: bool) -> tuple[_Asked, Call, str]:
        caller = authorised(self._gateway, request)
        asked, identity = decoded(_DECODER, request.body), self._gateway.new_id()
        name, *version = request.parameters
        if version not in ([], [_VERSION]):
            raise LLMFault(404, f"model {name!r} has version {_VERSION}, not {version[0][:40]}")
        set_by = asked.parameters
        stops = (set_by.stop,) if isinstance(set_by.stop, str) else tuple(set_by.stop or ())
        sampling = Sampling(
            temperature=set_by.temperature,
            top_p=set_by.top_p,
            top_k=set_by.top_k,
            min_p=set_by.min_p,
            seed=set_by.seed,
            stop=stops,
            max_tokens=set_by.max_tokens,
            presence_penalty=set_by.presence_penalty,
            frequency_penalty=set_by.frequency_penalty,
        )
        echo = not set_by.exclude_input_in_output
        generation = Generation(id=identity, model=name, prompt=asked.text_input, echo=echo, sampling=sampling)
        return asked, call_of(self._gateway, request, caller, generation, "completions", stream=stream), identity


def _head(asked: _Asked, call: Call) -> dict[str, str]:
    return {"id": asked.id, "model_name": call.generation.model, "model_version": _VERSION}


async def _parts(run: Run, head: dict[str, str]) -> AsyncIterator[bytes]:
    """The server-sent events: texts as they come; a fault after the first of them is one, too."""
    async for event in run.events():
        if isinstance(event, Error):
            yield b"data: " + orjson.dumps({"error": as_fault(Refused(event), "").message}) + b"\n\n"
            return
        if isinstance(event, Text):
            yield b"data: " + orjson.dumps({**head, "text_output": event.text}) + b"\n\n"
