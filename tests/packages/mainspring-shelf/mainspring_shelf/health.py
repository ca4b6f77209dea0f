"""Whether the shelf answers."""

from __future__ import annotations

from mainspring_shelf.online_store import ShelfStore

__all__ = ["health"]


def health(store: ShelfStore) -> dict[str, object]:
    """Read a key that is not there."""
    return {"answers": store.get_many([b"\0"]) == [None]}
