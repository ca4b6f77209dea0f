"""Tools for models whose template knows none: told in the prompt, called between tags or by a grammar, and read."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, Mapping

import msgspec
import orjson

from mainspring.adapters.llamacpp.schemas import compact, misfit_of
from mainspring.ports.llm import Error, Event, Generation, Message, Reason, Text, Tool, ToolDelta
from mainspring.upstream.faults import BrokenError
from mainspring.upstream.stops import StopScanner

__all__ = ["ForcedCall", "TaggedCalls", "call_schema", "told_in_prompt"]

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*')
_INSTRUCTIONS = """You can call functions. They are, each as one JSON object with its parameters as a JSON schema:
{tools}
To call one, write {open} and a JSON object with its name and its arguments, then {close}:
{open}
{{"name": "the name", "arguments": {{"a parameter": "its value"}}}}
{close}"""


def told_in_prompt(request: Generation) -> tuple[Message, ...]:
    """The conversation with the tools in its system turn, and calls and their answers as text."""
    turns = [_as_text(message) for message in request.messages]
    if not request.tools or request.choice.mode == "none":
        return tuple(turns)
    tools = "\n".join(orjson.dumps(_plain(tool)).decode() for tool in request.tools)
    told = _INSTRUCTIONS.format(tools=tools, open=_OPEN, close=_CLOSE)
    if turns and turns[0].role == "system":
        first, *rest = turns
        return (msgspec.structs.replace(first, content=(f"{first.text}\n\n{told}",)), *rest)
    return (Message("system", (told,)), *turns)


def _plain(tool: Tool) -> dict[str, object]:
    return {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}


def _as_text(message: Message) -> Message:
    if message.role == "tool":
        return Message("user", (f"<tool_response>\n{message.text}\n</tool_response>",))
    if not message.calls:
        return message
    calls = [
        f'{_OPEN}\n{{"name": {json.dumps(call.name)}, "arguments": {call.arguments or "{}"}}}\n{_CLOSE}'
        for call in message.calls
    ]
    return Message("assistant", ("\n".join(filter(None, [message.text, *calls])),))


def call_schema(request: Generation) -> dict[str, object]:
    """What an answer must be that calls the named tool, or any of them."""
    tools = [tool for tool in request.tools if request.choice.mode != "named" or tool.name == request.choice.name]
    calls: list[dict[str, object]] = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.name}, "arguments": _arguments(tool)},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    return compact(calls[0] if len(calls) == 1 else {"anyOf": calls})


def _arguments(tool: Tool) -> Mapping[str, object]:
    return tool.parameters or {"type": "object", "properties": {}, "additionalProperties": False}


class ForcedCall:
    """Reads the one call that a grammar has forced, as it comes.

    Args:
        tools: those that may be called.
    """

    def __init__(self, tools: tuple[Tool, ...]) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._head = ""
        self._name = ""
        self._arguments = ""
        self._told = 0

    def feed(self, event: Text) -> Iterator[Event]:
        """The pieces of the call in a piece of text."""
        if not self._name:
            self._head += event.text
            found = _HEAD.match(self._head)
            if found is None:
                return
            self._name, self._arguments = orjson.loads(found[1]), self._head[found.end() :]
            yield ToolDelta(0, _new_id(), self._name, "", event.choice)
        else:
            self._arguments += event.text
        yield from self._tell(len(self._arguments.rstrip()) - 1, event.choice)

    def finish(self, reason: Reason, choice: int) -> Iterator[Event]:
        """The last piece; a whole call is held to its schema.

        Raises:
            BrokenError: the grammar was not kept.
        """
        if reason != "stop":
            yield from self._tell(len(self._arguments), choice)
            return
        arguments = self._arguments.rstrip()
        tool = self._tools.get(self._name)
        whole = arguments[:-1] if arguments.endswith("}") else arguments
        if tool is None or _unfit(_arguments(tool), whole):
            raise BrokenError(Error("upstream", "the engine did not keep to the grammar of the tool's call"))
        self._arguments = whole
        yield from self._tell(len(whole), choice)

    def reason(self, reason: Reason) -> Reason:
        """Why the answer ended, once it is read."""
        return "tool_calls" if reason == "stop" else reason

    def _tell(self, upto: int, choice: int) -> Iterator[Event]:
        if upto > self._told:
            yield ToolDelta(0, "", "", self._arguments[self._told : upto], choice)
            self._told = upto


class TaggedCalls:
    """Reads text in which calls stand between tags; what is no whole call stays text.

    Args:
        tools: those that may be called.
    """

    def __init__(self, tools: tuple[Tool, ...]) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._outside = StopScanner((_OPEN,))
        self._inside: str | None = None
        self._calls = 0

    def feed(self, event: Text) -> Iterator[Event]:
        """Text before, between and after calls as it comes; each call when it is whole."""
        rest = event.text
        while rest:
            if self._inside is None:
                before, rest = self._before(rest)
                if before:
                    yield msgspec.structs.replace(event, text=before)
            else:
                self._inside, rest = self._inside + rest, ""
                if _CLOSE in self._inside:
                    call, _, rest = self._inside.partition(_CLOSE)
                    self._inside = None
                    yield from self._call(call, event.choice, _CLOSE)

    def _before(self, text: str) -> tuple[str, str]:
        held = self._outside.held
        before = self._outside.feed(text)
        if not self._outside.stopped_by:
            return before, ""
        after = (held + text)[len(before) + len(_OPEN) :]
        self._outside, self._inside = StopScanner((_OPEN,)), ""
        return before, after

    def _call(self, text: str, choice: int, closed: str) -> Iterator[Event]:
        try:
            found = orjson.loads(text)
            name, arguments = found["name"], found.get("arguments", {})
        except (ValueError, KeyError, TypeError, AttributeError):
            name, arguments = None, None
        tool = self._tools.get(name) if isinstance(name, str) else None
        if tool is None or not isinstance(arguments, dict):
            yield Text(f"{_OPEN}{text}{closed}", 0, choice)
            return
        yield ToolDelta(self._calls, _new_id(), tool.name, "", choice)
        yield ToolDelta(self._calls, "", "", orjson.dumps(arguments).decode(), choice)
        self._calls += 1

    def finish(self, reason: Reason, choice: int) -> Iterator[Event]:
        """What was held back; a call whose closing tag the end has taken the place of counts."""
        if self._inside is not None:
            inside, self._inside = self._inside, None
            yield from self._call(inside, choice, "")
        elif rest := self._outside.finish():
            yield Text(rest, 0, choice)

    def reason(self, reason: Reason) -> Reason:
        """Why the answer ended, once it is read."""
        return "tool_calls" if self._calls and reason == "stop" else reason


def _unfit(schema: Mapping[str, object], arguments: str) -> str:
    try:
        return misfit_of(schema, orjson.loads(arguments))
    except ValueError:
        return "it is no JSON"


def _new_id() -> str:
    return f"call_{secrets.token_hex(12)}"
