"""``POST /v1/messages`` and ``/v1/messages/count_tokens``: decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
import orjson
from msgspec import Meta

from mainspring.ports.llm import Generation, Message, Part, Sampling, Schema, Tool, ToolCall, ToolChoice
from mainspring.protocols.llm.faults import bad, decoded
from mainspring.protocols.llm.pictures import picture

__all__ = ["MessagesRequest", "messages_request"]


class TextBlock(msgspec.Struct, tag_field="type", tag="text"):
    """Text."""

    text: str


class ImageSource(msgspec.Struct):
    """Where a picture is: in the request itself."""

    type: Literal["base64"]
    media_type: str
    data: str


class ImageBlock(msgspec.Struct, tag_field="type", tag="image"):
    """A picture."""

    source: ImageSource


class ToolUseBlock(msgspec.Struct, tag_field="type", tag="tool_use"):
    """A call that the assistant asked for."""

    id: str
    name: str
    input: dict[str, Any] = {}


class ToolResultBlock(msgspec.Struct, tag_field="type", tag="tool_result"):
    """What a call came to."""

    tool_use_id: str
    content: str | list[TextBlock | ImageBlock] | None = None
    is_error: bool | None = None


class ThinkingBlock(msgspec.Struct, tag_field="type", tag="thinking"):
    """What the assistant thought; it is not told to it again."""

    thinking: str = ""
    signature: str = ""


class RedactedThinkingBlock(msgspec.Struct, tag_field="type", tag="redacted_thinking"):
    """The same, unreadable."""

    data: str = ""


Block = TextBlock | ImageBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock | RedactedThinkingBlock


class Turn(msgspec.Struct):
    """A turn."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class ToolSpec(msgspec.Struct):
    """A tool."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    input_schema: dict[str, Any] | None = None
    description: str | None = None
    type: str | None = None
    strict: bool | None = None


class Choice(msgspec.Struct):
    """Whether a tool is called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Metadata(msgspec.Struct):
    """Who the end user is."""

    user_id: str | None = None


class OutputFormat(msgspec.Struct):
    """What the answer has to be."""

    type: Literal["json_schema"]
    schema: dict[str, Any]


class OutputConfig(msgspec.Struct):
    """How the answer is made."""

    format: OutputFormat | None = None
    effort: str | None = None


class MessagesRequest(msgspec.Struct):
    """The body of a message."""

    messages: list[Turn]
    model: str = ""
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    system: str | list[TextBlock] | None = None
    stream: bool | None = False
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0)] | None = None
    stop_sequences: Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(max_length=16)] | None = None
    tools: list[ToolSpec] | None = None
    tool_choice: Choice | None = None
    metadata: Metadata | None = None
    thinking: dict[str, Any] | None = None
    output_config: OutputConfig | None = None


_DECODER = msgspec.json.Decoder(MessagesRequest)


def messages_request(body: bytes, request_id: str, *, counting: bool = False) -> tuple[MessagesRequest, Generation]:
    """A decoded body, and what it asks for.

    Args:
        body: JSON.
        request_id: of the request.
        counting: whether only tokens are counted, so that ``max_tokens`` is not needed.

    Raises:
        LLMFault: 400, with the field that is wrong.
    """
    asked = decoded(_DECODER, body)
    if not asked.messages:
        raise bad("messages are empty: at least one is needed", "messages")
    if asked.max_tokens is None and not counting:
        raise bad("max_tokens is needed", "max_tokens")
    tools = tuple(_tool(tool) for tool in asked.tools or ())
    form = asked.output_config.format if asked.output_config is not None else None
    return asked, Generation(
        id=request_id,
        model=asked.model,
        messages=(*_system(asked.system), *_turns(asked.messages)),
        sampling=Sampling(
            temperature=asked.temperature,
            top_p=asked.top_p,
            top_k=asked.top_k or None,
            stop=tuple(asked.stop_sequences or ()),
            max_tokens=asked.max_tokens,
        ),
        tools=tools,
        choice=_choice(asked.tool_choice, tools),
        schema=None if form is None else Schema(form.schema),
        user=(asked.metadata.user_id or "") if asked.metadata is not None else "",
        extra={} if asked.thinking is None else {"thinking": asked.thinking},
    )


def _tool(tool: ToolSpec) -> Tool:
    if tool.type not in (None, "custom"):
        raise bad(f"a tool of type {tool.type!r} is not supported", "tools")
    return Tool(tool.name, tool.description or "", tool.input_schema or {}, tool.strict or False)


def _choice(given: Choice | None, tools: tuple[Tool, ...]) -> ToolChoice:
    if given is None:
        return ToolChoice()
    if given.type in ("any", "tool") and not tools:
        raise bad(f"tool_choice: {given.type} needs tools", "tool_choice")
    parallel = not given.disable_parallel_tool_use
    if given.type == "tool":
        return ToolChoice("named", given.name or "", parallel)
    return ToolChoice({"auto": "auto", "any": "required", "none": "none"}[given.type], parallel=parallel)  # type: ignore[arg-type]


def _system(given: str | list[TextBlock] | None) -> tuple[Message, ...]:
    if not given:
        return ()
    return (Message("system", (given,) if isinstance(given, str) else tuple(block.text for block in given)),)


def _turns(given: Sequence[Turn]) -> list[Message]:
    found: list[Message] = []
    for place, turn in enumerate(given):
        if isinstance(turn.content, str):
            found.append(Message(turn.role, (turn.content,)))
        else:
            _add_turn(found, turn.role, turn.content, f"messages[{place}].content")
    return found


def _add_turn(
    found: list[Message], role: Literal["user", "assistant", "system"], blocks: Sequence[Block], place: str
) -> None:
    """A turn's blocks as messages: the results of calls are turns of their own, before what the user says."""
    parts: list[Part] = []
    calls: list[ToolCall] = []
    for number, block in enumerate(blocks):
        if isinstance(block, ToolResultBlock):
            found.append(Message("tool", _result(block, f"{place}[{number}]"), answers=block.tool_use_id))
        elif isinstance(block, ToolUseBlock):
            calls.append(ToolCall(block.id, block.name, orjson.dumps(block.input).decode()))
        elif isinstance(block, (TextBlock, ImageBlock)):
            parts.append(_part(block, f"{place}[{number}]"))
    if parts or calls:
        found.append(Message(role, tuple(parts), "", tuple(calls)))


def _part(block: TextBlock | ImageBlock, place: str) -> Part:
    if isinstance(block, TextBlock):
        return block.text
    return picture(block.source.media_type, block.source.data, f"{place}.source")


def _result(block: ToolResultBlock, place: str) -> tuple[Part, ...]:
    if block.content is None:
        return ("",)
    if isinstance(block.content, str):
        return (block.content,)
    return tuple(_part(part, f"{place}.content[{number}]") for number, part in enumerate(block.content))
