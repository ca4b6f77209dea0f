"""``POST /v1/completions``: decoding and rendering; several prompts are answered one after the other."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import msgspec
import orjson
from msgspec import Meta

from mainspring.llm.fold import Answer
from mainspring.llm.gateway import Gateway
from mainspring.llm.refused import Refused
from mainspring.llm.run import Run
from mainspring.llm.values import Call
from mainspring.ports.llm import End, Error, Event, Generation, Sampling, Text, Usage
from mainspring.protocols.llm.faults import bad, decoded
from mainspring.protocols.openai.chat import (
    Penalty,
    Positive,
    ResponseFormat,
    Share,
    Stops,
    StreamOptions,
    Temperature,
    schema_of,
    stops_of,
)
from mainspring.protocols.openai.chat_answer import DONE
from mainspring.protocols.openai.errors import error_chunk
from mainspring.protocols.openai.usage import FINISH, completion_logprobs, usage_of

__all__ = ["CompletionRequest", "Texts", "completion_answer", "completion_request"]

_MOST_PROMPTS = 128


class CompletionRequest(msgspec.Struct):
    """The body of a completion."""

    model: str = ""
    prompt: str | list[Any] = ""
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    top_k: int | None = None
    min_p: Share | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    best_of: int | None = None
    seed: int | None = None
    stop: Stops = None
    max_tokens: Positive | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[int, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = False
    suffix: str | None = None
    response_format: ResponseFormat | None = None
    user: str | None = None


def completion_request(body: bytes, request_id: str) -> tuple[CompletionRequest, list[Generation]]:
    """A decoded body, and what it asks for: a generation for each prompt.

    Raises:
        LLMFault: 400, with the field that is wrong.
    """
    asked = decoded(_DECODER, body)
    prompts = prompts_of(asked.prompt, "prompt")
    if len(prompts) > _MOST_PROMPTS:
        raise bad(f"at most {_MOST_PROMPTS} prompts a request", "prompt")
    if asked.best_of is not None and asked.best_of != (asked.n or 1):
        raise bad("best_of is not supported beside n", "best_of")
    sampling = Sampling(
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        min_p=asked.min_p,
        seed=asked.seed,
        stop=stops_of(asked.stop),
        max_tokens=asked.max_tokens,
        n=asked.n or 1,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        logit_bias=asked.logit_bias or {},
        logprobs=asked.logprobs,
    )
    return asked, [
        Generation(
            id=f"{request_id}{number or ''}",
            model=asked.model,
            prompt=prompt,
            echo=asked.echo or False,
            suffix=asked.suffix or "",
            sampling=sampling,
            schema=schema_of(asked.response_format),
            user=asked.user or "",
        )
        for number, prompt in enumerate(prompts)
    ]


def prompts_of(given: object, param: str) -> list[str | tuple[int, ...]]:
    """Text, texts, token ids or lists of them, as a list.

    Raises:
        LLMFault: 400, it is empty or mixed.
    """
    if isinstance(given, str):
        return [given]
    if isinstance(given, list) and given:
        if all(isinstance(part, int) for part in given):
            return [tuple(given)]
        if all(isinstance(part, str) for part in given):
            return list(given)
        if all(isinstance(part, list) and part and all(isinstance(id, int) for id in part) for part in given):
            return [tuple(part) for part in given]
    raise bad("give a text, texts, token ids, or lists of token ids; not none and not mixed", param)


class Texts:
    """The answer to several prompts as one stream: choices are numbered on from prompt to prompt.

    Args:
        gateway: asked for the prompts after the first.
        run: of the first prompt, begun.
        calls: of the other prompts.
    """

    __slots__ = ("_calls", "_gateway", "_head", "_run", "_usage")

    def __init__(self, gateway: Gateway, run: Run, calls: Sequence[Call], id: str, created: int, model: str) -> None:
        self._gateway = gateway
        self._run = run
        self._calls = list(calls)
        self._usage: list[Usage] = []
        self._head = b'data: {"id":"cmpl-%s","object":"text_completion","created":%d,"model":%s,"choices":[' % (
            id.encode(),
            created,
            orjson.dumps(model),
        )

    async def close(self) -> None:
        """Give up what is under way."""
        await self._run.close()

    async def chunks(self, *, usage: bool) -> AsyncIterator[bytes]:
        """The server-sent events."""
        base = 0
        while True:
            offsets: dict[int, int] = {}
            async for event in self._run.events():
                if isinstance(event, Error):
                    yield error_chunk(event)
                    return
                part = self._part(event, base, offsets)
                if part:
                    yield part
            base += self._run.request.sampling.n
            await self._run.close()
            if not self._calls:
                break
            opened = await self._gateway.open(self._calls.pop(0))
            if isinstance(opened, Refused):
                yield error_chunk(opened.error)
                return
            self._run = opened
        if usage:
            yield self._head + b'],"usage":' + orjson.dumps(usage_of(_sum(self._usage))) + b"}\n\n"
        yield DONE

    def _part(self, event: Event, base: int, offsets: dict[int, int]) -> bytes:
        if isinstance(event, Text):
            offset = offsets.get(event.choice, 0)
            offsets[event.choice] = offset + len(event.text)
            found = orjson.dumps(completion_logprobs(event.logprobs, offset)) if event.logprobs else b"null"
            text = orjson.dumps(event.text)
            return self._head + b'{"index":%d,"text":%s,"logprobs":%s,"finish_reason":null}]}\n\n' % (
                base + event.choice,
                text,
                found,
            )
        if isinstance(event, End):
            if event.usage is not None:
                self._usage.append(event.usage)
            return b"".join(
                self._head
                + b'{"index":%d,"text":"","logprobs":null,"finish_reason":"%s"}]}\n\n' % (base + number, name.encode())
                for number, name in enumerate(_finishes(event, self._run.request.sampling.n))
            )
        return b""


def _finishes(end: End, choices: int) -> list[str]:
    return [FINISH[end.reasons[n]] if n < len(end.reasons) else "stop" for n in range(choices)]


def _sum(found: Sequence[Usage]) -> Usage:
    return Usage(
        sum(usage.prompt for usage in found),
        sum(usage.completion for usage in found),
        cached=sum(usage.cached for usage in found),
        cache_write=sum(usage.cache_write for usage in found),
        reasoning=sum(usage.reasoning for usage in found),
    )


def completion_answer(answers: Sequence[Answer], id: str, created: int, model: str, *, logprobs: bool) -> bytes:
    """The whole answers to all prompts."""
    choices: list[dict[str, object]] = []
    for answer in answers:
        for choice in range(len(answer.items)):
            found = completion_logprobs(answer.logprobs(choice), 0) if logprobs else None
            reason = FINISH[answer.reason(choice)]
            choices.append(
                {"index": len(choices), "text": answer.text(choice), "logprobs": found, "finish_reason": reason}
            )
    usage = usage_of(_sum([answer.usage for answer in answers]))
    head = {"id": f"cmpl-{id}", "object": "text_completion", "created": created, "model": model}
    return orjson.dumps({**head, "choices": choices, "usage": usage})


_DECODER = msgspec.json.Decoder(CompletionRequest)
