"""Whether the catalog, or the manifest, answers."""

from __future__ import annotations

from mainspring.adapters.sqlite.catalog import SqliteCatalog
from mainspring.adapters.sqlite.manifest import SqliteManifest

__all__ = ["health"]


def health(opened: SqliteCatalog | SqliteManifest) -> dict[str, object]:
    """What can be read at once; raises as a read does when it cannot answer."""
    if isinstance(opened, SqliteManifest):
        return {"answers": opened.live("") is None}
    return {"bytes": opened.path.stat().st_size, "runs": len(opened.runs(limit=1))}
