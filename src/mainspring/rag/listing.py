"""What lies in a folder of documents, and how that differs from what was there before."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

import msgspec

from mainspring.errors import DataError
from mainspring.ports.manifest import DocumentRow

__all__ = ["UNREADABLE", "Difference", "Found", "difference", "list_folder", "matches"]

_SETTLED_NS = 2_000_000_000
"""A file that was changed less than this before it was looked at may have been changed again unseen."""

UNREADABLE = "unreadable: "
"""Begins what is noted in place of the hash of a file that cannot be opened: each sync tries it again."""


class Found(msgspec.Struct, frozen=True):
    r"""A file as the folder shows it.

    Attributes:
        uri: its path relative to the folder; bytes of a name that are no UTF-8 are written as ``\xf6``.
        size: in bytes.
        mtime_ns: when it was changed, in nanoseconds since 1970.
    """

    uri: str
    size: int
    mtime_ns: int
    _path: str = ""

    @property
    def path(self) -> str:
        """The path by which it is opened, relative to the folder."""
        return self._path or self.uri


class Difference(msgspec.Struct, frozen=True):
    """A listing beside what an index knows.

    Attributes:
        same: files that have not changed, with their documents.
        look: files that are new or may have changed, with the document that was there.
        gone: documents whose files are not there.
    """

    same: tuple[tuple[Found, DocumentRow], ...]
    look: tuple[tuple[Found, DocumentRow | None], ...]
    gone: tuple[DocumentRow, ...]


def list_folder(
    folder: Path, include: Sequence[str], exclude: Sequence[str], *, name: str, known: int
) -> dict[str, Found]:
    """All files of a folder that a glob includes and none excludes, by path; hidden ones and links out are left out.

    Args:
        folder: where they are.
        include: globs relative to the folder; ``**`` goes over folders.
        exclude: globs of files that are left out.
        name: the declared documents' name, for errors.
        known: how many documents were there before.

    Raises:
        DataError: MS-2410, the folder cannot be read to its end; MS-2411, all files have disappeared at once. A
            listing that may be half is none: what it lacks would be deleted.
    """
    wanted, unwanted = _pattern(tuple(include)), _pattern(tuple(exclude))
    try:
        found = {
            item.uri: item
            for item in _walk(folder)
            if wanted.fullmatch(item.uri) and not (exclude and unwanted.fullmatch(item.uri))
        }
    except OSError as error:
        raise DataError(
            f"the documents {name!r} cannot be listed",
            code="MS-2410",
            why=f"{error.strerror or error} ({Path(str(error.filename or folder)).name})",
            origin=f"documents.{name}",
            fix="make the folder readable, or set its path in the profile; nothing was deleted from the index",
        ) from error
    if known and not found:
        raise DataError(
            f"all {known:,} documents of {name!r} have disappeared at once",
            code="MS-2411",
            why="an empty folder is more often one that is not mounted",
            origin=f"documents.{name}",
            fix=f"put the files back; when they are really gone, set documents.{name}.may_be_empty = true",
        )
    return found


def matches(pattern: str, uri: str) -> bool:
    """Whether a glob means a path: ``*`` within a name, ``**`` over folders."""
    return _pattern((pattern,)).fullmatch(uri) is not None


def difference(rows: Sequence[DocumentRow], found: Mapping[str, Found]) -> Difference:
    """What a listing has new, changed perhaps, unchanged and no more.

    A file is unchanged when size and time are those that were noted, and the time had been long enough past by then
    that a later change would show. One that could not be opened is never unchanged: who may read it has no time.
    """
    same, look, gone = [], [], []
    known = {row.uri: row for row in rows}
    for row in rows:
        item = found.get(row.uri)
        if item is None:
            gone.append(row)
        elif _unchanged(row, item):
            same.append((item, row))
    seen = {row.uri for _, row in same}
    look = [(item, known.get(uri)) for uri, item in found.items() if uri not in seen]
    return Difference(tuple(same), tuple(look), tuple(gone))


def _unchanged(row: DocumentRow, item: Found) -> bool:
    settled = item.mtime_ns + _SETTLED_NS < row.synced_us * 1000
    opened = not row.content_hash.startswith(UNREADABLE)
    return (row.size, row.mtime_ns) == (item.size, item.mtime_ns) and settled and opened


def _walk(folder: Path) -> Iterator[Found]:
    """All files; one that is deleted meanwhile is not there, nor is what was in a folder that is."""
    root = os.path.realpath(folder)
    waiting = [""]
    while waiting:
        below = waiting.pop()
        with suppress(FileNotFoundError) if below else nullcontext(), os.scandir(os.path.join(root, below)) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.endswith("~"):
                    continue
                path = f"{below}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{path}/")
                elif _stays(root, entry.path) if entry.is_symlink() else entry.is_file():
                    with suppress(FileNotFoundError):
                        yield _found(path, entry.stat())


def _found(path: str, state: os.stat_result) -> Found:
    try:
        path.encode()
    except UnicodeEncodeError:
        uri = os.fsencode(path).decode("utf-8", "backslashreplace")
        return Found(uri, state.st_size, state.st_mtime_ns, path)
    return Found(path, state.st_size, state.st_mtime_ns)


def _stays(root: str, path: str) -> bool:
    """Whether a link leads to a file of the folder."""
    target = os.path.realpath(path)
    return target.startswith(os.path.join(root, "")) and os.path.isfile(target)


@functools.lru_cache(maxsize=256)
def _pattern(globs: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(_translated, globs)) or r"(?!)")


def _translated(glob: str) -> str:
    found = []
    for part in re.split(r"(\*\*/|\*\*|\*|\?)", glob):
        found.append({"**/": r"(?:[^/]+/)*", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}.get(part, re.escape(part)))
    return "".join(found)
