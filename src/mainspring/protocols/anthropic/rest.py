"""Anthropic's routes over a gateway."""

from __future__ import annotations

import orjson

from mainspring.llm.gateway import Gateway
from mainspring.llm.refused import Refused
from mainspring.llm.tokens import most_prompt_tokens
from mainspring.protocols.anthropic.answer import MIXED, MessageStream, message_answer
from mainspring.protocols.anthropic.errors import anthropic_error
from mainspring.protocols.anthropic.messages import messages_request
from mainspring.protocols.http import Long, Request, Response, Router
from mainspring.protocols.llm.asking import authorised, call_of, request_headers, streamed
from mainspring.protocols.llm.faults import as_fault

__all__ = ["add_anthropic_routes"]

_BEAT = b'event: ping\ndata: {"type":"ping"}\n\n'


def add_anthropic_routes(router: Router, gateway: Gateway) -> None:
    """Serve Anthropic's wire on a router: ``/v1/messages`` and ``/v1/messages/count_tokens``."""
    routes = _Routes(gateway)
    long = Long(anthropic_error)
    router.add("POST", "/v1/messages", routes.messages, long=long)
    router.add("POST", "/v1/messages/count_tokens", routes.count_tokens, long=long)


class _Routes:
    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    async def messages(self, request: Request) -> Response:
        gateway = self._gateway
        caller = authorised(gateway, request)
        id = gateway.new_id()
        asked, generation = messages_request(request.body, id)
        stream = asked.stream is True
        call = call_of(gateway, request, caller, generation, "messages", stream=stream)
        if stream:
            run = await gateway.open(call)
            if isinstance(run, Refused):
                raise as_fault(run, id)
            return streamed(run, MessageStream(run, id, asked.model).parts(), id, _BEAT)
        done = await gateway.complete(call)
        if isinstance(done, Refused):
            raise as_fault(done, id)
        if done[1].mixed:
            raise as_fault(Refused(MIXED), id)
        return Response(200, message_answer(done[1], id, asked.model), headers=request_headers(id, done[0]))

    async def count_tokens(self, request: Request) -> Response:
        gateway = self._gateway
        caller = authorised(gateway, request)
        id = gateway.new_id()
        _, generation = messages_request(request.body, id, counting=True)
        lane = gateway.lane(generation.model, caller)
        if isinstance(lane, Refused):
            raise as_fault(lane, id)
        count = await lane.upstreams[0].target.engine.count(generation)
        if count is None:
            count = -(-most_prompt_tokens(generation) // 4)
        return Response(200, orjson.dumps({"input_tokens": count}), headers=request_headers(id))
