"""The app's embedder as LangChain's `Embeddings`."""

from __future__ import annotations

import asyncio

from langchain_core.embeddings import Embeddings

from mainspring.ports.embedder import Embedder

__all__ = ["MainspringEmbeddings"]


class MainspringEmbeddings(Embeddings):
    """Vectors by an embedder of the port.

    Args:
        embedder: what embeds; it may be used from several threads.
    """

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    @property
    def dims(self) -> int:
        """Numbers of a vector."""
        return self.embedder.dims

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vectors of documents, in their order."""
        if not texts:
            return []
        found: list[list[float]] = self.embedder.embed_documents(texts).tolist()
        return found

    def embed_query(self, text: str) -> list[float]:
        """The vector of a query."""
        found: list[float] = self.embedder.embed_query(text).tolist()
        return found

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """As `embed_documents`, in a thread."""
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """As `embed_query`, in a thread."""
        return await asyncio.to_thread(self.embed_query, text)
