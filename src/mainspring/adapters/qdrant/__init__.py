"""Vectors in a Qdrant server: the dialect of the embedded engine, many readers and writers."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="vectors",
    name="qdrant",
    factory="mainspring.adapters.qdrant.vector_store:open_store",
    settings="mainspring.adapters.qdrant.settings:QdrantSettings",
    schemes=("qdrant", "qdrants", "http", "https"),
    modules=("qdrant_client", "qdrant_edge", "numpy"),
    extra="qdrant",
    capabilities={"full_text": "bm25", "sparse": True, "writers": "many", "durability": "process_crash"},
)
