"""Our middleware of a LangChain agent: identity, retrieval, citations, limits, tools and tracing."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

import orjson
from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
from langchain.agents.middleware.types import ToolCallRequest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, SystemMessage, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.constants import TAG_NOSTREAM
from langgraph.types import Command

from mainspring.assistants.calling import Outcome, carry_out
from mainspring.assistants.chat import ModelError
from mainspring.assistants.citing import Citing
from mainspring.assistants.context import RunContext
from mainspring.assistants.events import Text, ToolCall, ToolResult
from mainspring.assistants.shaping import SOURCES_RULE, last_question, prepared, this_turn, with_sources
from mainspring.assistants.trace import Open
from mainspring.assistants.usable import Usable

__all__ = ["Answering", "Calling", "search_tool_name"]

Request = ModelRequest[RunContext]
Handler = Callable[[Request], Awaitable[ModelResponse[Any]]]
State = AgentState[Any]


def search_tool_name(index: str) -> str:
    """The name of the tool that searches an index."""
    return f"search_{index}"


class Answering(AgentMiddleware[State, RunContext, Any]):
    """Around each call of the model: what it is shown, what it may ask for, and what its citations are worth.

    **What is retrieved never yields a tool call.** A call of the model that is shown sources is offered no tools but
    further searches, and whatever else it asks for all the same is taken out of its answer; a model that may use tools
    is asked first without sources which it needs, and then, with the tools' results and the sources, for the answer.

    Args:
        usables: the tools, by name.
        always: retrieve for each question; otherwise when the model asks for it with a search tool.
        max_calls: most tool calls of one turn.
    """

    def __init__(self, usables: Mapping[str, Usable], *, always: bool, max_calls: int) -> None:
        super().__init__()
        self._usables = usables
        self._always = always
        self._max_calls = max_calls

    async def awrap_model_call(self, request: Request, handler: Handler) -> ModelResponse[Any]:
        """Ask the model, in one step or two."""
        ctx = request.runtime.context
        searches = {search_tool_name(index) for index in ctx.sources.indexes}
        turn = this_turn(request.messages)
        tools = self._offered(request.tools, ctx, turn)
        base = request.override(messages=prepared(request.messages), tools=tools, system_message=_system(request, ctx))
        if ctx.generate is not None:
            base = base.override(model_settings={**base.model_settings, "generate": ctx.generate})
        if not self._always:
            await self._search_again(ctx, turn)
        else:
            await self._search(ctx, last_question(request.messages), request)
        acting = [tool for tool in tools if _name(tool) not in searches]
        if self._always and ctx.sources.found and acting:
            asked = await self._ask(base.override(model=_quiet(request.model)), handler, ctx)
            if _calls(asked):
                return self._tell(asked, request)
        base = base.override(model_settings={**base.model_settings, "pace": ctx.pace})
        if not ctx.sources.found:
            return self._tell(await self._ask(base, handler, ctx), request)
        base = base.override(tools=[tool for tool in base.tools if _name(tool) in searches])
        return self._tell(await self._checked(await self._ask_shown(base, handler, ctx), ctx), request)

    async def _ask_shown(self, request: Request, handler: Handler, ctx: RunContext) -> ModelResponse[Any]:
        """Ask with the sources; with half as many, the best, where the model cannot read as much."""
        most, told = len(ctx.sources.found), ctx.pace.count
        while True:
            try:
                return await self._ask(_shown(request, ctx, most), handler, ctx)
            except ModelError as error:
                if error.event.kind != "context_length" or most == 1 or ctx.pace.count > told:
                    raise
                most //= 2

    def _offered(self, tools: Sequence[Any], ctx: RunContext, turn: Sequence[BaseMessage]) -> list[Any]:
        """The tools that the caller may cause and that the turn has calls left for."""
        if sum(isinstance(message, ToolMessage) for message in turn) >= self._max_calls:
            return []
        return [
            tool for tool in tools if (usable := self._usables.get(_name(tool))) is None or usable.allowed(ctx.caller)
        ]

    async def _search(self, ctx: RunContext, question: str, request: Request) -> None:
        if not ctx.sources.indexes or not question or "" in ctx.searched:
            return
        ctx.searched.add("")
        with ctx.trace.span("retrieval", ", ".join(ctx.sources.indexes)) as span:
            found = await ctx.sources.search(question)
            span.note(versions={one.index: one.version for one in found}, sources=len(ctx.sources.found))
        for one in found:
            request.runtime.stream_writer(one)

    async def _search_again(self, ctx: RunContext, turn: Sequence[BaseMessage]) -> None:
        """Searches that the turn's earlier messages speak of and this process has not made: the run goes on elsewhere.

        They are made anew, with the rights that the caller has now.
        """
        for message in turn:
            for call in message.tool_calls if isinstance(message, AIMessage) else ():
                index = call["name"].removeprefix("search_")
                if index != call["name"] and index in ctx.sources.indexes and call["id"] not in ctx.searched:
                    ctx.searched.add(call["id"] or "")
                    await ctx.sources.search(str(call["args"].get("query", "")), index)

    async def _ask(self, request: Request, handler: Handler, ctx: RunContext) -> ModelResponse[Any]:
        """One call of the model; calls of tools that it was not offered are taken out of what it says."""
        model = getattr(request.model, "model_name", None) or type(request.model).__name__
        with ctx.trace.span("model", str(model)) as span:
            response = await handler(request)
            ctx.spending.model_calls += 1
            names = {_name(tool) for tool in request.tools}
            response.result[:] = [_without_strange_calls(message, names, span) for message in response.result]
            _count(response, ctx, span)
        return response

    async def _checked(self, response: ModelResponse[Any], ctx: RunContext) -> ModelResponse[Any]:
        """The answer as the thread keeps it: with the citations that hold, and no others."""
        for place, message in enumerate(response.result):
            known = ctx.sources.found or ctx.grounded
            if isinstance(message, AIMessage) and isinstance(message.content, str) and known:
                citing = Citing(ctx.sources, ctx.must_stand if ctx.grounded and not message.tool_calls else None)
                pieces = await citing.feed(message.content) + await citing.close()
                text = "".join(piece.text for piece in pieces if isinstance(piece, Text))
                response.result[place] = message.model_copy(update={"content": text})
        return response

    def _tell(self, response: ModelResponse[Any], request: Request) -> ModelResponse[Any]:
        for call in _calls(response):
            request.runtime.stream_writer(ToolCall(id=call["id"] or "", name=call["name"], arguments=call["args"]))
        return response


class Calling(AgentMiddleware[State, RunContext, Any]):
    """Around each call of a tool: may the caller cause it, is it within the limit, in time, once.

    Args:
        usables: the tools, by name.
        max_calls: most tool calls of one turn.
    """

    def __init__(self, usables: Mapping[str, Usable], *, max_calls: int) -> None:
        super().__init__()
        self._usables = usables
        self._max_calls = max_calls

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[ToolMessage | Command[Any]]]
    ) -> ToolMessage | Command[Any]:
        """Carry a call out, or say why not; never raises for what a tool does."""
        ctx = cast("RunContext", request.runtime.context)
        call = request.tool_call
        started = time.perf_counter_ns()
        with ctx.trace.span("tool", call["name"]) as span:
            outcome = await self._outcome(request, ctx)
            span.note(status=outcome.status, arguments=call["args"])
            span.failed = outcome.why
        took_us = (time.perf_counter_ns() - started) // 1000
        request.runtime.stream_writer(
            ToolResult(
                id=call["id"] or "", name=call["name"], status=outcome.status, content=outcome.text, took_us=took_us
            )
        )
        return ToolMessage(
            content=outcome.text,
            tool_call_id=call["id"] or "",
            name=call["name"],
            status="success" if outcome.status == "ok" else "error",
        )

    async def _outcome(self, request: ToolCallRequest, ctx: RunContext) -> Outcome:
        messages: Sequence[BaseMessage] = request.state["messages"]
        call = request.tool_call
        if _place(call["id"], messages) >= self._max_calls:
            return Outcome("refused", f"Not carried out: a turn may make {self._max_calls} calls.")
        index = call["name"].removeprefix("search_")
        if index != call["name"] and index in ctx.sources.indexes:
            return await self._search(request, index, ctx)
        usable = self._usables.get(call["name"])
        if usable is None:
            return Outcome("refused", f"There is no tool {call['name']!r}.")
        if not usable.allowed(ctx.caller):
            return Outcome("refused", "Not carried out: the caller may not use this tool.")
        ctx.spending.tool_calls += 1
        once = f"{_asked_by(call['id'], messages)}/{call['id']}" if usable.approve else ""
        return await carry_out(usable, orjson.dumps(call["args"]), ctx.caller, ctx.ledger, once)

    async def _search(self, request: ToolCallRequest, index: str, ctx: RunContext) -> Outcome:
        """Search; the model is shown what was found with its next request, and the thread keeps none of it."""
        ctx.searched.add(request.tool_call["id"] or "")
        ctx.spending.tool_calls += 1
        before = len(ctx.sources.found)
        for one in await ctx.sources.search(str(request.tool_call["args"].get("query", "")), index):
            request.runtime.stream_writer(one)
        found = len(ctx.sources.found) - before
        if not found:
            return Outcome("ok", "Nothing was found.")
        return Outcome("ok", f"Found: sources [{before + 1}] to [{before + found}].")


def _name(tool: BaseTool | Mapping[str, Any]) -> str:
    if isinstance(tool, BaseTool):
        return tool.name
    return str(tool.get("function", tool).get("name", ""))


def _quiet(model: BaseChatModel) -> BaseChatModel:
    """The model with its words kept from the client: they are no answer yet."""
    return model.model_copy(update={"tags": [*(model.tags or ()), TAG_NOSTREAM]})


def _system(request: Request, ctx: RunContext) -> SystemMessage | None:
    parts = [request.system_message.text if request.system_message else "", ctx.addition]
    text = "\n\n".join(part for part in parts if part)
    return SystemMessage(content=text) if text else None


def _shown(request: Request, ctx: RunContext, most: int) -> Request:
    """The request with so many of the sources."""
    instructions = request.system_message.text if request.system_message else ""
    return request.override(
        messages=with_sources(request.messages, ctx.sources.block(most)),
        system_message=SystemMessage(content=f"{instructions}\n\n{SOURCES_RULE}".strip()),
    )


def _calls(response: ModelResponse[Any]) -> list[Any]:
    return [call for message in response.result if isinstance(message, AIMessage) for call in message.tool_calls]


def _without_strange_calls(message: BaseMessage, names: set[str], span: Open) -> BaseMessage:
    if not isinstance(message, AIMessage) or not (message.tool_calls or message.invalid_tool_calls):
        return message
    kept = [call for call in message.tool_calls if call["name"] in names]
    broken = [call for call in message.invalid_tool_calls if names]
    strange = [call["name"] for call in message.tool_calls if call["name"] not in names]
    if strange:
        span.note(not_offered=strange)
    return message.model_copy(update={"tool_calls": kept, "invalid_tool_calls": broken})


def _count(response: ModelResponse[Any], ctx: RunContext, span: Open) -> None:
    for message in response.result:
        if not isinstance(message, AIMessage):
            continue
        ctx.finish_reason = str(message.response_metadata.get("finish_reason", "stop"))
        usage = message.usage_metadata
        if usage is not None:
            cached = usage.get("input_token_details", {}).get("cache_read", 0)
            ctx.spending.prompt += usage["input_tokens"]
            ctx.spending.completion += usage["output_tokens"]
            ctx.spending.cached += cached
            span.note(prompt=usage["input_tokens"], completion=usage["output_tokens"], cached=cached)
        span.note(finish_reason=ctx.finish_reason, calls=[call["name"] for call in message.tool_calls])


def _place(call_id: str | None, messages: Sequence[BaseMessage]) -> int:
    """How many calls of the turn come before a call."""
    calls = [
        call["id"] for message in this_turn(messages) if isinstance(message, AIMessage) for call in message.tool_calls
    ]
    return len(calls) - 1 - calls[::-1].index(call_id) if call_id in calls else len(calls)


def _asked_by(call_id: str | None, messages: Sequence[BaseMessage]) -> str:
    """The message that asks for a call: models number their calls anew in each."""
    for message in reversed(messages):
        if isinstance(message, AIMessage) and any(call["id"] == call_id for call in message.tool_calls):
            return message.id or ""
    return ""
