"""SQLite's errors turned into cause and remedy."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

from mainspring.errors import StoreError

__all__ = ["foreign_file", "network_disk", "newer_schema", "turned"]

_ROOM_BYTES = 65_536
"""Less than SQLite needs at once."""
_CAUSES: tuple[tuple[str, str, str, str], ...] = (
    ("database or disk is full", "the disk is full", "MS-4101", "free some space and run it again"),
    ("readonly", "the catalog cannot be written", "MS-4111", "make the state folder writable"),
    ("disk I/O error", "the catalog's disk fails", "MS-4111", "look at the disk and its quota, then run it again"),
    ("unable to open", "the catalog cannot be opened", "MS-4111", "make the state folder readable and writable"),
    ("locked", "the catalog is held by another process", "MS-4112", "wait for it, or stop it; mainspring doctor"),
    ("malformed", "the catalog's file is damaged", "MS-4113", "restore it, or move it away and run again"),
    ("not a database", "the catalog's file is no SQLite database", "MS-4113", "restore it, or move it away"),
)


def turned(error: sqlite3.Error, path: Path) -> StoreError | sqlite3.Error:
    """The error as people should see it; programming errors stay what they are.

    SQLite takes a disk without room for the index of its log for a fault of the disk.
    """
    text = str(error)
    if "disk I/O error" in text and _is_full(path.parent):
        _, what, code, fix = _CAUSES[0]
        return StoreError(what, code=code, why=f"{text}, with no room left", origin=path.name, fix=fix)
    for word, what, code, fix in _CAUSES:
        if word in text:
            return StoreError(what, code=code, why=text, origin=path.name, fix=fix)
    return error


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _ROOM_BYTES
    except OSError:
        return False


def foreign_file(place: str) -> StoreError:
    """The file holds tables that are not ours."""
    return StoreError(
        "the catalog's file is another program's database",
        code="MS-4113",
        why="it has tables, and none of a catalog",
        origin=place,
        fix="restore it, or move it away and run again",
    )


def newer_schema(found: int, known: int, place: str) -> StoreError:
    """The file was written by a newer Mainspring."""
    return StoreError(
        f"the catalog has schema {found}, and this Mainspring knows {known}",
        code="MS-4114",
        why="a newer version has written it",
        origin=place,
        fix="upgrade Mainspring, or use another state folder",
    )


def network_disk(kind: str, place: str) -> StoreError:
    """The file would lie on a disk whose locks cannot be trusted."""
    return StoreError(
        f"the catalog would lie on a {kind} disk",
        code="MS-4115",
        why="SQLite's locks fail there, and two writers would corrupt it",
        origin=place,
        fix="put the project on a local disk, use catalog.url = postgresql://..., or catalog.allow_network_disk = true",
    )
