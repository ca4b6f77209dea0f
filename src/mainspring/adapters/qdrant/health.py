"""Whether the server answers."""

from __future__ import annotations

from mainspring.adapters.qdrant.vector_store import QdrantStore

__all__ = ["health"]


def health(store: QdrantStore) -> dict[str, object]:
    """Ask for the indexes."""
    return {"indexes": len(store.indexes())}
