"""Whether the online store answers."""

from __future__ import annotations

from mainspring.adapters.lmdb.online_store import LmdbStore

__all__ = ["health"]


def health(store: LmdbStore) -> dict[str, object]:
    """Read a key that is not there."""
    return {"answers": store.get_many([b"\0"]) == [None]}
