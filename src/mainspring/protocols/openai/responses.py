"""``POST /v1/responses``: decoding."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import orjson
from msgspec import Meta

from mainspring.ports.llm import Generation, Message, Part, Role, Sampling, Schema, Tool, ToolCall, ToolChoice
from mainspring.protocols.llm.asking import PromptUse
from mainspring.protocols.llm.faults import bad, decoded
from mainspring.protocols.llm.pictures import picture_of_url
from mainspring.protocols.openai.chat import Positive, Share, Temperature

__all__ = ["ResponsesRequest", "input_json", "responses_request"]


class InputItem(msgspec.Struct):
    """One item of the input: a turn, a call, or a call's result."""

    type: str = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[dict[str, Any]] | None = None
    id: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[dict[str, Any]] | None = None


class FlatTool(msgspec.Struct):
    """A tool; of the built-in ones there is none here."""

    type: str
    name: str | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedFlat(msgspec.Struct):
    """The tool that has to be called."""

    type: str
    name: str | None = None


class TextFormat(msgspec.Struct):
    """What the answer has to be."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str = ""
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class TextOptions(msgspec.Struct):
    """Options of the text."""

    format: TextFormat | None = None
    verbosity: str | None = None


class ReasoningOptions(msgspec.Struct):
    """How much the model thinks."""

    effort: str | None = None
    summary: str | None = None


class ResponsesRequest(msgspec.Struct):
    """The body of a request for a response."""

    model: str = ""
    input: str | list[InputItem] | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = False
    max_output_tokens: Positive | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    include: list[str] | None = None
    tools: list[FlatTool] | None = None
    tool_choice: Literal["auto", "none", "required"] | NamedFlat | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    truncation: Literal["auto", "disabled"] | None = None
    prompt: PromptUse | None = None
    background: bool | None = None
    conversation: Any = None


_DECODER = msgspec.json.Decoder(ResponsesRequest)


def responses_request(body: bytes, request_id: str) -> tuple[ResponsesRequest, Generation]:
    """A decoded body, and what it asks for; what came before and the instructions are added by whoever knows them.

    Raises:
        LLMFault: 400, with the field that is wrong.
    """
    asked = decoded(_DECODER, body)
    if asked.background:
        raise bad("responses in the background are not supported", "background")
    if asked.conversation is not None:
        raise bad("conversations are not supported: use previous_response_id", "conversation")
    if not asked.input and asked.prompt is None:
        raise bad("the input is empty", "input")
    tools = tuple(_tool(tool, place) for place, tool in enumerate(asked.tools or ()))
    logprobs = "message.output_text.logprobs" in (asked.include or ()) or asked.top_logprobs is not None
    effort = asked.reasoning.effort if asked.reasoning is not None else None
    return asked, Generation(
        id=request_id,
        model=asked.model,
        messages=_messages(asked.input),
        sampling=Sampling(
            temperature=asked.temperature,
            top_p=asked.top_p,
            max_tokens=asked.max_output_tokens,
            logprobs=(asked.top_logprobs or 0) if logprobs else None,
        ),
        tools=tools,
        choice=_choice(asked),
        schema=_schema(asked.text),
        user=asked.user or asked.safety_identifier or "",
        extra={"reasoning_effort": effort} if effort else {},
    )


def _tool(tool: FlatTool, place: int) -> Tool:
    if tool.type != "function" or not tool.name:
        raise bad(f"only tools of type function are supported, not {tool.type!r}", f"tools[{place}].type")
    return Tool(tool.name, tool.description or "", tool.parameters or {}, tool.strict or False)


def _choice(asked: ResponsesRequest) -> ToolChoice:
    given, parallel = asked.tool_choice, asked.parallel_tool_calls is not False
    if isinstance(given, NamedFlat):
        if given.type != "function" or not given.name:
            raise bad(f"a tool_choice of type {given.type!r} is not supported", "tool_choice.type")
        return ToolChoice("named", given.name, parallel)
    if given == "required" and not asked.tools:
        raise bad("tool_choice: required needs tools", "tool_choice")
    return ToolChoice(given or "auto", parallel=parallel)


def _schema(text: TextOptions | None) -> Schema | None:
    given = text.format if text is not None else None
    if given is None or given.type == "text":
        return None
    if given.type == "json_object":
        return Schema()
    if given.schema is None:
        raise bad("json_schema needs a schema", "text.format.schema")
    return Schema(given.schema, given.name, given.strict is not False)


def _messages(given: str | list[InputItem] | None) -> tuple[Message, ...]:
    if given is None:
        return ()
    if isinstance(given, str):
        return (Message("user", (given,)),)
    found: list[Message] = []
    for place, item in enumerate(given):
        _add(found, item, f"input[{place}]")
    return tuple(found)


def _add(found: list[Message], item: InputItem, place: str) -> None:
    if item.type == "message" and item.role is not None:
        role: Role = "system" if item.role == "developer" else item.role
        found.append(Message(role, _parts(item.content, f"{place}.content")))
    elif item.type == "function_call" and item.call_id and item.name:
        call = ToolCall(item.call_id, item.name, item.arguments or "")
        last = found[-1] if found else None
        if last is not None and last.role == "assistant":  # one turn of the model: its text and its calls
            found[-1] = msgspec.structs.replace(last, calls=(*last.calls, call))
        else:
            found.append(Message("assistant", (), "", (call,)))
    elif item.type == "function_call_output" and item.call_id:
        found.append(Message("tool", _parts(item.output, f"{place}.output"), answers=item.call_id))
    elif item.type != "reasoning":  # what a model thought is not told to it again
        raise bad(f"an item of type {item.type!r} is not supported, or lacks its fields", place)


def _parts(given: str | list[dict[str, Any]] | None, place: str) -> tuple[Part, ...]:
    if isinstance(given, str):
        return (given,)
    found: list[Part] = []
    for number, part in enumerate(given or ()):
        kind = part.get("type")
        if kind in ("input_text", "output_text", "text") and isinstance(part.get("text"), str):
            found.append(part["text"])
        elif kind == "refusal" and isinstance(part.get("refusal"), str):
            found.append(part["refusal"])
        elif kind == "input_image" and isinstance(part.get("image_url"), str):
            found.append(picture_of_url(part["image_url"], f"{place}[{number}].image_url"))
        else:
            raise bad(f"a part of type {kind!r} is not supported, or lacks its fields", f"{place}[{number}].type")
    return tuple(found)


def input_json(asked: ResponsesRequest) -> bytes:
    """The items that were given, each with its type, as JSON."""
    if asked.input is None or isinstance(asked.input, str):
        content = [{"type": "input_text", "text": asked.input or ""}]
        return orjson.dumps([{"id": "msg_0", "type": "message", "role": "user", "content": content}])
    items = []
    for place, item in enumerate(asked.input):
        shown = {name: value for name, value in msgspec.to_builtins(item).items() if value is not None}
        if isinstance(shown.get("content"), str):
            kind = "output_text" if item.role == "assistant" else "input_text"
            shown["content"] = [{"type": kind, "text": shown["content"]}]
        items.append({"id": f"msg_{place}", **shown})
    return orjson.dumps(items)
