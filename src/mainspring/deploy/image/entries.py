"""What a layer holds, and its one spelling as a tar archive."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from mainspring.errors import UsageError

__all__ = ["Entry", "archive", "entry_of_bytes", "entry_of_file"]

_CHUNK = 1 << 20
_BLOCK = tarfile.BLOCKSIZE


class Entry(msgspec.Struct, frozen=True):
    """A file or a symbolic link of a layer.

    Attributes:
        path: where it is in the image, from the root, without a leading slash.
        size: bytes of content.
        open: opens the content; a link has none.
        executable: whether it may be run.
        link: where a symbolic link points; empty for a file.
    """

    path: str
    size: int = 0
    open: Callable[[], BinaryIO] = io.BytesIO
    executable: bool = False
    link: str = ""


def entry_of_bytes(path: str, data: bytes, *, executable: bool = False) -> Entry:
    """A file with that content."""
    return Entry(path, len(data), lambda: io.BytesIO(data), executable)


def entry_of_file(path: str, file: Path) -> Entry:
    """A copy of a file of this machine; of its mode only whether its owner may run it is kept.

    Raises:
        OSError: the file cannot be read.
    """
    found = file.stat()
    return Entry(path, found.st_size, lambda: open(file, "rb"), bool(found.st_mode & 0o100))


def archive(entries: Iterable[Entry], epoch: int) -> Iterator[bytes]:
    """The tar archive of entries, in pieces: sorted, folders explicit, owned by 0:0, all of one time.

    The same entries give the same bytes, in whatever order and on whatever machine.

    Args:
        entries: the files and links; no two may have one path.
        epoch: the time of everything in it, in seconds since 1970.

    Raises:
        UsageError: MS-2700, two entries have one path, a path leaves the image, or a file changed while it was read.
    """
    found = _by_path(entries)
    folders = {parent for path in found for parent in _parents(path)}
    if clash := sorted(folders & found.keys()):
        raise _unfit(clash[0], "it is a file and a folder")
    for path in sorted(folders | found.keys()):
        if path in folders:
            yield _header(path + "/", tarfile.DIRTYPE, 0o755, epoch)
            continue
        entry = found[path]
        if entry.link:
            yield _header(path, tarfile.SYMTYPE, 0o777, epoch, link=entry.link)
            continue
        yield _header(path, tarfile.REGTYPE, 0o755 if entry.executable else 0o644, epoch, size=entry.size)
        yield from _content(entry)
    yield bytes(2 * _BLOCK)


def _by_path(entries: Iterable[Entry]) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.path in found:
            raise _unfit(entry.path, "two files are to be there")
        if not entry.path or any(part in ("", ".", "..") for part in entry.path.split("/")):
            raise _unfit(entry.path, "a path goes from the root to a name, without . or ..")
        found[entry.path] = entry
    return found


def _content(entry: Entry) -> Iterator[bytes]:
    left = entry.size
    with entry.open() as source:
        while chunk := source.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                break
            yield chunk
    if left:
        raise _unfit(entry.path, "it changed while it was read")
    if padding := -entry.size % _BLOCK:
        yield bytes(padding)


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _header(path: str, kind: bytes, mode: int, epoch: int, *, size: int = 0, link: str = "") -> bytes:
    info = tarfile.TarInfo(path)
    info.type, info.mode, info.mtime, info.size, info.linkname = kind, mode, epoch, size, link
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _unfit(path: str, why: str) -> UsageError:
    return UsageError(
        f"{path!r} cannot be in the image", code="MS-2700", why=why, fix="keep it out with image.exclude, or rename it"
    )
