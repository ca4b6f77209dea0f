"""``POST /v1/responses``: rendering. The last event holds the whole response, from the same fold as a plain one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import msgspec
import orjson

from mainspring.llm.fold import Answer, Item
from mainspring.llm.run import Run
from mainspring.ports.llm import End, Error, Event, Message, Reasoning, Text, ToolCall, ToolDelta
from mainspring.protocols.openai.responses import ResponsesRequest
from mainspring.protocols.openai.usage import logprob_content, response_usage

__all__ = ["ResponseShape", "ResponseStream", "answered"]

_PREFIX = {"text": "msg", "reasoning": "rs", "call": "fc"}


class ResponseShape:
    """The response object of one request.

    Args:
        id: of the request.
        created: seconds since 1970.
        model: the public name.
        asked: the request, whose values it repeats.
    """

    __slots__ = ("_base", "_id")

    def __init__(self, id: str, created: int, model: str, asked: ResponsesRequest) -> None:
        self._id = id
        given = asked.text.format if asked.text is not None else None
        choice = asked.tool_choice
        self._base: dict[str, object] = {
            "id": f"resp_{id}",
            "object": "response",
            "created_at": created,
            "model": model,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": asked.previous_response_id,
            "reasoning": {"effort": asked.reasoning.effort if asked.reasoning is not None else None, "summary": None},
            "store": asked.store is not False,
            "temperature": asked.temperature,
            "text": {"format": {"type": "text"} if given is None else _format(given)},
            "tool_choice": choice if isinstance(choice, str) else (msgspec.to_builtins(choice) if choice else "auto"),
            "tools": [msgspec.to_builtins(tool) for tool in asked.tools or ()],
            "top_p": asked.top_p,
            "truncation": asked.truncation or "disabled",
            "user": asked.user,
        }

    def item_id(self, item: Item, place: int) -> str:
        """The id of an item of the output."""
        return f"{_PREFIX[item.kind]}_{self._id}_{place}"

    def item(self, item: Item, place: int, status: str) -> dict[str, object]:
        """An item of the output."""
        id = self.item_id(item, place)
        if item.kind == "call":
            call: dict[str, object] = {"id": id, "type": "function_call", "call_id": item.id, "name": item.name}
            return {**call, "arguments": item.text, "status": status}
        content = [] if status == "in_progress" else [part_of(item)]
        if item.kind == "reasoning":
            return {"id": id, "type": "reasoning", "summary": [], "content": content, "status": status}
        return {"id": id, "type": "message", "role": "assistant", "content": content, "status": status}

    def whole(self, answer: Answer | None, error: Error | None = None) -> dict[str, object]:
        """The response: under way without an answer, else as the answer ended."""
        status, detail, failure = "in_progress", None, None
        output: list[dict[str, object]] = []
        usage = None
        if answer is not None:
            status, detail = _status(answer, error)
            done = "completed" if status == "completed" else "incomplete"
            items = answer.items[0]
            last = len(items) - 1
            output = [self.item(item, n, done if n == last else "completed") for n, item in enumerate(items)]
            usage = response_usage(answer.usage) if error is None else None
            failure = None if error is None else {"code": _code(error), "message": error.message}
        state = {"status": status, "error": failure, "incomplete_details": detail, "output": output, "usage": usage}
        return {**self._base, **state}


def _format(given: msgspec.Struct) -> dict[str, object]:
    return {name: value for name, value in msgspec.to_builtins(given).items() if value not in (None, "")}


def _status(answer: Answer, error: Error | None) -> tuple[str, dict[str, str] | None]:
    if error is not None:
        return "failed", None
    reason = answer.reason()
    if reason == "length":
        return "incomplete", {"reason": "max_output_tokens"}
    if reason == "content_filter":
        return "incomplete", {"reason": "content_filter"}
    return "completed", None


def _code(error: Error) -> str:
    return "rate_limit_exceeded" if error.kind == "rate" else "server_error"


def part_of(item: Item) -> dict[str, object]:
    """The content of a message or of thoughts."""
    if item.kind == "reasoning":
        return {"type": "reasoning_text", "text": item.text}
    return {"type": "output_text", "text": item.text, "annotations": [], "logprobs": logprob_content(item.logprobs)}


def answered(answer: Answer) -> Message:
    """The model's turn, for the conversation that goes on."""
    calls = tuple(ToolCall(call.id, call.name, call.text) for call in answer.calls())
    text = answer.text()
    return Message("assistant", (text,) if text else (), "", calls)


class ResponseStream:
    """A response as server-sent events.

    Args:
        run: begun.
        shape: of the response.
        keep: told of the whole response before its last event is sent.
    """

    __slots__ = ("_keep", "_open", "_prefixes", "_run", "_sequence", "_shape")

    def __init__(self, run: Run, shape: ResponseShape, keep: Callable[[dict[str, object], Answer], None]) -> None:
        self._run = run
        self._shape = shape
        self._keep = keep
        self._sequence = 0
        self._open: list[int] = []
        self._prefixes: dict[int, bytes] = {}

    async def parts(self) -> AsyncIterator[bytes]:
        """The events, each with its number; one of completed, incomplete and failed is always the last."""
        started: dict[str, object] = {"response": self._shape.whole(None)}
        yield self._event("response.created", started) + self._event("response.in_progress", started)
        answer = self._run.answer
        async for event in self._run.events():
            if isinstance(event, (End, Error)):
                yield self._last(event)
                return
            part = self._piece(answer, event)
            if part:
                yield part

    def _piece(self, answer: Answer, event: Event) -> bytes:
        """The events of a piece: its item opened when it is new, those before it closed, then the piece itself."""
        items = answer.items[0]
        place = _place(items, event) if isinstance(event, ToolDelta) else len(items) - 1
        item = items[place]
        opened = b"" if place in self._prefixes else self._opened(items, item, place)
        if isinstance(event, Text):
            if not event.text and not event.logprobs:
                return opened
            logprobs = orjson.dumps(logprob_content(event.logprobs)) if event.logprobs else b"[]"
            return opened + self._delta(place, event.text, b',"logprobs":' + logprobs)
        if isinstance(event, Reasoning):
            return opened + self._delta(place, event.text, b"")
        if isinstance(event, ToolDelta) and event.arguments:
            return opened + self._delta(place, event.arguments, b"")
        return opened

    def _delta(self, place: int, text: str, more: bytes) -> bytes:
        """A piece of an item: bytes around what changes, no dictionary."""
        self._sequence += 1
        return self._prefixes[place] + orjson.dumps(text) + more + b',"sequence_number":%d}\n\n' % (self._sequence - 1)

    def _opened(self, items: list[Item], item: Item, place: int) -> bytes:
        closed = b"".join(self._closed(items[n], n, "completed") for n in self._open if items[n].kind != "call")
        self._open = [n for n in self._open if items[n].kind == "call"]
        self._open.append(place)
        id = self._shape.item_id(item, place)
        kind = {"text": "output_text", "reasoning": "reasoning_text", "call": "function_call_arguments"}[item.kind]
        name = f"response.{kind}.delta"
        part = "" if item.kind == "call" else '"content_index":0,'
        self._prefixes[place] = (
            f'event: {name}\ndata: {{"type":"{name}","item_id":"{id}","output_index":{place},{part}"delta":'
        ).encode()
        begun = Item(item.kind, index=item.index, id=item.id, name=item.name)
        shown = self._shape.item(begun, place, "in_progress")
        added = self._event("response.output_item.added", {"output_index": place, "item": shown})
        if item.kind != "call":
            where = {"item_id": id, "output_index": place, "content_index": 0}
            added += self._event("response.content_part.added", {**where, "part": part_of(begun)})
        return closed + added

    def _closed(self, item: Item, place: int, status: str) -> bytes:
        where: dict[str, object] = {"item_id": self._shape.item_id(item, place), "output_index": place}
        parts = []
        if item.kind == "call":
            done = {**where, "name": item.name, "arguments": item.text}
            parts.append(self._event("response.function_call_arguments.done", done))
        else:
            where["content_index"] = 0
            text: dict[str, object] = {**where, "text": item.text}
            if item.kind == "text":
                text["logprobs"] = logprob_content(item.logprobs)
            kind = "output_text" if item.kind == "text" else "reasoning_text"
            parts.append(self._event(f"response.{kind}.done", text))
            parts.append(self._event("response.content_part.done", {**where, "part": part_of(item)}))
        shown = self._shape.item(item, place, status)
        parts.append(self._event("response.output_item.done", {"output_index": place, "item": shown}))
        return b"".join(parts)

    def _last(self, event: End | Error) -> bytes:
        answer = self._run.answer
        error = event if isinstance(event, Error) else None
        whole = self._shape.whole(answer, error)
        items = answer.items[0]
        statuses = [str(item["status"]) for item in whole["output"]]  # type: ignore[attr-defined]
        closed = b"".join(self._closed(items[place], place, statuses[place]) for place in self._open)
        self._keep(whole, answer)
        return closed + self._event(f"response.{whole['status']}", {"response": whole})

    def _event(self, name: str, value: dict[str, object]) -> bytes:
        number = self._sequence
        self._sequence += 1
        body = orjson.dumps({"type": name, "sequence_number": number, **value})
        return b"event: %s\ndata: %s\n\n" % (name.encode(), body)


def _place(items: list[Item], event: ToolDelta) -> int:
    return next(n for n in range(len(items) - 1, -1, -1) if items[n].kind == "call" and items[n].index == event.index)
