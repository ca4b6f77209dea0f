"""Whether what is kept in SQLite answers."""

from __future__ import annotations

from mainspring.adapters.sqlite.catalog import SqliteCatalog
from mainspring.adapters.sqlite.manifest import SqliteManifest
from mainspring.ports.threads import ThreadStore

__all__ = ["health"]


def health(opened: SqliteCatalog | SqliteManifest | ThreadStore) -> dict[str, object]:
    """The catalog's size in bytes and its number of runs; of others that they can be read.

    Raises as a read does when it cannot answer.
    """
    if isinstance(opened, SqliteCatalog):
        return {"bytes": opened.path.stat().st_size, "runs": len(opened.runs(limit=1))}
    if isinstance(opened, SqliteManifest):
        return {"answers": opened.live("") is None}
    opened.get("")
    return {"answers": True}
