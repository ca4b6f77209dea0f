"""llama.cpp's own wire, ``/completion``: it tells more than its OpenAI one, such as the prompt's tokens first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import orjson

from mainspring.adapters.llamacpp.schemas import misfit_of
from mainspring.ports.llm import (
    End,
    Error,
    Event,
    Generation,
    Reason,
    Sampling,
    Start,
    Text,
    Timings,
    TokenLogprob,
    Usage,
)
from mainspring.upstream.faults import BrokenError, refused_of_body

__all__ = ["CompletionEvents", "FitsSchema", "Reader", "body_of"]

_PASSED_ON = frozenset(
    {
        *("repeat_penalty", "repeat_last_n", "typical_p", "dynatemp_range", "dynatemp_exponent", "xtc_probability"),
        *("xtc_threshold", "mirostat", "mirostat_tau", "mirostat_eta", "dry_multiplier", "dry_base", "ignore_eos"),
        *("dry_allowed_length", "dry_penalty_last_n", "top_n_sigma"),
    }
)
_BEGINNINGS = frozenset('{["-0123456789tfn')
_LAST = [
    *("content", "tokens", "index", "stop", "stop_type", "stopping_word", "tokens_evaluated", "tokens_predicted"),
    *("timings", "completion_probabilities"),
]


class Reader(Protocol):
    """Turns a choice's text into something else."""

    def feed(self, event: Text) -> Iterator[Event]:
        """The events for a piece of text."""

    def finish(self, reason: Reason, choice: int) -> Iterator[Event]:
        """The events at its end."""

    def reason(self, reason: Reason) -> Reason:
        """Why it ended, once it is read."""


class FitsSchema:
    """Lets text through, and holds the whole of it to a schema: a grammar that was not applied would not be seen."""

    def __init__(self, schema: Mapping[str, object]) -> None:
        self._schema = schema
        self._pieces: list[str] = []

    def feed(self, event: Text) -> Iterator[Event]:
        """The same text.

        Raises:
            BrokenError: it cannot be the beginning of any JSON, so the grammar was not applied.
        """
        if not self._pieces and event.text[:1] not in _BEGINNINGS:
            raise BrokenError(Error("invalid", "this schema cannot be enforced by this engine", status=400))
        self._pieces.append(event.text)
        yield event

    def finish(self, reason: Reason, choice: int) -> Iterator[Event]:
        """Nothing.

        Raises:
            BrokenError: a whole answer does not fit.
        """
        if reason == "stop" and self._misfit():
            raise BrokenError(Error("upstream", "the engine did not keep to the schema"))
        yield from ()

    def _misfit(self) -> str:
        try:
            return misfit_of(self._schema, orjson.loads("".join(self._pieces)))
        except ValueError:
            return "it is no JSON"

    def reason(self, reason: Reason) -> Reason:
        """The same."""
        return reason


def body_of(request: Generation, prompt: str | tuple[int, ...], schema: Mapping[str, object] | None) -> bytes:
    """The body that asks for a stream of that prompt's completion.

    Args:
        request: how it is drawn.
        prompt: text, in which the template's special tokens count, or token ids.
        schema: what the answer is forced into, or None.
    """
    body: dict[str, object] = {key: value for key, value in request.extra.items() if key in _PASSED_ON}
    body |= {
        "prompt": list(prompt) if isinstance(prompt, tuple) else prompt,
        "stream": True,
        "return_progress": True,
        "cache_prompt": True,
        "response_fields": _LAST,
    }
    body |= _drawn(request.sampling)
    if schema is not None:
        body["json_schema"] = schema
    return orjson.dumps(body)


def _drawn(sampling: Sampling) -> dict[str, object]:
    found: dict[str, object] = {}
    for name in ("temperature", "top_p", "min_p", "seed", "presence_penalty", "frequency_penalty"):
        if (value := getattr(sampling, name)) is not None:
            found[name] = value
    if sampling.top_k is not None:
        found["top_k"] = max(0, sampling.top_k)  # 0 is all of them here
    if sampling.max_tokens is not None:
        found["n_predict"] = sampling.max_tokens
    if sampling.stop:
        found["stop"] = list(sampling.stop)
    if sampling.n > 1:
        found["n_cmpl"] = sampling.n
    if sampling.logit_bias:
        found["logit_bias"] = [[token, bias] for token, bias in sampling.logit_bias.items()]
    if sampling.logprobs is not None:
        found["n_probs"] = max(1, sampling.logprobs)
    return found


class _Choice:
    __slots__ = ("logprobs", "reader", "reason", "silent", "stopped_by", "tokens")

    def __init__(self, reader: Reader | None) -> None:
        self.reader = reader
        self.reason: Reason | None = None
        self.stopped_by = ""
        self.tokens = 0
        self.silent = 0
        self.logprobs: tuple[TokenLogprob, ...] = ()


class CompletionEvents:
    """A `Decoder` of llama.cpp's own wire.

    Args:
        sampling: how many choices and alternatives were asked for.
        readers: for each choice what its text is turned into, or None.
        echo: text that is told before each choice.
    """

    def __init__(self, sampling: Sampling, readers: tuple[Reader | None, ...], echo: str = "") -> None:
        self.begun = False
        self.done = False
        self._choices = [_Choice(reader) for reader in readers]
        self._top = sampling.logprobs
        self._echo = echo
        self._prompt: int | None = None
        self._cached = 0
        self._timings = Timings()

    def feed(self, data: bytes) -> Iterable[Event]:
        """The events of one payload."""
        payload = _payload(data)
        number = payload.get("index", 0)
        if not isinstance(number, int) or not 0 <= number < len(self._choices):
            raise BrokenError(Error("upstream", "the engine answered a choice that was not asked for"))
        yield from self._start(payload)
        if "prompt_progress" in payload:
            return
        self.begun = True
        choice = self._choices[number]
        yield from self._text(payload, choice, number)
        if payload.get("stop"):
            yield from self._stop(payload, choice, number)

    def plain(self, body: bytes) -> Iterable[Event]:
        """An answer without a stream is none that we have asked for."""
        raise BrokenError(Error("upstream", "the engine did not stream"))

    def _start(self, payload: Mapping[str, object]) -> Iterator[Event]:
        if self._prompt is not None:
            return
        progress = payload.get("prompt_progress")
        self._prompt = _whole(payload.get("tokens_evaluated"))
        self._cached = _whole(progress.get("cache")) if isinstance(progress, dict) else 0
        yield Start(self._prompt, self._cached)
        if self._echo:
            for number in range(len(self._choices)):
                yield Text(self._echo, 0, number)

    def _text(self, payload: Mapping[str, object], choice: _Choice, number: int) -> Iterator[Event]:
        content, tokens = payload.get("content"), payload.get("tokens")
        count = len(tokens) if isinstance(tokens, list) else 0
        choice.tokens += count
        choice.silent += count
        if self._top is not None:
            choice.logprobs += _logprobs(payload.get("completion_probabilities"), self._top)
        if not content or not isinstance(content, str):
            return  # a token that ends inside of a character, or that may begin a stop text
        event = Text(content, choice.silent, number, choice.logprobs)
        choice.silent, choice.logprobs = 0, ()
        if choice.reader is None:
            yield event
        else:
            yield from choice.reader.feed(event)

    def _stop(self, payload: Mapping[str, object], choice: _Choice, number: int) -> Iterator[Event]:
        reason: Reason = "length" if payload.get("stop_type") == "limit" else "stop"
        choice.tokens = _whole(payload.get("tokens_predicted"))
        choice.stopped_by = str(payload.get("stopping_word") or "")
        timings = payload.get("timings")
        if isinstance(timings, dict):
            self._cached = _whole(timings.get("cache_n")) if number == 0 else self._cached
            self._timings = Timings(0, _micros(timings.get("prompt_ms")), _micros(timings.get("predicted_ms")))
        if choice.reader is not None:
            yield from choice.reader.finish(reason, number)
            reason = choice.reader.reason(reason)
        choice.reason = reason
        self.done = all(other.reason is not None for other in self._choices)

    def end(self) -> Iterable[Event]:
        """`End`."""
        if not self.done:
            raise BrokenError(Error("upstream", "the engine's answer ended early", retryable=True))
        yield self._end("stop")

    def cancelled(self) -> Iterable[Event]:
        """`End` as far as it came."""
        if self._prompt is None:
            yield Start()
        yield self._end("cancelled")

    def _end(self, otherwise: Reason) -> End:
        usage = None
        if self._prompt is not None:
            completion = sum(choice.tokens for choice in self._choices)
            usage = Usage(self._prompt, completion, min(self._cached, self._prompt))
        return End(
            tuple(choice.reason or otherwise for choice in self._choices),
            usage,
            self._timings,
            tuple(choice.stopped_by for choice in self._choices),
        )


def _payload(data: bytes) -> dict[str, object]:
    try:
        payload = orjson.loads(data)
    except ValueError as error:
        raise BrokenError(Error("upstream", "the engine sent garbage", retryable=True)) from error
    if not isinstance(payload, dict):
        raise BrokenError(Error("upstream", "the engine sent garbage", retryable=True))
    if (refused := refused_of_body(payload)) is not None:
        raise BrokenError(refused)
    return payload


def _logprobs(found: object, top: int) -> tuple[TokenLogprob, ...]:
    if not isinstance(found, list):
        return ()
    return tuple(_logprob(one, tuple(_logprob(other) for other in one["top_logprobs"][:top])) for one in found)


def _logprob(found: Mapping[str, object], top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    value = found.get("logprob")
    return TokenLogprob(
        str(found.get("token", "")),
        min(0.0, float(value)) if isinstance(value, (int, float)) else -9999.0,
        _whole(found.get("id")),
        top,
    )


def _whole(found: object) -> int:
    return found if isinstance(found, int) else 0


def _micros(milliseconds: object) -> int:
    return int(milliseconds * 1000) if isinstance(milliseconds, (int, float)) else 0
