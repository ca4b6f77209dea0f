"""SQLite's errors about threads turned into cause and remedy."""

from __future__ import annotations

import sqlite3

from mainspring.errors import MainspringError, StoreError

__all__ = ["turned"]


def turned(error: sqlite3.Error, place: str) -> MainspringError | sqlite3.Error:
    """The error as people should see it; programming errors stay what they are."""
    text = str(error)
    if "full" in text:
        return StoreError(
            "the disk is full", code="MS-4190", why=text, origin=place, fix="free some space and run it again"
        )
    if "locked" in text or "busy" in text:
        return StoreError(
            "the threads are held by another process",
            code="MS-4192",
            why=text,
            origin=place,
            fix="wait for it, or stop it; mainspring doctor",
        )
    if any(word in text for word in ("readonly", "disk I/O", "unable to open")):
        return StoreError(
            "the threads' file cannot be opened or written",
            code="MS-4191",
            why=text,
            origin=place,
            fix="make the state folder readable and writable, and keep it on a local disk",
        )
    if "malformed" in text or "not a database" in text:
        return StoreError(
            "the threads' file is damaged",
            code="MS-4193",
            why=text,
            origin=place,
            fix="restore it, or move it away and run again: conversations in it are lost",
        )
    return error
