"""A folder in one tar file whose holes stay holes (PAX, GNU sparse 1.0), so that sparse indexes stay small."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

__all__ = ["allocated", "copy_folder", "pack", "unpack"]

_PIECE = 1 << 22


def pack(folder: Path, file: Path, members: Sequence[str]) -> None:
    """Write these members of a folder, and all below them, into a new archive, durably.

    Raises:
        OSError: it is there, or cannot be written.
    """
    with file.open("xb") as out:
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for path in sorted(folder.rglob("*")):
                name = str(path.relative_to(folder))
                if name.partition("/")[0] not in members:
                    continue
                if path.is_dir():
                    archive.add(path, name, recursive=False)
                elif path.is_file():
                    _add(archive, path, name)
        out.flush()
        os.fsync(out.fileno())


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    with path.open("rb") as source:
        info = archive.gettarinfo(arcname=name, fileobj=source)
        parts = [*_data(source, info.size), (info.size, 0)]  # the last says where a hole at the end stops
        # Its own head names the parts that hold data; readers make holes of the rest.
        numbers = [len(parts), *(number for part in parts for number in part)]
        head = "".join(f"{number}\n" for number in numbers).encode()
        head += b"\0" * (-len(head) % 512)
        info.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": name,
            "GNU.sparse.realsize": str(info.size),
        }
        info.size = len(head) + sum(size for _, size in parts)
        archive.addfile(info, _Parts(source, head, parts))  # type: ignore[arg-type]


class _Parts:
    """Reads the head, then the parts that hold data, one after the other."""

    def __init__(self, source: BinaryIO, head: bytes, parts: list[tuple[int, int]]) -> None:
        self._source = source
        self._pending = io.BytesIO(head)
        self._parts = list(parts)

    def read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            piece = self._pending.read(size - len(found))
            found += piece
            if not piece and not self._next():
                break
        return found

    def _next(self) -> bool:
        if not self._parts:
            return False
        at, size = self._parts.pop(0)
        self._source.seek(at)
        self._pending = io.BytesIO(self._source.read(min(size, _PIECE)))
        if size > _PIECE:
            self._parts.insert(0, (at + _PIECE, size - _PIECE))
        return True


def _data(source: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """The parts of a file that hold data: where each begins, and its bytes."""
    at, number = 0, source.fileno()
    while at < size:
        try:
            start = os.lseek(number, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        at = min(os.lseek(number, start, os.SEEK_HOLE), size)
        if at > start:
            yield start, at - start


def unpack(file: Path, folder: Path) -> None:
    """Write the files of an archive into a new folder, durably, with their holes.

    Raises:
        OSError: it cannot be read or written.
        tarfile.TarError: it is no such archive, or names files elsewhere.
    """
    with tarfile.open(file, mode="r:") as archive:
        archive.extractall(folder, filter="data")
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as written:
                os.fsync(written.fileno())


def copy_folder(source: Path, target: Path) -> None:
    """Copy a folder into a new one, with its holes.

    Raises:
        OSError: it cannot be read or written.
    """
    target.mkdir()
    for path in sorted(source.rglob("*")):
        to = target / path.relative_to(source)
        if path.is_dir():
            to.mkdir()
        elif path.is_file():
            _copy(path, to)


def _copy(path: Path, to: Path) -> None:
    with path.open("rb") as source, to.open("xb") as target:
        size = os.fstat(source.fileno()).st_size
        os.truncate(target.fileno(), size)
        for start, length in _data(source, size):
            source.seek(start)
            target.seek(start)
            while length and (piece := source.read(min(length, _PIECE))):
                target.write(piece)
                length -= len(piece)


def allocated(folder: Path) -> int:
    """The bytes that a folder's files take on the disk; holes take none."""
    found = 0
    for path in folder.rglob("*"):
        try:
            found += path.stat().st_blocks * 512
        except FileNotFoundError:  # it went meanwhile
            continue
    return found
