"""Embedders: from texts to vectors, and what their tokenizer counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import msgspec

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = ["EMBEDDERS", "Embedder", "EmbedderFiles", "Pooling"]

EMBEDDERS = "mainspring.embedders"
"""The entry-point group of packages that bring an embedder as data: ``"all-MiniLM-L6-v2" = "package:FILES"``."""

Pooling = Literal["graph", "mean", "cls"]


class EmbedderFiles(msgspec.Struct, frozen=True):
    """An embedder as files: what a data package exports, and what ``embedder.json`` beside an own model holds.

    Attributes:
        id: names the model and its exact bytes: vectors of two ids are never compared.
        onnx: path of the graph; inputs ``input_ids``, ``attention_mask`` and perhaps ``token_type_ids``.
        tokenizer: path of the ``tokenizer.json``; its own truncation and padding are not used.
        pooling: ``graph``: the first output (texts, dims) is the vector; else how the first output (texts, tokens,
            dims) becomes one: ``mean`` over what is not padding, or ``cls``, the first token's.
        query_prefix: what the model wants before a query.
        document_prefix: what it wants before a document.
        dims: length of a vector.
        max_tokens: tokens that it reads, its special tokens included; what is beyond is cut.
        normalised: whether vectors have length 1; those that are pooled here are made so.
        licence: SPDX identifier of the weights.
    """

    id: str
    onnx: str
    tokenizer: str
    pooling: Pooling
    query_prefix: str
    document_prefix: str
    dims: int
    max_tokens: int
    normalised: bool
    licence: str


@runtime_checkable
class Embedder(Protocol):
    """A model that turns texts into vectors; safe to call from several threads."""

    @property
    def id(self) -> str:
        """Names the model exactly, so that its vectors may be kept and compared."""

    @property
    def dims(self) -> int:
        """Length of a vector."""

    @property
    def max_tokens(self) -> int:
        """Tokens of a text that it reads, special tokens and prefix included; what is beyond is not seen."""

    @property
    def normalised(self) -> bool:
        """Whether vectors have length 1, so that the dot product is the cosine."""

    @property
    def tokenizer(self) -> str:
        """The JSON of its tokenizer, which neither cuts nor pads; empty when it is not known here."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as a document, special tokens and prefix included, nothing cut.

        Where the tokenizer is not known, an estimate that is rather too great.
        """

    def embed_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The vectors of documents, float32 (texts, dims), in their order; (0, dims) for none.

        Raises:
            ServiceError: MS-4061 to MS-4067, a remote model does not answer as it should.
        """

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """The vector of a query, float32 (dims,); not to be written to, it may be kept.

        Raises:
            ServiceError: as `embed_documents`.
        """

    def close(self) -> None:
        """Let go of the model or its connections."""
