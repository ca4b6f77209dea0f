"""OpenAI's routes over a gateway."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import orjson

from mainspring.llm.gateway import Gateway
from mainspring.llm.refused import Refused
from mainspring.llm.stored import StoredResponses
from mainspring.llm.values import Call, Route
from mainspring.ports.llm import Generation
from mainspring.protocols.http import Long, Request, Response, Router
from mainspring.protocols.llm.asking import authorised, call_of, request_headers, streamed
from mainspring.protocols.llm.faults import LLMFault, as_fault, bad, decoded
from mainspring.protocols.openai.chat import ChatMessage, chat_request, message_of
from mainspring.protocols.openai.chat_answer import chat_answer, chat_chunks
from mainspring.protocols.openai.completions import Texts, completion_answer, completion_request
from mainspring.protocols.openai.embeddings import embeddings_answer, embeddings_request
from mainspring.protocols.openai.errors import openai_error
from mainspring.protocols.openai.responses_rest import Responses

__all__ = ["add_openai_routes"]

_BEAT = b": ping\n\n"


def add_openai_routes(router: Router, gateway: Gateway, now_s: Callable[[], float], stored: StoredResponses) -> None:
    """Serve OpenAI's wire on a router: ``/v1/chat/completions``, ``completions``, ``embeddings``, ``responses``,
    ``models`` and ``tokenize``.

    Args:
        router: where the routes go.
        gateway: who answers.
        now_s: the clock, seconds since 1970.
        stored: keeps responses.
    """
    routes = _Routes(gateway, now_s)
    responses = Responses(gateway, now_s, stored)
    long = Long(openai_error)
    for method, path, handler in (
        ("POST", "/v1/chat/completions", routes.chat_completions),
        ("POST", "/v1/completions", routes.completions),
        ("POST", "/v1/embeddings", routes.embeddings),
        ("POST", "/v1/tokenize", routes.tokenize),
        ("POST", "/tokenize", routes.tokenize),
        ("GET", "/v1/models", routes.models),
        ("GET", "/v1/models/*", routes.model),
        ("POST", "/v1/responses", responses.create),
        ("GET", "/v1/responses/*", responses.retrieve),
        ("DELETE", "/v1/responses/*", responses.delete),
        ("GET", "/v1/responses/*/input_items", responses.input_items),
    ):
        router.add(method, path, handler, long=long)


class _Tokenize(msgspec.Struct):
    model: str = ""
    prompt: str | None = None
    content: str | None = None
    messages: list[ChatMessage] | None = None


_TOKENIZE = msgspec.json.Decoder(_Tokenize)


class _Routes:
    def __init__(self, gateway: Gateway, now_s: Callable[[], float]) -> None:
        self._gateway = gateway
        self._now_s = now_s

    async def chat_completions(self, request: Request) -> Response:
        gateway = self._gateway
        caller = authorised(gateway, request)
        id = gateway.new_id()
        asked, generation = chat_request(request.body, id)
        stream = asked.stream is True
        call = call_of(gateway, request, caller, generation, "chat", stream=stream, prompt=asked.prompt)
        created, model = int(self._now_s()), call.generation.model
        if stream:
            run = await gateway.open(call)
            if isinstance(run, Refused):
                raise as_fault(run, id)
            usage = asked.stream_options is not None and asked.stream_options.include_usage
            return streamed(run, chat_chunks(run, id, created, model, usage=usage), id, _BEAT)
        done = await gateway.complete(call)
        if isinstance(done, Refused):
            raise as_fault(done, id)
        body = chat_answer(done[1], id, created, model, logprobs=asked.logprobs is True)
        return Response(200, body, headers=request_headers(id, done[0]))

    async def completions(self, request: Request) -> Response:
        gateway = self._gateway
        caller = authorised(gateway, request)
        id = gateway.new_id()
        asked, generations = completion_request(request.body, id)
        stream = asked.stream is True
        calls = [call_of(gateway, request, caller, one, "completions", stream=stream) for one in generations]
        created = int(self._now_s())
        if not stream:
            return await self._whole_texts(calls, id, created, asked.model, logprobs=asked.logprobs is not None)
        run = await gateway.open(calls[0])
        if isinstance(run, Refused):
            raise as_fault(run, id)
        texts = Texts(gateway, run, calls[1:], id, created, asked.model)
        usage = asked.stream_options is not None and asked.stream_options.include_usage
        return streamed(run, texts.chunks(usage=usage), id, _BEAT, closed=texts.close)

    async def _whole_texts(
        self, calls: Sequence[Call], id: str, created: int, model: str, *, logprobs: bool
    ) -> Response:
        answers = []
        run = None
        for call in calls:
            done = await self._gateway.complete(call)
            if isinstance(done, Refused):
                raise as_fault(done, id)
            run, answer = done
            answers.append(answer)
        body = completion_answer(answers, id, created, model, logprobs=logprobs)
        return Response(200, body, headers=request_headers(id, run))

    async def embeddings(self, request: Request) -> Response:
        gateway = self._gateway
        caller = authorised(gateway, request)
        id = gateway.new_id()
        asked, wanted = embeddings_request(request.body, id)
        found = await gateway.embed(wanted, caller)
        if isinstance(found, Refused):
            raise as_fault(found, id)
        body = embeddings_answer(found, asked.model, base64_text=asked.encoding_format == "base64")
        return Response(200, body, headers=request_headers(id))

    async def tokenize(self, request: Request) -> Response:
        gateway = self._gateway
        caller = authorised(gateway, request)
        asked = decoded(_TOKENIZE, request.body)
        lane = gateway.lane(asked.model, caller)
        id = gateway.new_id()
        if isinstance(lane, Refused):
            raise as_fault(lane, id)
        engine = lane.upstreams[0].target.engine
        context = engine.capabilities().context
        if asked.messages:
            messages = tuple(message_of(message, place) for place, message in enumerate(asked.messages))
            count = await engine.count(Generation(id, lane.upstreams[0].target.model, messages))
            tokens = None
        else:
            text = asked.prompt if asked.prompt is not None else asked.content
            if text is None:
                raise bad("give a prompt, or messages", "prompt")
            tokens = await engine.tokenize(text)
            count = None if tokens is None else len(tokens)
        if count is None:
            raise LLMFault(501, "this model's engine does not tell its tokens")
        shown = None if tokens is None else list(tokens)
        body = orjson.dumps({"count": count, "max_model_len": context, "tokens": shown})
        return Response(200, body, headers=request_headers(id))

    async def models(self, request: Request) -> Response:
        routes = self._gateway.names(authorised(self._gateway, request))
        return Response(200, orjson.dumps({"object": "list", "data": [_model(route) for route in routes]}))

    async def model(self, request: Request) -> Response:
        name = request.parameters[0]
        for route in self._gateway.names(authorised(self._gateway, request)):
            if route.name == name:
                return Response(200, orjson.dumps(_model(route)))
        raise LLMFault(404, f"the model {name!r} does not exist", code="model_not_found", param="model")


def _model(route: Route) -> dict[str, object]:
    return {"id": route.name, "object": "model", "created": route.created, "owned_by": route.owner}
