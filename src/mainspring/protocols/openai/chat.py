"""``POST /v1/chat/completions``: decoding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from mainspring.ports.llm import Generation, Message, Part, Role, Sampling, Schema, Tool, ToolCall, ToolChoice
from mainspring.protocols.llm.asking import PromptUse
from mainspring.protocols.llm.faults import bad, decoded
from mainspring.protocols.llm.pictures import picture_of_url

__all__ = [
    "ChatMessage",
    "ChatRequest",
    "Penalty",
    "Positive",
    "ResponseFormat",
    "Share",
    "Stops",
    "StreamOptions",
    "Temperature",
    "chat_request",
    "message_of",
    "schema_of",
    "stops_of",
]

Positive = Annotated[int, Meta(ge=1)]
Temperature = Annotated[float, Meta(ge=0, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Stop = Annotated[str, Meta(min_length=1)]
Stops = str | Annotated[list[Stop], Meta(max_length=16)] | None


class TextPart(msgspec.Struct, tag_field="type", tag="text"):
    """Text of a message."""

    text: str


class RefusalPart(msgspec.Struct, tag_field="type", tag="refusal"):
    """An assistant's refusal, as it was given earlier."""

    refusal: str


class ImageUrl(msgspec.Struct):
    """Where a picture is: in the address itself."""

    url: str
    detail: str = "auto"


class ImagePart(msgspec.Struct, tag_field="type", tag="image_url"):
    """A picture of a message."""

    image_url: ImageUrl


class FunctionCall(msgspec.Struct):
    """What a call calls."""

    name: str
    arguments: str = ""


class CallPart(msgspec.Struct):
    """A call that an assistant's turn asked for."""

    id: str
    function: FunctionCall
    type: Literal["function"] = "function"


class ChatMessage(msgspec.Struct):
    """A turn."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart | ImagePart | RefusalPart] | None = None
    name: str | None = None
    tool_calls: list[CallPart] | None = None
    tool_call_id: str | None = None


class FunctionSpec(msgspec.Struct):
    """A tool's description."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(msgspec.Struct):
    """A tool."""

    function: FunctionSpec
    type: Literal["function"] = "function"


class NamedFunction(msgspec.Struct):
    """A tool's name."""

    name: str


class NamedTool(msgspec.Struct):
    """The tool that has to be called."""

    function: NamedFunction
    type: Literal["function"] = "function"


class JsonSchema(msgspec.Struct):
    """The schema that the answer has to fit."""

    name: str = ""
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(msgspec.Struct):
    """What the answer has to be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StreamOptions(msgspec.Struct):
    """How an answer is streamed."""

    include_usage: bool = False


class ChatRequest(msgspec.Struct):
    """The body of a chat completion."""

    model: str = ""
    messages: list[ChatMessage] = []
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: int | None = None
    min_p: Share | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    seed: int | None = None
    stop: Stops = None
    max_tokens: Positive | None = None
    max_completion_tokens: Positive | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[int, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt: PromptUse | None = None
    reasoning_effort: Any | UnsetType = UNSET
    verbosity: Any | UnsetType = UNSET
    service_tier: Any | UnsetType = UNSET
    prediction: Any | UnsetType = UNSET
    prompt_cache_key: Any | UnsetType = UNSET
    chat_template_kwargs: Any | UnsetType = UNSET
    repetition_penalty: Any | UnsetType = UNSET


_DECODER = msgspec.json.Decoder(ChatRequest)
_EXTRA = (
    "reasoning_effort", "verbosity", "service_tier", "prediction", "prompt_cache_key", "chat_template_kwargs",
    "repetition_penalty",
)  # fmt: skip
_extra_values = attrgetter(*_EXTRA)
_NO_EXTRA = (UNSET,) * len(_EXTRA)


def chat_request(body: bytes, request_id: str) -> tuple[ChatRequest, Generation]:
    """A decoded body, and what it asks for.

    Raises:
        LLMFault: 400, with the field that is wrong.
    """
    asked = decoded(_DECODER, body)
    if not asked.messages and asked.prompt is None:
        raise bad("messages are empty: at least one is needed", "messages")
    tools = tuple([_tool(tool.function) for tool in asked.tools]) if asked.tools else ()
    if asked.top_logprobs is not None and not asked.logprobs:
        raise bad("top_logprobs needs logprobs: true", "top_logprobs")
    return asked, Generation(
        id=request_id,
        model=asked.model,
        messages=tuple([message_of(message, place) for place, message in enumerate(asked.messages)]),
        sampling=_sampling(asked),
        tools=tools,
        choice=_choice(asked, tools),
        schema=schema_of(asked.response_format) if asked.response_format is not None else None,
        user=asked.user or asked.safety_identifier or "",
        extra=_extra(asked),
    )


def _tool(given: FunctionSpec) -> Tool:
    return Tool(given.name, given.description or "", given.parameters or {}, given.strict or False)


def _extra(asked: ChatRequest) -> Mapping[str, object]:
    """The fields that are handed on as they are."""
    values = _extra_values(asked)
    if values == _NO_EXTRA:
        return {}
    given = zip(_EXTRA, values, strict=True)
    return {name: value for name, value in given if value is not UNSET and value is not None}


def stops_of(stop: str | list[str] | None) -> tuple[str, ...]:
    """Texts that end an answer."""
    if stop is None or stop == "":
        return ()
    return (stop,) if isinstance(stop, str) else tuple(stop)


def _sampling(asked: ChatRequest) -> Sampling:
    return Sampling(  # by place, as names cost as much again
        asked.temperature,
        asked.top_p,
        asked.top_k,
        asked.min_p,
        asked.seed,
        stops_of(asked.stop) if asked.stop else (),
        asked.max_completion_tokens or asked.max_tokens,
        asked.n or 1,
        asked.presence_penalty,
        asked.frequency_penalty,
        asked.logit_bias or {},
        (asked.top_logprobs or 0) if asked.logprobs else None,
    )


def _choice(asked: ChatRequest, tools: tuple[Tool, ...]) -> ToolChoice:
    given = asked.tool_choice
    if given is None and asked.parallel_tool_calls is None:
        return _AUTO
    if not tools and given in ("required",):
        raise bad("tool_choice: required needs tools", "tool_choice")
    parallel = asked.parallel_tool_calls is not False
    if isinstance(given, NamedTool):
        return ToolChoice("named", given.function.name, parallel)
    return ToolChoice(given or "auto", parallel=parallel)


_AUTO = ToolChoice()


def schema_of(given: ResponseFormat | None) -> Schema | None:
    """What the answer has to be.

    Raises:
        LLMFault: 400, the schema is missing.
    """
    if given is None or given.type == "text":
        return None
    if given.type == "json_object":
        return Schema()
    if given.json_schema is None or given.json_schema.schema is None:
        raise bad("json_schema needs a schema", "response_format.json_schema.schema")
    return Schema(given.json_schema.schema, given.json_schema.name, given.json_schema.strict is not False)


_SPEAKERS = frozenset({"system", "user", "assistant"})


def message_of(given: ChatMessage, place: int) -> Message:
    """A turn of a conversation.

    Raises:
        LLMFault: 400.
    """
    if given.role in _SPEAKERS and type(given.content) is str and not (given.tool_calls or given.tool_call_id):
        return Message(given.role, (given.content,), given.name or "")  # type: ignore[arg-type]
    role: Role = "system" if given.role == "developer" else given.role
    content = (given.content,) if isinstance(given.content, str) else _parts(given.content or (), place)
    if role == "user" and given.content is None:
        raise bad("a user's message has no content", f"messages[{place}].content")
    if role == "tool" and not given.tool_call_id:
        raise bad("a tool's message names the call that it answers", f"messages[{place}].tool_call_id")
    if not given.tool_calls:
        return Message(role, content, given.name or "", (), given.tool_call_id or "")
    calls = [ToolCall(call.id, call.function.name, call.function.arguments) for call in given.tool_calls]
    return Message(role, content, given.name or "", tuple(calls), given.tool_call_id or "")


def _parts(given: Sequence[TextPart | ImagePart | RefusalPart], place: int) -> tuple[Part, ...]:
    found: list[Part] = []
    for number, part in enumerate(given):
        if isinstance(part, TextPart):
            found.append(part.text)
        elif isinstance(part, RefusalPart):
            found.append(part.refusal)
        else:
            found.append(picture_of_url(part.image_url.url, f"messages[{place}].content[{number}].image_url"))
    return tuple(found)
