"""Whether Postgres answers."""

from __future__ import annotations

from mainspring.adapters.pgvector.vector_store import PgvectorStore

__all__ = ["health"]


def health(store: PgvectorStore) -> dict[str, object]:
    """Ask for the indexes, and for the extension's version."""
    return {"indexes": len(store.indexes()), "pgvector": store.extension()}
