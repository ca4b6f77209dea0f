"""Anthropic's stream, read into events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

import orjson

from mainspring.ports.llm import End, Error, ErrorKind, Event, Reason, Reasoning, Start, Text, ToolDelta, Usage
from mainspring.upstream.faults import BrokenError
from mainspring.upstream.whole import WholeText, loads

__all__ = ["MessageEvents"]

_Object = Mapping[str, object]
_REASONS: dict[str, Reason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_KINDS: dict[str, tuple[ErrorKind, bool]] = {
    "invalid_request_error": ("invalid", False),
    "authentication_error": ("auth", False),
    "permission_error": ("auth", False),
    "not_found_error": ("not_found", False),
    "request_too_large": ("invalid", False),
    "rate_limit_error": ("rate", True),
    "timeout_error": ("timeout", True),
    "overloaded_error": ("overloaded", True),
}


class MessageEvents:
    """A `Decoder` of Anthropic's Messages API.

    Its ``input_tokens`` are those that came from no cache and went into none: our prompt holds all three.

    Args:
        as_text: whether the one tool that is called is the answer itself, which a schema has shaped.
    """

    def __init__(self, *, as_text: bool = False) -> None:
        self.begun = False
        self.done = False
        self._as_text = as_text
        self._started = False
        self._text, self._thought = WholeText(), WholeText()
        self._calls: dict[int, int] = {}
        self._usage: dict[str, int] = {}
        self._reason: Reason | None = None
        self._stopped_by = ""

    def feed(self, data: bytes) -> Iterable[Event]:
        """The events of one payload."""
        payload = _payload(data)
        read: Callable[[_Object], Iterable[Event]] | None = {
            "message_start": self._message_start,
            "content_block_start": self._block_start,
            "content_block_delta": self._block_delta,
            "message_delta": self._message_delta,
            "message_stop": self._message_stop,
            "error": self._error,
        }.get(str(payload.get("type")))
        return () if read is None else read(payload)  # a ping, the end of a block, what is newer than we are

    def plain(self, body: bytes) -> Iterable[Event]:
        """The events of an answer that came whole."""
        payload = _payload(body)
        if payload.get("type") == "error":
            yield from self._error(payload)
        yield from self._message_start({"message": payload})
        content = payload.get("content")
        for index, block in enumerate(content if isinstance(content, list) else ()):
            if isinstance(block, dict):
                yield from self._block(index, block)
        yield from self._message_delta({"delta": payload, "usage": payload.get("usage")})
        self.done = True

    def _message_start(self, payload: _Object) -> Iterator[Event]:
        self._count(_object(_object(payload.get("message")).get("usage")))
        if not self._started:
            self._started = True
            prompt, cached, _ = self._prompt()
            yield Start(prompt, cached) if self._usage else Start()

    def _block_start(self, payload: _Object) -> Iterator[Event]:
        yield from self._block(_whole(payload.get("index")), _object(payload.get("content_block")))

    def _block(self, index: int, block: _Object) -> Iterator[Event]:
        """A block's beginning, or a whole one."""
        kind = block.get("type")
        if kind == "tool_use":
            self.begun = True
            place = self._calls.setdefault(index, len(self._calls))
            if not self._as_text:
                yield ToolDelta(place, str(block.get("id", "")), str(block.get("name", "")))
            if arguments := block.get("input"):
                yield from self._arguments(index, _json(arguments))
        elif kind == "text":
            yield from self._said(block.get("text"))
        elif kind == "thinking":
            yield from self._thought_of(block.get("thinking"))

    def _block_delta(self, payload: _Object) -> Iterator[Event]:
        delta, index = _object(payload.get("delta")), _whole(payload.get("index"))
        kind = delta.get("type")
        if kind == "text_delta":
            yield from self._said(delta.get("text"))
        elif kind == "thinking_delta":
            yield from self._thought_of(delta.get("thinking"))
        elif kind == "input_json_delta" and (piece := delta.get("partial_json")):
            yield from self._arguments(index, str(piece))

    def _said(self, text: object) -> Iterator[Event]:
        if isinstance(text, str) and not self._as_text and (whole := self._text.feed(text)):
            self.begun = True
            yield Text(whole)

    def _thought_of(self, text: object) -> Iterator[Event]:
        if isinstance(text, str) and (whole := self._thought.feed(text)):
            self.begun = True
            yield Reasoning(whole)

    def _arguments(self, index: int, piece: str) -> Iterator[Event]:
        self.begun = True
        if not self._as_text:
            yield ToolDelta(self._calls.get(index, 0), arguments=piece)
        elif whole := self._text.feed(piece):
            yield Text(whole)

    def _message_delta(self, payload: _Object) -> Iterator[Event]:
        self._count(_object(payload.get("usage")))
        delta = _object(payload.get("delta"))
        if isinstance(reason := delta.get("stop_reason"), str):
            self._reason = _REASONS.get(reason, "stop")
            if self._as_text and self._reason == "tool_calls":
                self._reason = "stop"
        self._stopped_by = str(delta.get("stop_sequence") or "")
        yield from ()

    def _message_stop(self, payload: _Object) -> Iterator[Event]:
        self.done = True
        yield from ()

    def _error(self, payload: _Object) -> Iterator[Event]:
        inner = _object(payload.get("error"))
        kind, retryable = _KINDS.get(str(inner.get("type")), ("upstream", True))
        told = str(inner.get("message", "")) if kind in ("invalid", "not_found") else ""
        raise BrokenError(Error(kind, told or "the upstream failed while it answered", retryable))

    def _count(self, usage: _Object) -> None:
        for name in ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"):
            if isinstance(value := usage.get(name), int):
                self._usage[name] = value  # cumulative: the last one counts

    def _prompt(self) -> tuple[int, int, int]:
        """All tokens of the prompt, those read from the cache, those written to it."""
        read = self._usage.get("cache_read_input_tokens", 0)
        written = self._usage.get("cache_creation_input_tokens", 0)
        return self._usage.get("input_tokens", 0) + read + written, read, written

    def end(self) -> Iterable[Event]:
        """What was held back, and `End`."""
        if not self._started or self._reason is None:
            raise BrokenError(Error("upstream", "the upstream's answer ended early", retryable=True))
        self.done = True
        if rest := self._text.finish():
            yield Text(rest)
        yield self._end("stop")

    def cancelled(self) -> Iterable[Event]:
        """`End` as far as it came."""
        if not self._started:
            yield Start()
        yield self._end("cancelled")

    def _end(self, otherwise: Reason) -> End:
        prompt, read, written = self._prompt()
        usage = Usage(prompt, self._usage.get("output_tokens", 0), read, written) if self._usage else None
        return End((self._reason or otherwise,), usage, stopped_by=(self._stopped_by,))


def _payload(data: bytes) -> _Object:
    try:
        payload = loads(data)
    except ValueError as error:
        raise BrokenError(Error("upstream", "the upstream sent garbage", retryable=True)) from error
    if not isinstance(payload, dict):
        raise BrokenError(Error("upstream", "the upstream sent garbage", retryable=True))
    return payload


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _object(found: object) -> _Object:
    return found if isinstance(found, dict) else {}


def _whole(found: object) -> int:
    return found if isinstance(found, int) else 0
