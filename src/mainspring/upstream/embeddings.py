"""Embeddings over the OpenAI wire."""

from __future__ import annotations

import base64
from array import array
from collections.abc import Mapping, Sequence
from typing import cast

import orjson

from mainspring.ports.llm import Embeddings, EmbedRequest, Error, Usage
from mainspring.upstream.chat_events import usage_of
from mainspring.upstream.faults import BrokenError

__all__ = ["embed_body", "embeddings_of"]


def embed_body(request: EmbedRequest, model: str) -> bytes:
    """The body that asks for vectors as base64, which is a third of the bytes of their numbers."""
    inputs = [list(one) if isinstance(one, tuple) else one for one in request.inputs]
    body: dict[str, object] = {"model": model, "input": inputs, "encoding_format": "base64"}
    if request.dims is not None:
        body["dimensions"] = request.dims
    return orjson.dumps(body)


def embeddings_of(body: bytes, count: int) -> Embeddings:
    """The vectors of an answer, in the order of the inputs, whether they came as base64 or as numbers.

    Raises:
        BrokenError: it is garbage, or not one vector for each input, all of one length.
    """
    try:
        found = orjson.loads(body)
        rows = sorted(cast("Sequence[Mapping[str, object]]", found["data"]), key=lambda row: cast(int, row["index"]))
        vectors = tuple(_vector(row["embedding"]) for row in rows)
        usage = usage_of(found.get("usage") or {})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BrokenError(Error("upstream", "the upstream sent garbage", retryable=True)) from error
    sizes = {len(vector) for vector in vectors}
    if len(vectors) != count or len(sizes) != 1 or sizes == {0}:
        raise BrokenError(Error("upstream", f"the upstream sent {len(vectors)} vectors for {count} texts"))
    return Embeddings(vectors, sizes.pop() // 4, Usage(usage.prompt, 0))


def _vector(found: object) -> bytes:
    if isinstance(found, str):
        return base64.b64decode(found, validate=True)
    return array("f", cast("Sequence[float]", found)).tobytes()
