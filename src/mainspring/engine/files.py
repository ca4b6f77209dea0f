"""Digests of the files and folders that are inputs, remembered by what the file system says of them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from mainspring.declare.artifact import File
from mainspring.errors import UserCodeError

__all__ = ["FileDigests", "files_in"]

_MEMO = "file-digests.msgpack"
_KEPT = 20_000
# A file may be written twice within one tick of the file system's clock: what changed so lately is not remembered.
_SETTLED_NS = 2_000_000_000

Signature = tuple[int, int, int, int]


def files_in(value: object) -> Iterator[File]:
    """The files and folders in a param, in lists and mappings too."""
    if isinstance(value, File):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from files_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from files_in(part)


def _signature(found: os.stat_result) -> Signature:
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


class FileDigests:
    """Digests of files by content.

    Args:
        state: the folder where digests are remembered from run to run.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / _MEMO
        self._known: dict[str, tuple[Signature, str]] | None = None
        self._changed = False
        self._seen: dict[str, Signature] = {}

    def digest(self, file: File) -> str:
        """The digest of a file's content, or of a folder's relative paths and contents.

        Raises:
            UserCodeError: MS-2038, it is not there or cannot be read.
        """
        path = os.path.abspath(file.path)
        try:
            found = os.stat(path)
            if not stat.S_ISDIR(found.st_mode):
                return self._file(path, found)
            return self._folder(path)
        except OSError as error:
            raise UserCodeError(
                f"input {file.path} cannot be read",
                code="MS-2038",
                why=error.strerror or str(error),
                fix="write the file, or correct its path",
            ) from error

    def unchanged(self, files: Iterable[str]) -> bool:
        """Whether files and folders, as absolute paths, are still what their digests were taken from."""
        for file in files:
            for path in _walk(file):
                with contextlib.suppress(OSError):
                    if self._seen.get(path) == _signature(os.stat(path)):
                        continue
                return False
        return True

    def save(self) -> None:
        """Remember the digests for the next run."""
        if not self._changed or self._known is None:
            return
        kept = dict(list(self._known.items())[-_KEPT:])
        temporary = self._path.with_suffix(f".{os.getpid()}")
        with contextlib.suppress(OSError):  # only a memory: without it, files are read again
            temporary.write_bytes(msgspec.msgpack.encode(kept))
            os.replace(temporary, self._path)
        self._changed = False

    def _folder(self, root: str) -> str:
        whole = hashlib.blake2b(digest_size=20)
        for path in _walk(root):
            name = os.path.relpath(path, root).encode()
            digest = self._file(path, os.stat(path))
            whole.update(len(name).to_bytes(8, "big") + name + digest.encode())
        return whole.hexdigest()

    def _file(self, path: str, found: os.stat_result) -> str:
        signature = _signature(found)
        self._seen[path] = signature
        known = self._load().get(path)
        if known is not None and known[0] == signature:
            return known[1]
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=20)).hexdigest()
        if max(signature[1], signature[2]) < time.time_ns() - _SETTLED_NS:
            self._load()[path] = (signature, digest)
            self._changed = True
        return digest

    def _load(self) -> dict[str, tuple[Signature, str]]:
        if self._known is None:
            self._known = {}
            with contextlib.suppress(OSError, msgspec.DecodeError):
                decoder = msgspec.msgpack.Decoder(dict[str, tuple[Signature, str]])
                self._known = decoder.decode(self._path.read_bytes())
        return self._known


def _walk(root: str) -> Iterator[str]:
    """A file itself, or all files of a folder in a fixed order."""
    if not os.path.isdir(root):
        yield root
        return
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            yield os.path.join(folder, name)
