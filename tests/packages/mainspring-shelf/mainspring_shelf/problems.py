"""SQLite's errors turned into cause and remedy."""

from __future__ import annotations

import sqlite3

from mainspring.errors import StoreError

__all__ = ["closed", "turned"]


def turned(error: sqlite3.Error, place: str) -> StoreError:
    """The error as people should see it."""
    full = "full" in str(error)
    return StoreError(
        "the disk is full" if full else "the shelf cannot be opened or written",
        code="MS-4101" if full else "MS-4140",
        why=str(error),
        origin=place,
        fix="free some space and run again" if full else "make its folder writable",
    )


def closed(place: str) -> StoreError:
    """The store was closed before."""
    return StoreError("the shelf was closed", code="MS-4140", origin=place, fix="open it again")
