"""Whether the catalog answers."""

from __future__ import annotations

from mainspring.adapters.sqlite.catalog import SqliteCatalog

__all__ = ["health"]


def health(catalog: SqliteCatalog) -> dict[str, object]:
    """The file's size in bytes and its number of runs; raises as a read does when it cannot answer."""
    return {"bytes": catalog.path.stat().st_size, "runs": len(catalog.runs(limit=1))}
