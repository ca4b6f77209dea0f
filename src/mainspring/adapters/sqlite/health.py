"""Whether the catalog, or the manifest, answers."""
"""Whether what is kept in SQLite answers."""

from __future__ import annotations

from mainspring.adapters.sqlite.catalog import SqliteCatalog
from mainspring.adapters.sqlite.manifest import SqliteManifest
from mainspring.ports.threads import ThreadStore

__all__ = ["health"]


def health(opened: SqliteCatalog | SqliteManifest) -> dict[str, object]:
    """What can be read at once; raises as a read does when it cannot answer."""
    if isinstance(opened, SqliteManifest):
        return {"answers": opened.live("") is None}
    return {"bytes": opened.path.stat().st_size, "runs": len(opened.runs(limit=1))}
def health(opened: SqliteCatalog | ThreadStore) -> dict[str, object]:
    """The catalog's size in bytes and its number of runs; of threads that they can be read.

    Raises as a read does when it cannot answer.
    """
    if isinstance(opened, SqliteCatalog):
        return {"bytes": opened.path.stat().st_size, "runs": len(opened.runs(limit=1))}
    opened.get("")
    return {"answers": True}
