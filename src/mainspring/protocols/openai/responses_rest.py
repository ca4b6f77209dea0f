"""The routes of responses: made, kept, read again, forgotten."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import orjson

from mainspring.llm.fold import Answer
from mainspring.llm.gateway import Gateway
from mainspring.llm.refused import Refused
from mainspring.llm.stored import Kept, StoredResponses
from mainspring.llm.values import Caller
from mainspring.ports.llm import Generation, Message
from mainspring.protocols.http import Request, Response
from mainspring.protocols.llm.asking import authorised, call_of, request_headers, streamed
from mainspring.protocols.llm.faults import LLMFault, as_fault
from mainspring.protocols.openai.responses import ResponsesRequest, input_json, responses_request
from mainspring.protocols.openai.responses_answer import ResponseShape, ResponseStream, answered

__all__ = ["Responses"]

_BEAT = b": ping\n\n"


class Responses:
    """Handlers of ``/v1/responses``.

    Args:
        gateway: who answers.
        now_s: the clock, seconds since 1970.
        stored: keeps them.
    """

    def __init__(self, gateway: Gateway, now_s: Callable[[], float], stored: StoredResponses) -> None:
        self._gateway = gateway
        self._now_s = now_s
        self._stored = stored

    async def create(self, request: Request) -> Response:
        """``POST /v1/responses``."""
        gateway = self._gateway
        caller = authorised(gateway, request)
        id = gateway.new_id()
        asked, generation = responses_request(request.body, id)
        before = await self._before(asked, caller)
        conversation = (*before, *generation.messages)
        generation = _with_instructions(generation, asked.instructions, conversation)
        stream = asked.stream is True
        call = call_of(gateway, request, caller, generation, "responses", stream=stream, prompt=asked.prompt)
        shape = ResponseShape(id, int(self._now_s()), call.generation.model, asked)

        def keep(whole: dict[str, object], answer: Answer) -> None:
            if asked.store is not False and whole["status"] != "failed":
                turns = (*conversation, answered(answer))
                self._stored.put(Kept(f"resp_{id}", caller.tenant, orjson.dumps(whole), turns, input_json(asked)))

        if stream:
            run = await gateway.open(call)
            if isinstance(run, Refused):
                raise as_fault(run, id)
            return streamed(run, ResponseStream(run, shape, keep).parts(), id, _BEAT)
        done = await gateway.complete(call)
        if isinstance(done, Refused):
            raise as_fault(done, id)
        whole = shape.whole(done[1])
        keep(whole, done[1])
        return Response(200, orjson.dumps(whole), headers=request_headers(id, done[0]))

    async def _before(self, asked: ResponsesRequest, caller: Caller) -> tuple[Message, ...]:
        if not asked.previous_response_id:
            return ()
        return (await self._kept(asked.previous_response_id, caller, "previous_response_id")).conversation

    async def _kept(self, id: str, caller: Caller, param: str) -> Kept:
        kept = await self._stored.get(id, caller.tenant)
        if kept is None:
            raise LLMFault(404, f"there is no response {id!r}", param=param, code="previous_response_not_found")
        return kept

    async def retrieve(self, request: Request) -> Response:
        """``GET /v1/responses/{id}``."""
        caller = authorised(self._gateway, request)
        kept = await self._kept(request.parameters[0], caller, "response_id")
        return Response(200, kept.body)

    async def input_items(self, request: Request) -> Response:
        """``GET /v1/responses/{id}/input_items``."""
        caller = authorised(self._gateway, request)
        kept = await self._kept(request.parameters[0], caller, "response_id")
        items = orjson.loads(kept.input)
        ends = {"first_id": items[0]["id"] if items else None, "last_id": items[-1]["id"] if items else None}
        return Response(200, orjson.dumps({"object": "list", "data": items, **ends, "has_more": False}))

    async def delete(self, request: Request) -> Response:
        """``DELETE /v1/responses/{id}``."""
        caller = authorised(self._gateway, request)
        id = request.parameters[0]
        if not await self._stored.delete(id, caller.tenant):
            raise LLMFault(404, f"there is no response {id!r}", param="response_id")
        return Response(200, orjson.dumps({"id": id, "object": "response", "deleted": True}))


def _with_instructions(generation: Generation, instructions: str | None, turns: tuple[Message, ...]) -> Generation:
    """The request with what was said before, and this request's own instructions first."""
    own = (Message("system", (instructions,)),) if instructions else ()
    return msgspec.structs.replace(generation, messages=(*own, *turns))
