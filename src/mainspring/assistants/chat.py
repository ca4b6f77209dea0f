"""A LangChain chat model over the gateway in this process: no socket, no second client library."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from operator import itemgetter
from typing import Any, Literal, TypeVar

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel, ConfigDict, Field

from mainspring.assistants.messages import choice_of, port_messages, port_tool
from mainspring.errors import ServiceError, UsageError
from mainspring.ports.llm import (
    End,
    Error,
    Event,
    Generation,
    Reasoning,
    Sampling,
    Schema,
    Text,
    Tool,
    ToolChoice,
    ToolDelta,
    Usage,
)

__all__ = ["ChatMainspring", "Generate", "ModelError"]

Generate = Callable[[Generation], AsyncIterator[Event]]
"""What answers a generation: an engine's method, or the gateway's. Closing the iterator cancels."""

T = TypeVar("T")
Method = Literal["json_schema", "function_calling", "json_mode"]


class ModelError(ServiceError):
    """The model could not answer.

    Attributes:
        event: the engine's own words: what kind of fault, and whether it may go away.
    """

    event: Error

    @classmethod
    def of(cls, event: Error, model: str) -> ModelError:
        """The fault that an engine's last event tells of."""
        fault = cls(
            f"model {model!r} has not answered: {event.kind}",
            code="MS-4301",
            why=event.message,
            fix="try again" if event.retryable else "look at the request, and at mainspring show llm/" + model,
        )
        fault.event = event
        return fault


class _Loop:
    """An event loop in a thread of its own, for calls from code that is not asynchronous."""

    _lock = threading.Lock()
    _running: asyncio.AbstractEventLoop | None = None

    @classmethod
    def get(cls) -> asyncio.AbstractEventLoop:
        with cls._lock:
            if cls._running is None:
                cls._running = asyncio.new_event_loop()
                threading.Thread(target=cls._running.run_forever, name="mainspring-chat", daemon=True).start()
            return cls._running


class ChatMainspring(BaseChatModel):
    """A model of the gateway as a LangChain chat model.

    Called with ``await``, it runs on the caller's event loop; called without, on `loop`, or on a loop in a thread of
    its own where none is given.
    """

    model_config = ConfigDict(populate_by_name=True, arbitrary_types_allowed=True)

    model_name: str = Field(default="", alias="model")
    """The model's name at the gateway."""
    generate_events: Generate = Field(alias="generate", exclude=True, repr=False)
    """What answers: the gateway's ``generate``, or an engine's."""
    loop: asyncio.AbstractEventLoop | None = Field(default=None, exclude=True, repr=False)
    """The event loop that `generate_events` lives on, for calls that are not awaited."""
    temperature: float | None = None
    """0 is greedy; None is the model's own."""
    max_tokens: int | None = None
    """Most tokens of an answer; None is the model's own."""
    top_p: float | None = None
    """Nucleus, in (0, 1]."""
    seed: int | None = None
    """Makes draws repeatable, as far as the engine can."""
    stop: list[str] | None = Field(default=None, alias="stop_sequences")
    """Texts that end an answer."""
    timeout: float | None = None
    """Seconds that an answer may take in all; None is the gateway's own limit."""

    @property
    def _llm_type(self) -> str:
        return "mainspring"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name, "temperature": self.temperature, "max_tokens": self.max_tokens}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "mainspring"
        params["ls_model_name"] = str(kwargs.get("model") or self.model_name)
        return params

    # -- asking -------------------------------------------------------------------------------------------------------

    def _request(
        self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, asked: dict[str, Any]
    ) -> Generation:
        tools: tuple[Tool, ...] = tuple(
            tool if isinstance(tool, Tool) else port_tool(tool) for tool in asked.get("tools") or ()
        )
        choice = asked.get("tool_choice")
        if not isinstance(choice, ToolChoice):
            choice = choice_of(choice, [tool.name for tool in tools], parallel=asked.get("parallel_tool_calls", True))
        sampling = Sampling(
            temperature=asked.get("temperature", self.temperature),
            top_p=asked.get("top_p", self.top_p),
            seed=asked.get("seed", self.seed),
            stop=tuple(stop or self.stop or ()),
            max_tokens=asked.get("max_tokens", self.max_tokens),
        )
        return Generation(
            id=uuid.uuid4().hex,
            model=asked.get("model") or self.model_name,
            messages=port_messages(messages),
            sampling=sampling,
            tools=tools,
            choice=choice,
            schema=asked.get("schema"),
            user=asked.get("user", ""),
        )

    async def _chunks(
        self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, asked: dict[str, Any]
    ) -> AsyncIterator[ChatGenerationChunk]:
        request = self._request(messages, stop, asked)
        seconds = asked.get("timeout", self.timeout)
        deadline = None if seconds is None else asyncio.get_running_loop().time() + seconds
        events = asked.get("generate", self.generate_events)(request)
        try:
            async for event in _until(events, deadline, request.model):
                if isinstance(event, Error):
                    raise ModelError.of(event, request.model)
                chunk = _chunk(event, request.model)
                if chunk is not None:
                    yield ChatGenerationChunk(message=chunk)
        finally:
            close = getattr(events, "aclose", None)
            if close is not None:
                await close()

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        pace = kwargs.get("pace")
        async for chunk in self._chunks(messages, stop, kwargs):
            if run_manager is not None:
                await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk
            if pace is not None:
                await pace.given()

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _folded([chunk async for chunk in self._chunks(messages, stop, kwargs)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self._waited(messages, stop, kwargs):
            if run_manager is not None:
                run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            yield chunk

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _folded(list(self._waited(messages, stop, kwargs)))

    def _waited(
        self, messages: Sequence[BaseMessage], stop: Sequence[str] | None, asked: dict[str, Any]
    ) -> Iterator[ChatGenerationChunk]:
        """The chunks, each waited for; leaving early closes the stream, which cancels."""
        loop = self.loop or _Loop.get()
        if _running() is loop:
            raise UsageError(
                "the model was called without await on the event loop that answers it",
                code="MS-2510",
                why="it would wait for itself for ever",
                fix="use ainvoke or astream there",
            )
        chunks = self._chunks(messages, stop, asked)
        try:
            while (chunk := asyncio.run_coroutine_threadsafe(_next(chunks), loop).result()) is not None:
                yield chunk
        finally:
            asyncio.run_coroutine_threadsafe(_closed(chunks), loop).result()

    # -- binding ------------------------------------------------------------------------------------------------------

    def bind_tools(
        self,
        tools: Sequence[Any],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool = True,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with tools.

        Args:
            tools: functions, LangChain tools, Pydantic models or OpenAI tools.
            tool_choice: ``auto``, ``none``, ``any``, or the name of a tool that must be called.
            strict: whether arguments are forced into the schemas.
            parallel_tool_calls: whether one answer may hold several calls.
            **kwargs: further arguments of each call.
        """
        formatted = [convert_to_openai_tool(tool, strict=strict) for tool in tools]
        names = [tool["function"]["name"] for tool in formatted]
        choice_of(tool_choice, names)
        more = {} if parallel_tool_calls else {"parallel_tool_calls": False}
        return self.bind(tools=formatted, tool_choice=tool_choice, **more, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: Method = "json_schema",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """The model with answers of a shape.

        Args:
            schema: a Pydantic model, a TypedDict, or a JSON schema with a title.
            include_raw: answer ``{"raw", "parsed", "parsing_error"}``.
            method: ``json_schema`` forces the answer by grammar, ``function_calling`` by a tool, ``json_mode`` asks for
                any JSON object.
            strict: whether the engine must force it; only with ``json_schema`` and ``function_calling``.
            **kwargs: further arguments of each call.
        """
        pydantic = isinstance(schema, type) and is_basemodel_subclass(schema)
        told = {"kwargs": {"method": method}, "schema": convert_to_json_schema(schema)}
        parser: Runnable[Any, Any]
        if method == "function_calling":
            name = convert_to_openai_tool(schema)["function"]["name"]
            model: Runnable[Any, Any] = self.bind_tools(
                [schema], tool_choice=name, strict=strict, ls_structured_output_format=told, **kwargs
            )
            parser = (
                PydanticToolsParser(tools=[schema], first_tool_only=True)  # type: ignore[list-item]
                if pydantic
                else JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
            )
        else:
            asked = Schema() if method == "json_mode" else _schema(schema, strict)
            model = self.bind(schema=asked, ls_structured_output_format=told, **kwargs)
            parser = _pydantic(schema) if pydantic else JsonOutputParser()
        if not include_raw:
            return model | parser
        parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        failed = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=model) | parsed.with_fallbacks([failed], exception_key="parsing_error")


def _schema(schema: dict[str, Any] | type, strict: bool | None) -> Schema:
    found = dict(convert_to_json_schema(schema))
    return Schema(found, str(found.get("title", "answer")), True if strict is None else strict)


def _pydantic(schema: Any) -> Runnable[Any, Any]:
    return PydanticOutputParser(pydantic_object=schema)


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _next(chunks: AsyncIterator[T]) -> T | None:
    return await anext(chunks, None)


async def _closed(chunks: Any) -> None:
    await chunks.aclose()


async def _until(events: AsyncIterator[Event], deadline: float | None, model: str) -> AsyncIterator[Event]:
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                event = await anext(events, None)
        except TimeoutError:
            yield Error("timeout", f"the answer of {model} took longer than it may", retryable=True)
            return
        if event is None:
            return
        yield event
        if isinstance(event, End | Error):
            return


def _chunk(event: Event, model: str) -> AIMessageChunk | None:
    if isinstance(event, Text):
        return AIMessageChunk(content=event.text) if event.choice == 0 and event.text else None
    if isinstance(event, Reasoning):
        return (
            AIMessageChunk(content="", additional_kwargs={"reasoning_content": event.text})
            if event.choice == 0
            else None
        )
    if isinstance(event, ToolDelta):
        return _call_chunk(event) if event.choice == 0 else None
    if isinstance(event, End):
        return _last_chunk(event, model)
    return None


def _call_chunk(event: ToolDelta) -> AIMessageChunk:
    piece = tool_call_chunk(name=event.name or None, args=event.arguments, id=event.id or None, index=event.index)
    return AIMessageChunk(content="", tool_call_chunks=[piece])


def _last_chunk(event: End, model: str) -> AIMessageChunk:
    metadata = {
        "finish_reason": event.reasons[0] if event.reasons else "stop",
        "model_name": model,
        "model_provider": "mainspring",
    }
    return AIMessageChunk(
        content="",
        response_metadata=metadata,
        usage_metadata=None if event.usage is None else _usage(event.usage),
        chunk_position="last",
    )


def _usage(usage: Usage) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=usage.prompt,
        output_tokens=usage.completion,
        total_tokens=usage.prompt + usage.completion,
        input_token_details={"cache_read": usage.cached, "cache_creation": usage.cache_write},
        output_token_details={"reasoning": usage.reasoning},
    )


def _folded(chunks: Sequence[ChatGenerationChunk]) -> ChatResult:
    whole = chunks[0]
    if len(chunks) > 1:
        whole = whole + list(chunks[1:])
    found = whole.message
    assert isinstance(found, AIMessageChunk), "we make no other chunks"
    message = AIMessage(
        content=found.content,
        additional_kwargs=found.additional_kwargs,
        response_metadata=found.response_metadata,
        tool_calls=found.tool_calls,
        invalid_tool_calls=found.invalid_tool_calls,
        usage_metadata=found.usage_metadata,
    )
    return ChatResult(generations=[ChatGeneration(message=message)])
