"""Deleting files that only old versions use: whatever is kept can be read as before.

delta-rs knows the versions that are in its log only; those in archives are as good to us.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Set
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import msgspec

from mainspring.adapters.delta.packs import texts

__all__ = ["Kept", "removed_since", "vacuum"]


class Kept(msgspec.Struct, frozen=True):
    """What stays, whatever its age.

    Attributes:
        newest: the newest version.
        files: the files of that and of all other versions that must stay readable, from the table's folder on.
    """

    newest: int
    files: Set[str]


def vacuum(table: Path, kept: Kept, retention_hours: float) -> int:
    """Delete the files of a table that are not kept, unless they left it lately or came lately.

    What a killed writer left behind is part of no version, and goes too.

    Args:
        table: the table's folder.
        kept: what stays.
        retention_hours: how long ago the table must have let go of a file, and the file have been written.

    Returns:
        How many files were deleted.
    """
    since = time.time() - retention_hours * 3600
    spared = kept.files | removed_since(texts(table, kept.newest), since)
    deleted = 0
    for path in sorted(table.rglob("*.parquet*")):  # delta-rs writes to NAME.parquet#1 first
        name = path.relative_to(table)
        if name.parts[0] == "_delta_log" or name.as_posix() in spared:
            continue
        with contextlib.suppress(FileNotFoundError):  # another process is at it
            if path.stat().st_mtime <= since:
                path.unlink()
                deleted += 1
    return deleted


def removed_since(commits: Iterable[tuple[int, str]], since: float) -> set[str]:
    """Files that commits since a moment took out of the table.

    Args:
        commits: versions and their commits as they were written, the newest first.
        since: the moment, in seconds since 1970.
    """
    found: set[str] = set()
    for _, text in commits:
        actions = [json.loads(line) for line in text.splitlines()]
        told: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
        if int(told.get("timestamp") or 0) / 1000 < since:
            break
        found.update(unquote(action["remove"]["path"]) for action in actions if "remove" in action)
    return found
