"""The object port on a local folder: hash while writing, fsync, rename, fsync the folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from mainspring.adapters.localfs.problems import corrupt, missing, turned
from mainspring.adapters.localfs.settings import LocalSettings
from mainspring.ports.objects import Blob, Fault

__all__ = ["LocalObjects", "open_objects"]

_CHUNK = 1 << 20
_STALE_SECONDS = 86_400.0


class _Writer:
    """A blob under ``tmp/`` that is hashed as it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.blob: Blob | None = None
        self.hash = hashlib.blake2b(digest_size=20)
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes."""
        self.hash.update(data)
        self.size += len(data)
        return self.file.write(data)


class LocalObjects:
    """Blobs under ``ab/cdef...`` of a folder; a name appears only with its whole content.

    Args:
        root: the folder.
        fault: called at each point of a commit; tests stop there.
    """

    def __init__(self, root: Path, fault: Fault = lambda point: None) -> None:
        self._root = root
        self._tmp = root / "tmp"
        self._fault = fault
        self._made: set[str] = set()
        try:
            self._tmp.mkdir(parents=True, exist_ok=True)
            self._sweep()
        except OSError as error:
            raise turned(error) from error

    @contextlib.contextmanager
    def writer(self) -> Iterator[_Writer]:
        """A stream to write a blob to."""
        path = self._tmp / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            with open(path, "wb") as file:
                stream = _Writer(file)
                yield stream
                self._fault("blob.written")
                file.flush()
                os.fsync(file.fileno())
                self._fault("blob.fsynced")
            stream.blob = self._place(path, stream.hash.hexdigest(), stream.size)
        except OSError as error:
            raise turned(error) from error
        finally:
            path.unlink(missing_ok=True)

    def put(self, data: bytes | memoryview) -> Blob:
        """Store bytes."""
        digest = hashlib.blake2b(data, digest_size=20).hexdigest()
        if self._file(digest).exists():
            self.touch([digest])
            return Blob(digest, len(data))
        with self.writer() as stream:
            stream.write(data)
        assert stream.blob is not None
        return stream.blob

    def put_file(self, path: Path) -> Blob:
        """Store a file's content."""
        with open(path, "rb") as source, self.writer() as stream:
            while chunk := source.read(_CHUNK):
                stream.write(chunk)
        assert stream.blob is not None
        return stream.blob

    def get(self, digest: str) -> bytes:
        """The whole content, verified."""
        try:
            data = self._file(digest).read_bytes()
        except FileNotFoundError:
            raise missing(digest) from None
        except OSError as error:
            raise turned(error) from error
        found = hashlib.blake2b(data, digest_size=20).hexdigest()
        if found != digest:
            self._quarantine(digest)
            raise corrupt(digest, found)
        return data

    def path(self, digest: str) -> Path:
        """The blob's file."""
        path = self._file(digest)
        if not path.exists():
            raise missing(digest)
        return path

    def has(self, digests: Iterable[str]) -> frozenset[str]:
        """Those that are here."""
        return frozenset(digest for digest in digests if os.path.exists(self._name(digest)))

    def sizes(self) -> Iterator[Blob]:
        """Every blob."""
        for folder in self._root.iterdir():
            if len(folder.name) == 2 and folder.is_dir():
                for entry in os.scandir(folder):
                    yield Blob(folder.name + entry.name, entry.stat().st_size)

    def touch(self, digests: Iterable[str]) -> None:
        """Note that these are in use."""
        for digest in digests:
            with contextlib.suppress(OSError):
                os.utime(self._name(digest))

    def delete(self, digest: str, *, older_than: float) -> bool:
        """Delete a blob last touched before a time."""
        path = self._file(digest)
        try:
            if path.stat().st_mtime >= older_than:
                return False
            path.unlink()
        except FileNotFoundError:
            return False
        return True

    def _name(self, digest: str) -> str:
        return f"{self._root}/{digest[:2]}/{digest[2:]}"

    def _file(self, digest: str) -> Path:
        return self._root / digest[:2] / digest[2:]

    def _place(self, temporary: Path, digest: str, size: int) -> Blob:
        target = self._file(digest)
        if digest[:2] not in self._made:
            target.parent.mkdir(exist_ok=True)
            self._made.add(digest[:2])
        os.rename(temporary, target)
        self._fault("blob.renamed")
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return Blob(digest, size)

    def _quarantine(self, digest: str) -> None:
        aside = self._root / "corrupt"
        with contextlib.suppress(OSError):
            aside.mkdir(exist_ok=True)
            os.rename(self._file(digest), aside / digest)

    def _sweep(self) -> None:
        """Remove what writers that died long ago have left."""
        for path in self._tmp.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()


def open_objects(settings: LocalSettings, place: Path) -> LocalObjects:
    """The folder that the settings name, or ``objects`` in the state folder."""
    if settings.url is None:
        return LocalObjects(place / "objects")
    return LocalObjects(Path("/" + settings.url.partition("://")[2].lstrip("/")))
