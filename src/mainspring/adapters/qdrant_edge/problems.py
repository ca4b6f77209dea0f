"""Qdrant's errors turned into cause and remedy: it raises bare exceptions with a text."""

from __future__ import annotations

from mainspring.errors import StoreError
from mainspring.vectors.faults import closed, owned, unreadable

__all__ = ["turned"]


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
