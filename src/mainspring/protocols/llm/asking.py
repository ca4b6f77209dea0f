"""From an HTTP request to a call of the gateway: whose key, which declared prompt, which id."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import msgspec

from mainspring.errors import MainspringError
from mainspring.llm.gateway import Gateway
from mainspring.llm.run import Run
from mainspring.llm.values import Api, Call, Caller
from mainspring.ports.llm import Generation
from mainspring.ports.trace import CURRENT, read_traceparent
from mainspring.protocols.http import Request, Response
from mainspring.protocols.llm.faults import LLMFault, bad, limit_headers, turned

__all__ = ["PromptUse", "authorised", "call_of", "request_headers", "streamed", "trace_of"]

_BEAT_S = 15.0
_SSE = b"text/event-stream; charset=utf-8"


class PromptUse(msgspec.Struct):
    """A declared prompt in a request.

    Attributes:
        id: its name.
        version: an alias or an id; empty is ``prod``, else the latest.
        variables: its values.
    """

    id: str
    version: str | None = None
    variables: dict[str, object] | None = None


def authorised(gateway: Gateway, request: Request) -> Caller:
    """Who asks, by ``Authorization: Bearer`` or ``x-api-key``.

    Raises:
        LLMFault: 401.
    """
    headers = request.headers
    given = headers.get(b"authorization")
    secret = given[7:].strip() if given is not None and given[:7].lower() == b"bearer " else headers.get(b"x-api-key")
    caller = gateway.caller(secret)
    if caller is None:
        said = "the key is not known" if secret else "a key is needed: Authorization: Bearer KEY, or x-api-key: KEY"
        raise LLMFault(401, said, code="invalid_api_key", headers=((b"www-authenticate", b"Bearer"),))
    return caller


def call_of(
    gateway: Gateway,
    request: Request,
    caller: Caller,
    generation: Generation,
    api: Api,
    *,
    stream: bool,
    prompt: PromptUse | None = None,
) -> Call:
    """The call of a decoded request.

    Raises:
        LLMFault: 400, no model, or the prompt is not there or does not fit.
    """
    used = ""
    if generation.user:
        caller = Caller(caller.key, caller.tenant, generation.user)
    if prompt is not None:
        generation, used = _from_prompt(gateway, generation, prompt, caller)
    if not generation.model:
        raise bad("which model? a request names one", "model")
    return Call(generation, caller, api, stream, trace_of(request.headers), used)


def _from_prompt(gateway: Gateway, generation: Generation, use: PromptUse, caller: Caller) -> tuple[Generation, str]:
    try:
        user = caller.user or (caller.key.id if caller.key is not None else "")
        prompt = gateway.prompts.find(use.id, use.version or "", user)
        return gateway.prompts.request(prompt, use.variables or {}, generation), prompt.id
    except MainspringError as error:
        turned(error)


def trace_of(headers: Mapping[bytes, bytes]) -> tuple[str, str]:
    """The trace that a request belongs to and the span above it, or empty ones: ours, else the caller's."""
    if (trace := CURRENT.get()) is not None:
        return trace.trace, trace.span
    found = read_traceparent(headers.get(b"traceparent", b""))
    return ("", "") if found is None else found[:2]


def request_headers(request_id: str, run: Run | None = None) -> tuple[tuple[bytes, bytes], ...]:
    """The headers of every answer."""
    own = ((b"x-request-id", request_id.encode()),)
    return own if run is None or run.reservation is None else own + limit_headers(run.reservation.left())


def streamed(
    run: Run,
    parts: AsyncIterator[bytes],
    request_id: str,
    beat: bytes,
    closed: Callable[[], Awaitable[None]] | None = None,
) -> Response:
    """An answer as server-sent events: the run is closed however the stream ends."""
    headers = (*request_headers(request_id, run), (b"cache-control", b"no-cache"))
    return Response(
        200,
        content_type=_SSE,
        headers=headers,
        stream=parts,
        closed=closed or run.close,
        heartbeat=(_BEAT_S, beat),
    )
