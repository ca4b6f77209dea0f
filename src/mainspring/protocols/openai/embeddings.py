"""``POST /v1/embeddings``."""

from __future__ import annotations

import base64
import struct
from typing import Any, Literal

import msgspec
import orjson

from mainspring.ports.llm import Embeddings, EmbedRequest
from mainspring.protocols.llm.faults import bad, decoded
from mainspring.protocols.openai.chat import Positive
from mainspring.protocols.openai.completions import prompts_of

__all__ = ["EmbeddingsRequest", "embeddings_answer", "embeddings_request"]

_MOST = 2048


class EmbeddingsRequest(msgspec.Struct):
    """The body of a request for embeddings."""

    input: str | list[Any]
    model: str = ""
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Positive | None = None
    user: str | None = None


_DECODER = msgspec.json.Decoder(EmbeddingsRequest)


def embeddings_request(body: bytes, request_id: str) -> tuple[EmbeddingsRequest, EmbedRequest]:
    """A decoded body, and what it asks for.

    Raises:
        LLMFault: 400, with the field that is wrong.
    """
    asked = decoded(_DECODER, body)
    inputs = prompts_of(asked.input, "input")
    if len(inputs) > _MOST:
        raise bad(f"at most {_MOST} inputs a request", "input")
    if any(len(text) == 0 for text in inputs):
        raise bad("an input is empty", "input")
    return asked, EmbedRequest(request_id, asked.model, tuple(inputs), asked.dimensions)


def embeddings_answer(found: Embeddings, model: str, *, base64_text: bool) -> bytes:
    """The vectors as lists of numbers, or as base64 of little-endian float32."""
    data = []
    for index, vector in enumerate(found.vectors):
        shown = (
            base64.b64encode(vector).decode() if base64_text else list(struct.unpack(f"<{len(vector) // 4}f", vector))
        )
        data.append({"object": "embedding", "index": index, "embedding": shown})
    usage = {"prompt_tokens": found.usage.prompt, "total_tokens": found.usage.prompt}
    return orjson.dumps({"object": "list", "data": data, "model": model, "usage": usage})
