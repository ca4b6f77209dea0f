"""The OpenAI wire, written: a request to generate becomes the body of a chat completion or of a completion."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Literal

from mainspring.ports.llm import Generation, Image, Message, Sampling, Tool, ToolChoice

__all__ = ["body_for", "messages_for", "tools_for"]

_OURS = frozenset({"model", "stream", "stream_options", "messages", "prompt", "n"})
Limit = Literal["max_tokens", "max_completion_tokens"]


def body_for(request: Generation, model: str, limit: Limit = "max_tokens") -> dict[str, object]:
    """The body that asks for a stream with usage; what the client wrote beside (`extra`) never replaces ours.

    Args:
        request: what is asked.
        model: the upstream's name of the model.
        limit: the field that says how many tokens an answer may have, of a chat.
    """
    body: dict[str, object] = {key: value for key, value in request.extra.items() if key not in _OURS}
    body |= {"model": model, "stream": True, "stream_options": {"include_usage": True}}
    if request.messages:
        body["messages"] = messages_for(request.messages)
        _sample(body, request.sampling, limit)
        _log_probabilities(body, request.sampling)
        _tools(body, request)
    else:
        prompt = request.prompt
        body["prompt"] = list(prompt) if isinstance(prompt, tuple) else prompt or ""
        _sample(body, request.sampling, "max_tokens")
        if request.echo:
            body["echo"] = True
        if request.suffix:
            body["suffix"] = request.suffix
        if request.sampling.logprobs is not None:
            body["logprobs"] = request.sampling.logprobs
    _schema(body, request)
    if request.user:
        body["user"] = request.user
    return body


def _sample(body: dict[str, object], sampling: Sampling, limit: Limit) -> None:
    for name in (
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "presence_penalty",
        "frequency_penalty",
    ):
        if (value := getattr(sampling, name)) is not None:
            body[name] = value
    if sampling.max_tokens is not None:
        body[limit] = sampling.max_tokens
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.n != 1:
        body["n"] = sampling.n
    if sampling.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}


def _log_probabilities(body: dict[str, object], sampling: Sampling) -> None:
    if sampling.logprobs is not None:
        body["logprobs"] = True
        if sampling.logprobs:
            body["top_logprobs"] = sampling.logprobs


def _tools(body: dict[str, object], request: Generation) -> None:
    if not request.tools:
        return
    body["tools"] = tools_for(request.tools)
    body["tool_choice"] = _choice(request.choice)
    if not request.choice.parallel:
        body["parallel_tool_calls"] = False


def _choice(choice: ToolChoice) -> object:
    return {"type": "function", "function": {"name": choice.name}} if choice.mode == "named" else choice.mode


def _schema(body: dict[str, object], request: Generation) -> None:
    wanted = request.schema
    if wanted is None:
        return
    if wanted.schema is None:
        body["response_format"] = {"type": "json_object"}
    else:
        named: Mapping[str, object] = {
            "name": wanted.name or "answer",
            "schema": dict(wanted.schema),
            "strict": wanted.strict,
        }
        body["response_format"] = {"type": "json_schema", "json_schema": named}


def tools_for(tools: tuple[Tool, ...]) -> list[dict[str, object]]:
    """Tools as the OpenAI wire has them."""
    found: list[dict[str, object]] = []
    for tool in tools:
        function: dict[str, object] = {"name": tool.name, "parameters": dict(tool.parameters) or {"type": "object"}}
        if tool.description:
            function["description"] = tool.description
        if tool.strict:
            function["strict"] = True
        found.append({"type": "function", "function": function})
    return found


def messages_for(messages: tuple[Message, ...]) -> list[dict[str, object]]:
    """A conversation as the OpenAI wire has it; pictures become data URLs."""
    return [_message(message) for message in messages]


def _message(message: Message) -> dict[str, object]:
    said: dict[str, object] = {"role": message.role, "content": _content(message)}
    if message.name:
        said["name"] = message.name
    if message.calls:
        said["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.calls
        ]
        said["content"] = said["content"] or None
    if message.answers:
        said["tool_call_id"] = message.answers
    return said


def _content(message: Message) -> object:
    if not any(isinstance(part, Image) for part in message.content):
        return message.text
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {
            "type": "image_url",
            "image_url": {"url": f"data:{part.media_type};base64,{base64.b64encode(part.data).decode()}"},
        }
        for part in message.content
    ]
