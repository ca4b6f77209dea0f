"""Qdrant's errors turned into cause and remedy: it raises bare exceptions with a text."""

from __future__ import annotations

from mainspring.errors import MainspringError, StoreError, UsageError
from mainspring.vectors.faults import closed, owned, unreadable

__all__ = ["turned"]


def turned(error: Exception, name: str) -> MainspringError:
    """The error as people should see it."""
    text = str(error)
    if isinstance(error, MainspringError):
        return error
    if isinstance(error, (TypeError, ValueError)):
        return UsageError(
            "a payload holds what no JSON could",
            code="MS-2653",
            why=text,
            fix="give texts, numbers, truth values, lists and objects",
        )
    if "WouldBlock" in text:
        return owned(name, "", name)
    if "not initialized" in text:
        return closed(name)
    if "No space left" in text or "StorageFull" in text or "File too large" in text:
        return StoreError(
            "the disk is full", code="MS-4101", why=f"{text} ({name})", fix="free some space, and run again"
        )
    return unreadable(name, text, name)
