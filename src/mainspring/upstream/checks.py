"""What no engine can do: requests that are refused before anything is sent."""

from __future__ import annotations

from mainspring.ports.llm import Capabilities, Error, Generation, Sampling

__all__ = ["refusal_of"]

_RANGES: tuple[tuple[str, float, float], ...] = (
    ("temperature", 0, 100),
    ("top_p", 0, 1),
    ("min_p", 0, 1),
    ("presence_penalty", -2, 2),
    ("frequency_penalty", -2, 2),
    ("logprobs", 0, 100),
    ("max_tokens", 1, 1 << 31),
    ("top_k", -1, 1 << 31),
    ("n", 1, 128),
)


def refusal_of(request: Generation, can: Capabilities) -> Error | None:
    """Why an engine that can do that much refuses a request, or None."""
    if can.models and request.model and request.model not in can.models:
        return Error("not_found", f"model {request.model!r} is not served here; {', '.join(can.models)} is", status=404)
    why = _asked(request) or _ranges(request.sampling) or _beyond(request, can)
    return Error("invalid", why, status=400) if why else None


def _asked(request: Generation) -> str:
    if not request.messages and not request.prompt:
        return "there are no messages and no prompt" if request.prompt is None else "the prompt is empty"
    named = [tool.name for tool in request.tools]
    if request.choice.mode == "named" and request.choice.name not in named:
        return f"tool_choice names {request.choice.name!r}, which is none of the tools"
    if request.choice.mode == "required" and not named:
        return "tool_choice is required, but there are no tools"
    if len(set(named)) != len(named):
        return "two tools have the same name"
    return ""


def _ranges(sampling: Sampling) -> str:
    for name, least, most in _RANGES:
        value = getattr(sampling, name)
        if value is not None and not least <= value <= most:
            return f"{name} is {value:g}, it must be between {least:g} and {most:g}"
    if any(not stop for stop in sampling.stop):
        return "a stop text is empty"
    if any(not -100 <= bias <= 100 for bias in sampling.logit_bias.values()):
        return "a logit_bias is not between -100 and 100"
    return ""


def _beyond(request: Generation, can: Capabilities) -> str:
    if request.messages and not can.chat:
        return "this model has no chat template: it takes a prompt, not a conversation"
    if not request.messages and not can.completion:
        return "this model takes conversations, not bare prompts"
    if not can.images and any(not isinstance(part, str) for message in request.messages for part in message.content):
        return "this model sees no pictures"
    return ""
