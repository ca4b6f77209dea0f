"""Qdrant's errors turned into cause and remedy: it raises bare exceptions with a text."""

from __future__ import annotations

import shutil
from pathlib import Path

from mainspring.errors import StoreError
from mainspring.vectors.faults import closed, owned, unreadable

__all__ = ["check_room", "turned"]

_ROOM = 16_000_000
"""Bytes that the disk keeps free: what an empty index and the engine's own logs grow by at once."""
_ROWS = 4
"""A row lies in the log, in its segment, quantised and in the words' index."""


def check_room(folder: Path, written: int) -> None:
    """Refuse a write that the disk may have no room for.

    The engine writes into sparse mapped files: where the disk is full, the kernel ends the process (SIGBUS), a server
    with all that it does, and there is no error to catch.

    Args:
        folder: the index's.
        written: bytes of vectors and payload that are to be written.

    Raises:
        StoreError: MS-4101.
    """
    free, needed = shutil.disk_usage(folder).free, _ROOM + _ROWS * written
    if free < needed:
        raise StoreError(
            "the disk is full",
            code="MS-4101",
            why=f"{free / 1e6:,.0f} MB are free, and writing to {folder.name} may take {needed / 1e6:,.0f}",
            fix="free some space, and run again",
        )


def turned(error: Exception, name: str) -> Exception:
    """The error as people should see it; ours, and programming errors, stay what they are."""
    if type(error) is not Exception:
        return error
    text = str(error)
    if "WouldBlock" in text:
        return owned(name, "", name)
    if "not initialized" in text:
        return closed(name)
    if "No space left" in text or "StorageFull" in text or "File too large" in text:
        return StoreError(
            "the disk is full", code="MS-4101", why=f"{text} ({name})", fix="free some space, and run again"
        )
    return unreadable(name, text, name)
