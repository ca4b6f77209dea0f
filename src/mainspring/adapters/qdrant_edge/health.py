"""Whether the indexes can be read."""

from __future__ import annotations

from mainspring.adapters.qdrant_edge.vector_store import QdrantEdgeStore

__all__ = ["health"]


def health(store: QdrantEdgeStore) -> dict[str, object]:
    """Count the rows of the indexes that this process has open; what another owns is only named."""
    return {"indexes": len(store.indexes()), "rows": store.rows_open()}
