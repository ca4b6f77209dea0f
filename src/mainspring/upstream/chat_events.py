"""The OpenAI wire, read: chunks of chat completions and of completions become events, however loosely they are made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import cast

import orjson

from mainspring.ports.llm import (
    End,
    Error,
    Event,
    Reason,
    Reasoning,
    Start,
    Text,
    Timings,
    TokenLogprob,
    ToolDelta,
    Usage,
)
from mainspring.upstream.faults import BrokenError, refused_of_body
from mainspring.upstream.whole import WholeText, loads

__all__ = ["ChatEvents", "usage_of"]

_REASONS: dict[str, Reason] = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "abort": "cancelled",
}
_Object = Mapping[str, object]


class _Choice:
    """What one choice has come to."""

    __slots__ = ("called", "calls", "reason", "stopped_by", "text", "thought")

    def __init__(self) -> None:
        self.text, self.thought = WholeText(), WholeText()
        self.called = False
        self.calls: dict[int, str] = {}
        self.reason: Reason | None = None
        self.stopped_by = ""


class ChatEvents:
    """A `Decoder` of the OpenAI wire.

    Usage may be absent, beside choices, in the last delta, in a chunk of its own, or twice: the last one counts.

    Args:
        choices: how many were asked for.
        secret: a text that no error may tell.
    """

    def __init__(self, choices: int = 1, secret: str = "") -> None:
        self.begun = False
        self.done = False
        self._choices = [_Choice() for _ in range(choices)]
        self._secret = secret
        self._started = False
        self._usage: Usage | None = None
        self._timings = Timings()

    def feed(self, data: bytes) -> Iterable[Event]:
        """The events of one payload."""
        if data.strip() == b"[DONE]":
            self.done = True
            return
        payload = self._payload(data)
        yield from self._start(payload)
        for choice in _objects(payload.get("choices")):
            yield from self._choice(choice, _object(choice.get("delta")))

    def plain(self, body: bytes) -> Iterable[Event]:
        """The events of an answer that came whole."""
        payload = self._payload(body)
        yield from self._start(payload)
        for choice in _objects(payload.get("choices")):
            yield from self._choice(choice, _object(choice.get("message")))
        self.done = True

    def end(self) -> Iterable[Event]:
        """What was held back, and `End`."""
        if not self._started or (not self.done and any(choice.reason is None for choice in self._choices)):
            raise BrokenError(Error("upstream", "the upstream's answer ended early", retryable=True))
        self.done = True
        for number, choice in enumerate(self._choices):
            if rest := choice.thought.finish():
                yield Reasoning(rest, 0, number)
            if rest := choice.text.finish():
                yield Text(rest, 0, number)
        yield self._end("stop")

    def cancelled(self) -> Iterable[Event]:
        """`End` as far as it came."""
        if not self._started:
            yield Start()
        yield self._end("cancelled")

    def _end(self, otherwise: Reason) -> End:
        return End(
            tuple(choice.reason or otherwise for choice in self._choices),
            self._usage,
            self._timings,
            tuple(choice.stopped_by for choice in self._choices),
        )

    def _payload(self, data: bytes) -> _Object:
        try:
            payload = loads(data)
        except ValueError as error:
            raise BrokenError(Error("upstream", "the upstream sent garbage", retryable=True)) from error
        if not isinstance(payload, dict):
            raise BrokenError(Error("upstream", "the upstream sent garbage", retryable=True))
        if (refused := refused_of_body(payload, self._secret)) is not None:
            raise BrokenError(refused)
        return payload

    def _start(self, payload: _Object) -> Iterator[Event]:
        usage = payload.get("usage") or _object(payload.get("x_groq")).get("usage")
        if isinstance(usage, dict):
            self._usage = usage_of(usage)
        if isinstance(timings := payload.get("timings"), dict):
            self._timings = Timings(0, _micros(timings.get("prompt_ms")), _micros(timings.get("predicted_ms")))
        if not self._started:
            self._started = True
            progress = _object(payload.get("prompt_progress"))
            total, cached = progress.get("total"), progress.get("cache")
            yield Start(total if isinstance(total, int) else None, cached if isinstance(cached, int) else None)

    def _choice(self, choice: _Object, delta: _Object) -> Iterator[Event]:
        number = choice.get("index", 0)
        if not isinstance(number, int) or not 0 <= number < len(self._choices):
            raise BrokenError(Error("upstream", "the upstream answered a choice that was not asked for"))
        mine = self._choices[number]
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thought, str) and (whole := mine.thought.feed(thought)):
            self.begun = True
            yield Reasoning(whole, 0, number)
        yield from self._text(choice, delta, mine, number)
        for call in _objects(delta.get("tool_calls")):
            self.begun = True
            yield _tool(call, mine, number)
        reason = choice.get("finish_reason")
        if isinstance(reason, str):
            mine.reason = _REASONS.get(reason, "stop")
            if mine.called and mine.reason == "stop":
                mine.reason = "tool_calls"
            if isinstance(stopped := choice.get("stop_reason"), str):
                mine.stopped_by = stopped

    def _text(self, choice: _Object, delta: _Object, mine: _Choice, number: int) -> Iterator[Event]:
        content = choice.get("text") if "text" in choice else delta.get("content") or delta.get("refusal")
        if isinstance(content, list):  # parts, as some upstreams send them
            content = "".join(str(part.get("text", "")) for part in _objects(content))
        logprobs = _logprobs(choice.get("logprobs"))
        whole = mine.text.feed(content) if isinstance(content, str) else ""
        if whole or logprobs:
            self.begun = True
            yield Text(whole, len(logprobs), number, logprobs)


def _tool(call: _Object, mine: _Choice, number: int) -> ToolDelta:
    function = _object(call.get("function"))
    id, name = str(call.get("id") or ""), str(function.get("name") or "")
    index = call.get("index")
    if not isinstance(index, int):  # left out: an id begins a call, the rest goes on with the last
        index = len(mine.calls) if id or not mine.calls else len(mine.calls) - 1
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        arguments = orjson.dumps(arguments).decode()
    mine.called = True
    first = index not in mine.calls
    mine.calls.setdefault(index, id)
    return ToolDelta(index, id if first else "", name if first else "", arguments or "", number)


def _logprobs(found: object) -> tuple[TokenLogprob, ...]:
    if not isinstance(found, dict):
        return ()
    if "tokens" in found:
        return _old_logprobs(found)
    return tuple(
        TokenLogprob(
            str(one.get("token", "")),
            _number(one.get("logprob")),
            _id(one),
            tuple(
                TokenLogprob(str(top.get("token", "")), _number(top.get("logprob")), _id(top))
                for top in _objects(one.get("top_logprobs"))
            ),
        )
        for one in _objects(found.get("content"))
    )


def _old_logprobs(found: _Object) -> tuple[TokenLogprob, ...]:
    """Those of plain completions: lists side by side; of the first token of an echo nothing is known."""
    tokens = cast("Sequence[str]", found.get("tokens") or ())
    values = cast("Sequence[float | None]", found.get("token_logprobs") or ())
    tops = cast("Sequence[_Object | None]", found.get("top_logprobs") or [None] * len(tokens))
    return tuple(
        TokenLogprob(
            str(token), _number(value), None, tuple(TokenLogprob(k, _number(v)) for k, v in _object(top).items())
        )
        for token, value, top in zip(tokens, values, tops, strict=False)
    )


def usage_of(found: _Object) -> Usage:
    """The usage that the OpenAI wire tells; details that are absent are 0."""
    prompt, completion = _object(found.get("prompt_tokens_details")), _object(found.get("completion_tokens_details"))
    return Usage(
        _count(found.get("prompt_tokens")),
        _count(found.get("completion_tokens")),
        _count(prompt.get("cached_tokens")),
        _count(prompt.get("cache_write_tokens")),
        _count(completion.get("reasoning_tokens")),
    )


def _object(found: object) -> _Object:
    return found if isinstance(found, dict) else {}


def _objects(found: object) -> Iterator[_Object]:
    if isinstance(found, list):
        for one in found:
            if isinstance(one, dict):
                yield one


def _count(found: object) -> int:
    return found if isinstance(found, int) else 0


def _number(found: object) -> float:
    return float(found) if isinstance(found, (int, float)) else 0.0


def _id(found: _Object) -> int | None:
    id = found.get("id", found.get("token_id"))
    return id if isinstance(id, int) else None


def _micros(milliseconds: object) -> int:
    return int(_number(milliseconds) * 1000)
