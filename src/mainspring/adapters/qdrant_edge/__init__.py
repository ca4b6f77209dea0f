"""Vectors in Qdrant's engine inside the process: dense and words in one index, int8 copies, nothing to install."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="vectors",
    name="qdrant_edge",
    factory="mainspring.adapters.qdrant_edge.vector_store:open_store",
    settings="mainspring.adapters.qdrant_edge.settings:QdrantEdgeSettings",
    embedded=True,
    modules=("qdrant_edge", "numpy"),
    extra="rag",
    capabilities={"full_text": "bm25", "sparse": True, "writers": "one", "durability": "process_crash"},
)
