"""Settings of the onnxruntime adapter."""

from typing import Annotated

import msgspec

__all__ = ["EmbedderSettings", "OnnxSettings"]


class OnnxSettings(msgspec.Struct, frozen=True):
    """How many threads one call may use; small models are fastest with one."""

    threads: Annotated[int, msgspec.Meta(ge=1)] = 1


class EmbedderSettings(msgspec.Struct, frozen=True):
    """Which model, and how it runs.

    Attributes:
        model: name of an installed embedder package's model; left out, the only one that is installed.
        path: folder of an own model, relative to the project: ``embedder.json`` (as `EmbedderFiles`) and its files.
        threads: of one call; 0 is what the machine's quota of processor time allows.
        batch_tokens: most tokens of a batch, padding included.
        batch_texts: most texts of a batch.
        query_cache: vectors of queries that are kept.
    """

    model: str | None = None
    path: str | None = None
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    batch_tokens: Annotated[int, msgspec.Meta(ge=1)] = 8192
    batch_texts: Annotated[int, msgspec.Meta(ge=1)] = 64
    query_cache: Annotated[int, msgspec.Meta(ge=0)] = 1024
