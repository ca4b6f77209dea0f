"""LangChain's messages and tools as the engine port's, and back."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.utils.function_calling import convert_to_openai_tool

from mainspring.errors import DataError
from mainspring.ports.llm import Image, Message, Part, Role, Tool, ToolCall, ToolChoice

__all__ = ["choice_of", "content_of", "lang_messages", "port_messages", "port_tool"]

_ROLES: tuple[tuple[type[BaseMessage], Role], ...] = (
    (HumanMessage, "user"),
    (AIMessage, "assistant"),
    (SystemMessage, "system"),
    (ToolMessage, "tool"),
)
_CHOICES: Mapping[object, ToolChoice] = {
    None: ToolChoice(),
    False: ToolChoice(),
    "auto": ToolChoice(),
    "none": ToolChoice("none"),
    "any": ToolChoice("required"),
    "required": ToolChoice("required"),
    True: ToolChoice("required"),
}


def port_messages(messages: Sequence[BaseMessage]) -> tuple[Message, ...]:
    """LangChain's messages as the port's.

    Raises:
        DataError: MS-2501, a part of a message is nothing that an engine takes.
    """
    return tuple(_port_message(message) for message in messages)


def _port_message(message: BaseMessage) -> Message:
    calls: tuple[ToolCall, ...] = ()
    answers = ""
    if isinstance(message, AIMessage):
        calls = tuple(
            ToolCall(call["id"] or "", call["name"], orjson.dumps(call["args"]).decode()) for call in message.tool_calls
        )
        calls += tuple(
            ToolCall(broken["id"] or "", broken["name"] or "", broken["args"] or "")
            for broken in message.invalid_tool_calls
        )
    if isinstance(message, ToolMessage):
        answers = message.tool_call_id
    return Message(_role(message), content_of(message.content), message.name or "", calls, answers)


def _role(message: BaseMessage) -> Role:
    if isinstance(message, ChatMessage) and message.role in ("system", "user", "assistant"):
        return message.role  # type: ignore[return-value]  # one of the roles, as just asked
    for kind, role in _ROLES:
        if isinstance(message, kind):
            return role
    raise _unknown(f"a message of type {message.type!r}")


def content_of(content: str | list[Any]) -> tuple[Part, ...]:
    """The parts of a message's content; what a model thought and the calls it made are no parts of it.

    Raises:
        DataError: MS-2501.
    """
    if isinstance(content, str):
        return (content,) if content else ()
    parts = [_part(block) for block in content]
    return tuple(part for part in parts if part)


def _part(block: object) -> Part:
    if isinstance(block, str):
        return block
    if not isinstance(block, dict):
        raise _unknown(f"a {type(block).__name__} in a message")
    kind = block.get("type")
    if kind in ("text", "text-plain"):
        return str(block.get("text", ""))
    if kind in ("tool_use", "tool_call", "tool_call_chunk", "reasoning", "thinking"):
        return ""
    if kind == "tool_result":
        return "".join(str(part) for part in content_of(block.get("content") or ""))
    if kind in ("image", "image_url"):
        return _image(block)
    raise _unknown(f"a part of type {kind!r}")


def _image(block: Mapping[str, Any]) -> Image:
    inner = block.get("source")
    source: Mapping[str, Any] = inner if isinstance(inner, dict) else block
    address = block.get("image_url") or block.get("url") or ""
    if isinstance(address, dict):
        address = address.get("url", "")
    if isinstance(address, str) and address.startswith("data:"):
        head, _, data = address[5:].partition(",")
        kind = head.partition(";")[0]
    else:
        data = source.get("base64") or source.get("data") or ""
        kind = source.get("mime_type") or source.get("media_type") or ""
    if not data:
        raise _unknown("a picture that is only an address")
    try:
        return Image(base64.b64decode(data, validate=True), kind)
    except binascii.Error:
        raise _unknown("a picture that is no base64") from None


def _unknown(what: str) -> DataError:
    return DataError(
        f"{what} cannot be sent to a model",
        code="MS-2501",
        why="engines are sent texts and pictures as bytes; nothing is fetched for them",
        fix='send texts, or pictures as {"type": "image", "base64": "...", "mime_type": "image/png"}',
    )


def lang_messages(messages: Sequence[Message]) -> list[BaseMessage]:
    """The port's messages as LangChain's.

    Raises:
        DataError: MS-2501, the arguments of an earlier call are no JSON object.
    """
    return [_lang_message(message) for message in messages]


def _lang_message(message: Message) -> BaseMessage:
    content = _lang_content(message.content)
    if message.role == "system":
        return SystemMessage(content)
    if message.role == "user":
        return HumanMessage(content, name=message.name or None)
    if message.role == "tool":
        return ToolMessage(content, tool_call_id=message.answers)
    calls = [
        {"id": call.id, "name": call.name, "args": _arguments(call), "type": "tool_call"} for call in message.calls
    ]
    return AIMessage(content, tool_calls=calls)


def _lang_content(parts: Sequence[Part]) -> str | list[str | dict[str, Any]]:
    if all(isinstance(part, str) for part in parts):
        return "".join(str(part) for part in parts)
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image", "base64": base64.b64encode(part.data).decode(), "mime_type": part.media_type}
        for part in parts
    ]


def _arguments(call: ToolCall) -> dict[str, Any]:
    try:
        found = orjson.loads(call.arguments or "{}")
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise _unknown(f"a call of {call.name!r} whose arguments are no JSON object")
    return found


def port_tool(tool: Any, *, strict: bool | None = None) -> Tool:
    """A LangChain tool, function, Pydantic model or OpenAI tool as the port's."""
    function = convert_to_openai_tool(tool, strict=strict)["function"]
    return Tool(
        function["name"],
        function.get("description", ""),
        function.get("parameters") or {"type": "object", "properties": {}},
        bool(function.get("strict", False)),
    )


def choice_of(choice: object, names: Sequence[str], *, parallel: bool = True) -> ToolChoice:
    """LangChain's ``tool_choice`` as the port's: ``auto``, ``none``, ``any``, a tool's name, or OpenAI's dict.

    Raises:
        DataError: MS-2501, no tool has that name.
    """
    if isinstance(choice, dict):
        choice = choice.get("function", choice).get("name", choice.get("type"))
    if isinstance(choice, str) and choice in names:
        return ToolChoice("named", choice, parallel)
    if (choice is not None and not isinstance(choice, bool | str)) or choice not in _CHOICES:
        raise _unknown(f"tool_choice={choice!r}, which is none of {', '.join(names) or 'no tools'},")
    found = _CHOICES[choice]
    return ToolChoice(found.mode, found.name, parallel)
