"""``POST /v1/chat/completions``: rendering, from events to chunks and from their fold to a whole answer."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson

from mainspring.llm.fold import Answer
from mainspring.llm.run import Run
from mainspring.ports.llm import End, Error, Reasoning, Text, ToolDelta
from mainspring.protocols.openai.errors import error_chunk
from mainspring.protocols.openai.usage import FINISH, logprob_content, usage_of

__all__ = ["DONE", "chat_answer", "chat_chunks"]

DONE = b"data: [DONE]\n\n"
_END = b'},"finish_reason":null}]}\n\n'
_TEXT = (
    b"""{"index":%d,"message":{"role":"assistant","content":%b,"refusal":null},"logprobs":null,"finish_reason":"%b"}"""
)
_USAGE = (
    b'],"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d,'
    b'"prompt_tokens_details":{"cached_tokens":%d},"completion_tokens_details":{"reasoning_tokens":%d}}}'
)


class _Shape:
    """The bytes of one stream's chunks around what changes from one to the next."""

    __slots__ = ("_head", "_tools", "content", "thoughts")

    def __init__(self, id: str, created: int, model: str, choices: int) -> None:
        named = orjson.dumps(model)
        self._head = (
            b'data: {"id":"chatcmpl-%s","object":"chat.completion.chunk","created":%d,"model":%s,"choices":['
            % (id.encode(), created, named)
        )
        self.content = [self._head + b'{"index":%d,"delta":{"content":' % choice for choice in range(choices)]
        self.thoughts = [
            self._head + b'{"index":%d,"delta":{"reasoning_content":' % choice for choice in range(choices)
        ]
        self._tools: set[tuple[int, int]] = set()

    def first(self, choices: int) -> bytes:
        """The chunk that names the role, for each choice."""
        return b"".join(
            self._head + b'{"index":%d,"delta":{"role":"assistant","content":""' % choice + _END
            for choice in range(choices)
        )

    def logprobs(self, event: Text) -> bytes:
        """A piece of text with its log probabilities."""
        found = orjson.dumps({"content": logprob_content(event.logprobs), "refusal": None})
        return b'},"logprobs":' + found + b',"finish_reason":null}]}\n\n'

    def tool(self, event: ToolDelta) -> bytes:
        """A piece of a tool call; the first one of each call comes alone, with its id and name."""
        place = (event.choice, event.index)
        head = self._head + b'{"index":%d,"delta":{"tool_calls":[{"index":%d,' % place
        parts = []
        if place not in self._tools:
            self._tools.add(place)
            names = b'"id":%s,"type":"function","function":{"name":%s,"arguments":""}}]' % (
                orjson.dumps(event.id),
                orjson.dumps(event.name),
            )
            parts += [head, names, _END]
        if event.arguments:
            parts += [head, b'"function":{"arguments":', orjson.dumps(event.arguments), b"}}]", _END]
        return b"".join(parts)

    def last(self, end: End, choices: int, *, usage: bool) -> bytes:
        """The chunks that say why each choice ended, then the usage where it was asked for, then that it is all."""
        parts = []
        for choice in range(choices):
            reason = FINISH[end.reasons[choice]] if choice < len(end.reasons) else "stop"
            parts.append(self._head + b'{"index":%d,"delta":{},"finish_reason":"%s"}]}\n\n' % (choice, reason.encode()))
        if usage and end.usage is not None:
            parts.append(self._head + b'],"usage":' + orjson.dumps(usage_of(end.usage)) + b"}\n\n")
        parts.append(DONE)
        return b"".join(parts)


async def chat_chunks(run: Run, id: str, created: int, model: str, *, usage: bool) -> AsyncIterator[bytes]:
    """The server-sent events of a run: one a piece, as soon as it is there.

    Args:
        run: begun.
        id: of the request.
        created: seconds since 1970.
        model: the public name.
        usage: whether the last chunk tells it.
    """
    choices = run.request.sampling.n
    shape = _Shape(id, created, model, choices)
    content, dumps = shape.content, orjson.dumps
    yield shape.first(choices)
    async for event in run.events():
        if type(event) is Text:
            if event.logprobs:
                yield content[event.choice] + dumps(event.text) + shape.logprobs(event)
            elif event.text:
                yield content[event.choice] + dumps(event.text) + _END
        elif isinstance(event, ToolDelta):
            part = shape.tool(event)
            if part:
                yield part
        elif isinstance(event, Reasoning):
            yield shape.thoughts[event.choice] + dumps(event.text) + _END
        elif isinstance(event, End):
            yield shape.last(event, choices, usage=usage)
        elif isinstance(event, Error):
            yield error_chunk(event)


def chat_answer(answer: Answer, id: str, created: int, model: str, *, logprobs: bool) -> bytes:
    """The whole answer."""
    choices = [_choice(answer, choice, logprobs=logprobs) for choice in range(len(answer.items))]
    usage = answer.usage
    return b"%b%b%b%d%b%b%b%b%b" % (
        b'{"id":"chatcmpl-', id.encode(), b'","object":"chat.completion","created":', created,
        b',"model":', orjson.dumps(model), b',"choices":[', b",".join(choices),
        _USAGE % (usage.prompt, usage.completion, usage.prompt + usage.completion, usage.cached, usage.reasoning),
    )  # fmt: skip


def _choice(answer: Answer, choice: int, *, logprobs: bool) -> bytes:
    """A choice, from a template where it is text alone: as chunks are, for a third of what a dictionary costs."""
    text, thoughts, calls = answer.parts(choice)
    if not (thoughts or calls or logprobs):
        return _TEXT % (choice, orjson.dumps(text), FINISH[answer.reason(choice)].encode())
    return orjson.dumps(_rich_choice(answer, choice, logprobs=logprobs))


def _rich_choice(answer: Answer, choice: int, *, logprobs: bool) -> dict[str, object]:
    text, thoughts, calls = answer.parts(choice)
    message: dict[str, object] = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
    if thoughts:
        message["reasoning_content"] = thoughts
    if calls:
        message["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.text}}
            for call in calls
        ]
    found = {"content": logprob_content(answer.logprobs(choice)), "refusal": None} if logprobs else None
    return {"index": choice, "message": message, "logprobs": found, "finish_reason": FINISH[answer.reason(choice)]}
