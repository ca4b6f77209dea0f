"""A vector store of the port as LangChain's `VectorStore`."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance

from mainspring.lazy import lazy
from mainspring.ports import vector_store as port
from mainspring.ports.vector_filter import FieldType, filter_from_json

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["MainspringVectorStore", "Mode"]

Mode = Literal["dense", "hybrid"]

_NAMES = uuid.UUID("6d61696e-7370-5269-8e67-6c616e676368")
"""The namespace of points whose ids are no UUIDs."""
_ID, _TEXT, _META = "id", "text", "metadata"
_PAGE = 1000


class MainspringVectorStore(VectorStore):
    """Documents in an index of a vector store.

    Writing a document with an id that is there replaces it. Scores of a dense search are cosines, the greater the
    nearer; of a hybrid one they are fused ranks, comparable within one answer only.

    Args:
        store: the vector store.
        embedding: LangChain embeddings; `MainspringEmbeddings` for the app's own.
        index: its name; made when it is not there.
        fields: metadata that filters may name, with their types: ``{"year": "integer"}``. A filter names them
            ``metadata.year``.
        mode: how `similarity_search` finds: ``dense``, or ``hybrid`` with words too.
        language: of stop words and stemmer, for hybrid searches.

    Raises:
        UsageError: MS-2657, the store cannot hold such an index.
        StoreError: MS-4181, the index is there with another schema.
    """

    def __init__(
        self,
        store: port.VectorStore,
        embedding: Embeddings,
        index: str,
        *,
        fields: Mapping[str, FieldType] | None = None,
        mode: Mode = "dense",
        language: str = "english",
    ) -> None:
        self._store = store
        self._embedding = embedding
        self._index = index
        self._fields = dict(fields or {})
        self._mode = mode
        dims = getattr(embedding, "dims", None) or len(embedding.embed_query("a"))
        own = (port.Field(_ID, "string"), *(port.Field(f"{_META}.{name}", kind) for name, kind in self._fields.items()))
        store.create(index, port.Schema(dims, fields=own, language=language))

    @property
    def embeddings(self) -> Embeddings:
        """What embeds."""
        return self._embedding

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **given: Any,
    ) -> MainspringVectorStore:
        """A vector store with these texts.

        Args:
            texts: the documents' texts.
            embedding: what embeds.
            metadatas: of each text.
            ids: of each text.
            **given: ``store``, ``index`` and the other arguments of the class.
        """
        made = cls(embedding=embedding, **given)
        made.add_texts(texts, metadatas, ids=ids)
        return made

    # -- writing ------------------------------------------------------------------------------------------------------

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Write texts; the ids that they have, new ones where none are given.

        Raises:
            UsageError: MS-2653, metadata does not fit its field.
        """
        given = list(texts)
        names = [name or str(uuid.uuid4()) for name in ids or [""] * len(given)]
        metas = metadatas or [{}] * len(given)
        vectors = self._embedding.embed_documents(given) if given else []
        points = [
            port.Point(_point(name), vector, self._payload(name, text, metadata), text)
            for name, text, metadata, vector in zip(names, given, metas, vectors, strict=True)
        ]
        if points:
            self._store.upsert(self._index, points)
            self._store.flush(self._index)
        return names

    def _payload(self, name: str, text: str, metadata: Mapping[str, Any]) -> dict[str, object]:
        fields = {f"{_META}.{field}": metadata[field] for field in self._fields if metadata.get(field) is not None}
        return {_ID: name, _TEXT: text, _META: dict(metadata), **fields}

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete documents by their ids, all of them when none are given; ids that are not there are passed over."""
        where: port.Where = port.And(()) if ids is None else [_point(name) for name in ids]
        if ids is None or ids:
            self._store.delete(self._index, where)
            self._store.flush(self._index)
        return True

    # -- reading ------------------------------------------------------------------------------------------------------

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents that are there, in the order of the ids."""
        found = {str(point.payload[_ID]): point for point in self._stored(ids)}
        return [_document(found[name].payload) for name in ids if name in found]

    def _stored(self, ids: Sequence[str], *, vectors: bool = False) -> list[port.Stored]:
        found: list[port.Stored] = []
        for start in range(0, len(ids), _PAGE):
            part = port.In(_ID, tuple(ids[start : start + _PAGE]))
            found += self._store.scroll(self._index, part, limit=_PAGE, vectors=vectors).points
        return found

    def similarity_search(
        self, query: str, k: int = 4, filter: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[Document]:
        """The nearest documents.

        Args:
            query: what is looked for.
            k: how many.
            filter: the JSON form of a filter, such as ``{"eq": ["metadata.year", 2013]}``.
            **kwargs: ``mode``.
        """
        return [document for document, _ in self.similarity_search_with_score(query, k, filter, **kwargs)]

    def similarity_search_with_score(
        self,
        query: str,
        k: int = 4,
        filter: Mapping[str, Any] | None = None,
        *,
        mode: Mode | None = None,
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """As `similarity_search`, with scores."""
        words = query if (mode or self._mode) == "hybrid" else None
        return self._near(self._embedding.embed_query(query), k, filter, words)

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, filter: Mapping[str, Any] | None = None, **kwargs: Any
    ) -> list[Document]:
        """The documents nearest to a vector."""
        return [document for document, _ in self._near(embedding, k, filter, None)]

    def _near(
        self, vector: Sequence[float], k: int, filter: Mapping[str, Any] | None, words: str | None
    ) -> list[tuple[Document, float]]:
        query = port.Query(dense=vector, text=words, k=k, filter=None if filter is None else filter_from_json(filter))
        return [(_document(hit.payload), hit.score) for hit in self._store.search(self._index, query).hits]

    def max_marginal_relevance_search(
        self,
        query: str,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Documents that are near and unlike each other.

        Args:
            query: what is looked for.
            k: how many.
            fetch_k: how many are chosen from.
            lambda_mult: 1 is nearness alone, 0 is difference alone.
            filter: as of `similarity_search`.
            **kwargs: none.
        """
        vector = self._embedding.embed_query(query)
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, filter)

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """As `max_marginal_relevance_search`, from a vector."""
        near = self._near(embedding, max(fetch_k, k), filter, None)
        vectors = {
            str(point.payload[_ID]): np.asarray(point.vector, np.float32).tolist()
            for point in self._stored([str(document.id) for document, _ in near], vectors=True)
        }
        known = [(document, vectors[str(document.id)]) for document, _ in near if str(document.id) in vectors]
        chosen = maximal_marginal_relevance(
            np.asarray(embedding, np.float32), [vector for _, vector in known], lambda_mult, k
        )
        return [known[place][0] for place in chosen]

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return _relevance


def _relevance(cosine: float) -> float:
    """A cosine in [-1, 1] as LangChain's relevance in [0, 1]."""
    return min(max((cosine + 1) / 2, 0.0), 1.0)


def _point(name: str) -> str:
    """The point of a document's id: the id itself where it is a UUID in its canonical text."""
    try:
        found = str(uuid.UUID(name))
    except ValueError:
        found = ""
    return found if found == name else str(uuid.uuid5(_NAMES, name))


def _document(payload: Mapping[str, Any]) -> Document:
    return Document(page_content=payload[_TEXT], id=payload[_ID], metadata=dict(payload.get(_META) or {}))
