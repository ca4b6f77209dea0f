"""Tokens and log probabilities in OpenAI's shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mainspring.ports.llm import Reason, TokenLogprob, Usage

__all__ = ["FINISH", "completion_logprobs", "logprob_content", "response_usage", "usage_of"]

FINISH: Mapping[Reason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "cancelled": "stop",
}


def usage_of(usage: Usage) -> dict[str, object]:
    """``usage`` of chat completions and completions."""
    return {
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    }


def response_usage(usage: Usage) -> dict[str, object]:
    """``usage`` of responses."""
    return {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.prompt + usage.completion,
    }


def _one(found: TokenLogprob) -> dict[str, object]:
    return {"token": found.token, "logprob": found.logprob, "bytes": list(found.token.encode())}


def logprob_content(found: Sequence[TokenLogprob]) -> list[dict[str, object]]:
    """``logprobs.content`` of chat completions, and ``logprobs`` of responses."""
    return [{**_one(token), "top_logprobs": [_one(other) for other in token.top]} for token in found]


def completion_logprobs(found: Sequence[TokenLogprob], offset: int) -> dict[str, object]:
    """``logprobs`` of completions; `offset` is how many characters came before."""
    offsets = []
    for token in found:
        offsets.append(offset)
        offset += len(token.token)
    return {
        "tokens": [token.token for token in found],
        "token_logprobs": [token.logprob for token in found],
        "top_logprobs": [{other.token: other.logprob for other in token.top} for token in found],
        "text_offset": offsets,
    }
