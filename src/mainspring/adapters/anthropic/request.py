"""A request to generate, as the body of Anthropic's Messages API."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping

import orjson

from mainspring.ports.llm import Generation, Image, Message, ToolChoice

__all__ = ["body_for", "refused"]

_OURS = frozenset({"model", "stream", "messages", "system"})
_SCHEMA_TOOL = "answer"


def refused(request: Generation) -> str:
    """What of a request this wire cannot carry; empty when it can carry all."""
    sampling = request.sampling
    if sampling.logprobs is not None:
        return "this upstream tells no log probabilities"
    if sampling.n != 1:
        return "this upstream gives one choice: n must be 1"
    if sampling.logit_bias:
        return "this upstream takes no logit_bias"
    if sampling.temperature is not None and sampling.temperature > 1:
        return f"temperature is {sampling.temperature:g}, this upstream takes at most 1"
    if request.schema is not None and request.tools and request.choice.mode != "none":
        return "this upstream takes either tools or a schema, not both"
    return ""


def body_for(request: Generation, model: str, most: int) -> dict[str, object]:
    """The body that asks for a stream.

    A schema becomes a tool that must be called: its arguments are the answer.

    Args:
        request: what is asked.
        model: the upstream's name of the model.
        most: most tokens of an answer whose request does not say.
    """
    sampling = request.sampling
    body: dict[str, object] = {key: value for key, value in request.extra.items() if key not in _OURS}
    body |= {"model": model, "stream": True, "max_tokens": sampling.max_tokens or most}
    system = "\n\n".join(message.text for message in request.messages if message.role == "system")
    if system:
        body["system"] = system
    body["messages"] = _turns(request.messages)
    for name in ("temperature", "top_p", "top_k"):
        if (value := getattr(sampling, name)) is not None:
            body[name] = value
    if sampling.stop:
        body["stop_sequences"] = list(sampling.stop)
    if request.user:
        body["metadata"] = {"user_id": request.user}
    return body | _tools(request)


def _tools(request: Generation) -> dict[str, object]:
    if request.schema is not None:
        schema = dict(request.schema.schema or {"type": "object"})
        tool = {"name": _SCHEMA_TOOL, "description": "Give the answer.", "input_schema": schema}
        return {"tools": [tool], "tool_choice": {"type": "tool", "name": _SCHEMA_TOOL}}
    if not request.tools:
        return {}
    tools = [
        {
            "name": tool.name,
            "description": tool.description,
            "input_schema": dict(tool.parameters) or {"type": "object"},
        }
        for tool in request.tools
    ]
    return {"tools": tools, "tool_choice": _choice(request.choice)}


def _choice(choice: ToolChoice) -> Mapping[str, object]:
    if choice.mode == "none":
        return {"type": "none"}
    kinds = {"named": {"type": "tool", "name": choice.name}, "required": {"type": "any"}}
    kind: Mapping[str, object] = kinds.get(choice.mode, {"type": "auto"})
    return kind if choice.parallel else {**kind, "disable_parallel_tool_use": True}


def _turns(messages: tuple[Message, ...]) -> list[dict[str, object]]:
    """The conversation in turns of two: what follows from the same side is joined, as tools' answers must be."""
    turns: list[dict[str, object]] = []
    for message in messages:
        if message.role == "system":
            continue
        side = "assistant" if message.role == "assistant" else "user"
        blocks = list(_blocks(message))
        last = turns[-1] if turns else {}
        if last.get("role") == side:
            last["content"].extend(blocks)  # type: ignore[attr-defined]
        elif blocks:
            turns.append({"role": side, "content": blocks})
    return turns


def _blocks(message: Message) -> Iterator[dict[str, object]]:
    if message.role == "tool":
        yield {"type": "tool_result", "tool_use_id": message.answers, "content": message.text}
        return
    for part in message.content:
        if isinstance(part, Image):
            data = base64.b64encode(part.data).decode()
            yield {"type": "image", "source": {"type": "base64", "media_type": part.media_type, "data": data}}
        elif part:
            yield {"type": "text", "text": part}
    for call in message.calls:
        yield {"type": "tool_use", "id": call.id, "name": call.name, "input": _input(call.arguments)}


def _input(arguments: str) -> object:
    try:
        found = orjson.loads(arguments or "{}")
    except ValueError:
        return {"arguments": arguments}  # a call that the model had written wrongly: the wire takes objects only
    return found if isinstance(found, dict) else {"arguments": found}
