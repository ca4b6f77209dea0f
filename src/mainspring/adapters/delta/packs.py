"""Old commits put away: what is older than a checkpoint leaves the folder that each commit has to list.

delta-rs lists a table's whole ``_delta_log`` in each commit, so that a commit grows dearer with every one before it.
Once a checkpoint stands for them, commits are put into archives beside it, ``_packed/FIRST-LAST.zip``: their files as
they were, with the checkpoint that they follow. A version in an archive is read from a copy of its part of the log, to
the byte; the newest one is read by anybody, as ever (Delta protocol, Metadata Cleanup).

An archive is whole and on the disk before the first commit goes, and they go oldest first: whenever this is stopped,
each commit is in the log, in an archive, or in both, and what is left of the log has no gap.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

__all__ = ["LOG", "covering", "pack", "reaches", "texts", "to_disk", "unpacked"]

LOG = "_delta_log"
_PACKED = "_packed"
_NAME = re.compile(r"(\d{20})-(\d{20})\.zip")
_ENTRY = re.compile(r"(\d{20})\.(json|checkpoint\.parquet)")
_ENOUGH = 64
"""Commits before a checkpoint that are worth an archive."""


class _LastCheckpoint(msgspec.Struct):
    version: int


def pack(table: Path, sync: Callable[[], None], enough: int = _ENOUGH) -> bool:
    """Put the commits before the newest checkpoint into an archive; one process at a time.

    Args:
        table: the table's folder.
        sync: makes what the commits speak of survive a loss of power; called before any of them goes.
        enough: fewer commits than this are left where they are.

    Returns:
        Whether there were enough of them.
    """
    log = table / LOG
    through = _checkpoint(log)
    if through is None:
        return False
    names = sorted(entry for entry in os.listdir(log) if _ENTRY.fullmatch(entry))
    old = [name for name in names if _number(name) < through]
    archives = _archives(table)
    kept = archives[-1][1] if archives else -1
    for name in (name for name in old if _number(name) <= kept):  # left by one who was stopped
        (log / name).unlink(missing_ok=True)
    old = [name for name in old if _number(name) > kept]
    commits = [_number(name) for name in old if name.endswith(".json")]
    if len(commits) < enough or commits != list(range(kept + 1, through)):
        return False
    sync()
    for name in (f"{through:020}.checkpoint.parquet", "_last_checkpoint"):
        to_disk(log / name)
    to_disk(log)
    _write(table / _PACKED, f"{commits[0]:020}-{commits[-1]:020}.zip", [log / name for name in old])
    for name in old:
        (log / name).unlink(missing_ok=True)
    return True


def _checkpoint(log: Path) -> int | None:
    """The version of the newest checkpoint, if it is one file."""
    try:
        known = msgspec.json.decode((log / "_last_checkpoint").read_bytes(), type=_LastCheckpoint)
    except (OSError, msgspec.MsgspecError):
        return None
    return known.version if (log / f"{known.version:020}.checkpoint.parquet").exists() else None


def _write(folder: Path, name: str, files: list[Path]) -> None:
    folder.mkdir(exist_ok=True)
    part = folder / f"{name}.new"
    with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in files:
            archive.write(file, file.name)
    to_disk(part)
    os.replace(part, folder / name)
    to_disk(folder)
    to_disk(folder.parent)


def _archives(table: Path) -> list[tuple[int, int, Path]]:
    """The first and the last version of each archive, in order."""
    try:
        found = [(_NAME.fullmatch(name), name) for name in os.listdir(table / _PACKED)]
    except FileNotFoundError:
        return []
    return sorted((int(m[1]), int(m[2]), table / _PACKED / name) for m, name in found if m is not None)


def covering(table: Path, version: int) -> Path | None:
    """The archive that has a version, or None."""
    archives = _archives(table)
    place = bisect.bisect_right(archives, version, key=lambda archive: archive[0]) - 1
    return archives[place][2] if place >= 0 and version <= archives[place][1] else None


def reaches(table: Path, version: int) -> bool:
    """Whether the commit of a version is there."""
    return (table / LOG / f"{version:020}.json").exists() or covering(table, version) is not None


@contextlib.contextmanager
def unpacked(archive: Path, version: int) -> Iterator[Path]:
    """A folder whose log ends with a version that an archive has; it holds no rows."""
    with tempfile.TemporaryDirectory(prefix="mainspring-") as place, zipfile.ZipFile(archive) as packed:
        for name in packed.namelist():
            if _ENTRY.fullmatch(name) and _number(name) <= version:
                packed.extract(name, Path(place) / LOG)
        yield Path(place)


def texts(table: Path, newest: int) -> Iterator[tuple[int, str]]:
    """Each commit as it was written, with its version, from the newest down to the first that is not there."""
    version = newest
    while version >= 0:
        try:
            text = (table / LOG / f"{version:020}.json").read_text("utf-8")
        except FileNotFoundError:
            archive = covering(table, version)
            if archive is None:
                return
            with zipfile.ZipFile(archive) as packed:
                first = int(archive.name[:20])
                for number in range(version, first - 1, -1):
                    yield number, packed.read(f"{number:020}.json").decode()
            version = first - 1
            continue
        yield version, text
        version -= 1


def _number(name: str) -> int:
    return int(name[:20])


def to_disk(path: Path) -> None:
    """Make a file or a folder survive a loss of power."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
