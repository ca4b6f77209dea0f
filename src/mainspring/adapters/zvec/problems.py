"""zvec's errors turned into cause and remedy: it raises Python's own classes with a text, and returns statuses."""

from __future__ import annotations

from mainspring.errors import StoreError
from mainspring.vectors.faults import owned, unreadable

__all__ = ["failed", "turned"]


def turned(error: Exception, name: str) -> Exception:
    """The error as people should see it; ours, and programming errors, stay what they are."""
    if not isinstance(error, (RuntimeError, ValueError, KeyError, OSError)):
        return error
    text = str(error)
    if "Can't lock" in text:
        return owned(name, "", name)
    return failed(text, name)


def failed(text: str, name: str) -> StoreError:
    """What a status says."""
    if "No space" in text or "disk full" in text.lower():
        return StoreError(
            "the disk is full", code="MS-4101", why=f"{text} ({name})", fix="free some space, and run again"
        )
    return unreadable(name, text, name)
