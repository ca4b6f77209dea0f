"""How many tokens a request may take, before anyone has counted; and what an answer took, when the engine is silent."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from mainspring.llm.fold import Answer
from mainspring.ports.llm import Engine, Generation, Usage

__all__ = ["counted_usage", "most_prompt_tokens"]

_TEMPLATE = 64
"""What a chat template may add to a conversation, in tokens."""
_MESSAGE = 16
_TOOLS = 512
"""What a template may say about how tools are called."""
_IMAGE = 4096
_BYTES_A_TOKEN = 4


def most_prompt_tokens(request: Generation) -> int:
    """Tokens that a prompt is not likely to exceed: no tokenizer has tokens of less than one byte."""
    if request.prompt is not None:
        return len(request.prompt) + 1 if not isinstance(request.prompt, str) else len(request.prompt.encode()) + 1
    total = _TEMPLATE
    for message in request.messages:
        total += _MESSAGE
        for part in message.content:
            if isinstance(part, str):
                total += len(part) if part.isascii() else len(part.encode())
            else:
                total += _IMAGE
        for call in message.calls:
            total += _MESSAGE + len(call.name.encode()) + len(call.arguments.encode())
    if request.tools:
        total += _TOOLS
        for tool in request.tools:
            total += len(tool.name.encode()) + len(tool.description.encode()) + len(orjson.dumps(tool.parameters))
    return total


async def counted_usage(engine: Engine, request: Generation, answer: Answer, told: int) -> Usage:
    """Tokens of a request whose engine has not said: by its tokenizer where it has one, else by bytes.

    Args:
        engine: who answered.
        request: what was asked.
        answer: what came.
        told: tokens that the pieces of the answer said they have; 0 when they did not.
    """
    prompt = answer.start.prompt_tokens
    if prompt is None:
        prompt = await engine.count(request)
    if prompt is None:
        prompt = -(-most_prompt_tokens(request) // _BYTES_A_TOKEN)
    texts = [_spoken(answer, choice) for choice in range(len(answer.items))]
    completion = told or await _count(engine, texts)
    reasoning = await _count(engine, [answer.reasoning(choice) for choice in range(len(answer.items))])
    cached = answer.start.cached or 0
    return Usage(prompt, completion, cached=cached, reasoning=min(reasoning, completion), source="counted")


def _spoken(answer: Answer, choice: int) -> str:
    return "".join(item.name + item.text for item in answer.items[choice])


async def _count(engine: Engine, texts: Sequence[str]) -> int:
    total = 0
    for text in texts:
        if text:
            ids = await engine.tokenize(text)
            total += -(-len(text.encode()) // _BYTES_A_TOKEN) if ids is None else len(ids)
    return total
