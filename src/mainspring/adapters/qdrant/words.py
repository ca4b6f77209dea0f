"""Terms of texts, made here by the embedded engine's own BM25: the server is only given sparse vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainspring.lazy import lazy
from mainspring.ports.vector_store import Schema, Sparse
from mainspring.vectors.checked import sparse_of
from mainspring.vectors.faults import schema_beyond

if TYPE_CHECKING:
    import qdrant_edge as edge
    from qdrant_client import models
else:
    edge = lazy("qdrant_edge")
    models = lazy("qdrant_client.models")

__all__ = ["Words", "sparse"]


class Words:
    """What makes terms of the texts and questions of one index.

    Raises:
        UsageError: MS-2657, the language has no stop words and stemmer.
    """

    def __init__(self, schema: Schema) -> None:
        language = {"language": schema.language} if schema.language else {"stopwords": edge.StopwordsSet()}
        try:
            self._bm25 = edge.Bm25(edge.Bm25Config(avg_len=schema.words, **language))
        except ValueError as error:
            raise schema_beyond("qdrant", f"it has no stop words and stemmer for {schema.language}") from error

    def document(self, text: str) -> models.SparseVector:
        """The terms of a text, by how often they are in it."""
        return _vector(self._bm25.embed_document(text))

    def query(self, text: str) -> models.SparseVector:
        """The terms of a question."""
        return _vector(self._bm25.embed_query(text))


def _vector(found: edge.SparseVector) -> models.SparseVector:
    return models.SparseVector(indices=list(found.indices), values=list(found.values))


def sparse(given: Sparse) -> models.SparseVector:
    """A sparse vector of a caller's."""
    indices, values = sparse_of(given.indices, given.values)
    return models.SparseVector(indices=indices, values=values)
