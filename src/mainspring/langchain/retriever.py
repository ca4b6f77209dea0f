"""An index of the app as a LangChain retriever, with the rights of one caller."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field

from mainspring.declare.documents import Mode
from mainspring.declare.identity import ANYONE, Identity
from mainspring.rag.search import Hit, Searcher, SearchRequest

__all__ = ["MainspringRetriever"]


class MainspringRetriever(BaseRetriever):
    """Chunks of an index as documents; their metadata says where each comes from.

    Beside the documents' own keys it has ``chunk_id, document_id, document_version, score, title, uri, path, pages,
    span`` and ``index_version``. Nobody sees more than `caller` may: without one, what is public.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    searcher: Searcher
    """The index."""
    caller: Identity = Field(default=ANYONE)
    """Whose rights hold."""
    k: int = 10
    """How many chunks."""
    filter: dict[str, Any] | None = None
    """The JSON form of a filter on metadata, or None."""
    mode: Mode | None = None
    """``hybrid``, ``dense`` or ``text``; None is the index's own."""
    rerank: bool | None = None
    """Whether the reranker sorts what is found; None is the index's own."""

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **asked: Any
    ) -> list[Document]:
        return self._found(query, asked)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **asked: Any
    ) -> list[Document]:
        return await asyncio.to_thread(self._found, query, asked)

    def _found(self, query: str, asked: Mapping[str, Any]) -> list[Document]:
        own = {"k": self.k, "filter": self.filter, "mode": self.mode, "rerank": self.rerank}
        request = msgspec.convert({"query": query, **own, **asked}, SearchRequest)
        answer = self.searcher.search(request, self.caller)
        return [_document(hit, answer.version) for hit in answer.hits]


def _document(hit: Hit, version: int) -> Document:
    where = {
        "chunk_id": hit.chunk_id,
        "document_id": hit.document_id,
        "document_version": hit.document_version,
        "score": hit.score,
        "title": hit.title,
        "uri": hit.uri,
        "path": list(hit.path),
        "pages": None if hit.pages is None else list(hit.pages),
        "span": list(hit.span),
        "index_version": version,
    }
    return Document(page_content=hit.text, id=hit.chunk_id, metadata={**hit.metadata, **where})
