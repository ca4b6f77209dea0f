"""``POST /v1/messages``: rendering, from events to events and from their fold to a whole message."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson

from mainspring.llm.fold import Answer, Item
from mainspring.llm.run import Run
from mainspring.ports.llm import End, Error, Event, Reasoning, Start, Text, ToolDelta, Usage
from mainspring.protocols.anthropic.errors import error_event

__all__ = ["MIXED", "MessageStream", "message_answer"]

MIXED = Error("upstream", "the model went back to an earlier tool call, which this wire cannot say")
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_KINDS = {
    "text": ("text_delta", "text"),
    "reasoning": ("thinking_delta", "thinking"),
    "call": ("input_json_delta", "partial_json"),
}


def _usage(usage: Usage) -> dict[str, object]:
    """Tokens: here the input leaves out what was read from a cache and what was written to one."""
    return {
        "input_tokens": max(usage.prompt - usage.cached - usage.cache_write, 0),
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.completion,
    }


def _stop(answer: Answer) -> tuple[str, str | None]:
    """``stop_reason`` and ``stop_sequence``."""
    reason = answer.reason()
    stopped = answer.end.stopped_by[0] if answer.end is not None and answer.end.stopped_by else ""
    if reason == "tool_calls" or (reason == "stop" and answer.calls()):
        return "tool_use", None
    if reason == "length":
        return "max_tokens", None
    if reason == "content_filter":
        return "refusal", None
    return ("stop_sequence", stopped) if stopped else ("end_turn", None)


def _block(item: Item) -> dict[str, object]:
    if item.kind == "call":
        try:
            value = orjson.loads(item.text or "{}")
        except ValueError:
            value = {}
        return {"type": "tool_use", "id": item.id, "name": item.name, "input": value if isinstance(value, dict) else {}}
    if item.kind == "reasoning":
        return {"type": "thinking", "thinking": item.text, "signature": ""}
    return {"type": "text", "text": item.text}


def _begun(item: Item) -> dict[str, object]:
    if item.kind == "call":
        return {"type": "tool_use", "id": item.id, "name": item.name, "input": {}}
    if item.kind == "reasoning":
        return {"type": "thinking", "thinking": "", "signature": ""}
    return {"type": "text", "text": ""}


def message_answer(answer: Answer, id: str, model: str) -> bytes:
    """The whole message."""
    reason, sequence = _stop(answer)
    return orjson.dumps(
        {
            "id": f"msg_{id}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [_block(item) for item in answer.items[0]],
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": _usage(answer.usage),
        }
    )


class MessageStream:
    """A message as server-sent events.

    Args:
        run: begun.
        id: of the request.
        model: the public name.
    """

    __slots__ = ("_blocks", "_delta", "_id", "_model", "_open", "_run")

    def __init__(self, run: Run, id: str, model: str) -> None:
        self._run = run
        self._id = id
        self._model = model
        self._open: Item | None = None
        self._blocks = -1
        self._delta = b""

    async def parts(self) -> AsyncIterator[bytes]:
        """The events."""
        yield self._start(self._run.answer.start)
        answer = self._run.answer
        async for event in self._run.events():
            if isinstance(event, End):
                yield self._last(answer, event)
                return
            if isinstance(event, Error):
                yield error_event(event)
                return
            if answer.mixed:
                yield error_event(MIXED)
                return
            part = self._piece(answer, event)
            if part:
                yield part

    def _start(self, start: Start) -> bytes:
        usage = _usage(Usage(start.prompt_tokens or 0, 0, cached=start.cached or 0))
        message: dict[str, object] = {
            "id": f"msg_{self._id}",
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": usage,
        }
        return _event("message_start", {"message": message})

    def _piece(self, answer: Answer, event: Event) -> bytes:
        """A piece of the last block; a new one first closes the one before."""
        item = answer.items[0][-1]
        text = event.arguments if isinstance(event, ToolDelta) else ""
        if isinstance(event, (Text, Reasoning)):
            text = event.text
        opened = b"" if item is self._open else self._opened(item)
        return opened + (self._delta + orjson.dumps(text) + b"}}\n\n" if text else b"")

    def _opened(self, item: Item) -> bytes:
        closed = self._closed()
        self._open = item
        self._blocks += 1
        kind, field = _KINDS[item.kind]
        self._delta = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%s","%s":'
            % (self._blocks, kind.encode(), field.encode())
        )
        return closed + _event("content_block_start", {"index": self._blocks, "content_block": _begun(item)})

    def _closed(self) -> bytes:
        return b"" if self._open is None else _event("content_block_stop", {"index": self._blocks})

    def _last(self, answer: Answer, end: End) -> bytes:
        reason, sequence = _stop(answer)
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        usage = _usage(end.usage or answer.usage)
        return self._closed() + _event("message_delta", {"delta": delta, "usage": usage}) + _STOP


def _event(name: str, value: dict[str, object]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps({"type": name, **value}))
