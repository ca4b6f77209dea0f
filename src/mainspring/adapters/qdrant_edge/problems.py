"""Qdrant's errors turned into cause and remedy: it raises bare exceptions with a text."""

from __future__ import annotations

import shutil
from pathlib import Path

from mainspring.vectors.faults import FULL, closed, no_room, owned, unreadable

__all__ = ["LITTLE", "check_room", "turned"]

_ROOM = 16_000_000
"""Bytes that the disk keeps free: what an empty index and the engine's own logs grow by at once."""
LITTLE = 1_000_000
"""Bytes that opening an index takes, or a change that makes it no larger: the log, and marks of what is gone."""
_ROWS = 4
"""A row lies in the log, in its segment, quantised and in the words' index."""


def check_room(folder: Path, written: int, room: int = _ROOM) -> None:
    """Refuse a write that the disk may have no room for.

    The engine writes into sparse mapped files: where the disk is full, the kernel ends the process (SIGBUS), a server
    with all that it does, and there is no error to catch.

    Args:
        folder: the index's.
        written: bytes of vectors and payload that are to be written.
        room: bytes that it takes beside them.

    Raises:
        StoreError: MS-4101.
    """
    free, needed = shutil.disk_usage(folder).free, room + _ROWS * written
    if free < needed:
        raise no_room(f"{free / 1e6:,.1f} MB are free, and this may take {needed / 1e6:,.1f}")


def turned(error: Exception, name: str) -> Exception:
    """The error as people should see it; ours, and programming errors, stay what they are."""
    if isinstance(error, OSError) and error.errno in FULL:
        return no_room(f"{error} ({name})")
    if type(error) is not Exception:
        return error
    text = str(error)
    if "WouldBlock" in text:
        return owned(name, "", name)
    if "not initialized" in text:
        return closed(name)
    if "No space left" in text or "StorageFull" in text or "File too large" in text:
        return no_room(f"{text} ({name})")
    return unreadable(name, text, name)
