"""LMDB's errors turned into cause and remedy."""

from __future__ import annotations

import lmdb

from mainspring.errors import StoreError

__all__ = ["turned"]

_FULL = ("No space", "File too large", "quota exceeded", "Input/output error")
"""LMDB calls it an input/output error when the disk takes only a part of a write, as a disk does that becomes full."""


def turned(error: lmdb.Error, place: str) -> StoreError:
    """The error as people should see it."""
    if isinstance(error, lmdb.DiskError) or any(text in str(error) for text in _FULL):
        return StoreError(
            "the disk is full",
            code="MS-4101",
            why=f"{error} ({place})",
            fix="free some space, look at its quota, and run again",
        )
    if isinstance(error, (lmdb.CorruptedError, lmdb.InvalidError, lmdb.VersionMismatchError)):
        return StoreError(
            "the online store is damaged",
            code="MS-4141",
            why=str(error),
            origin=place,
            fix="remove its folder: mainspring apply writes it anew from the log",
        )
    return StoreError(
        "the online store cannot be opened or written",
        code="MS-4140",
        why=str(error),
        origin=place,
        fix="make the state folder writable, and keep it on a local disk",
    )
