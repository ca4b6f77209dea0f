"""The object port on a local folder: hash while writing, fsync, rename, fsync the folder."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from mainspring.adapters.localfs.problems import corrupt, missing, turned
from mainspring.adapters.localfs.settings import LocalSettings
from mainspring.ports.blob_file import BlobFile
from mainspring.ports.objects import Blob, Fault

__all__ = ["LocalObjects", "open_objects"]

_CHUNK = 1 << 20
_STALE_SECONDS = 86_400.0
_EMPTY = hashlib.blake2b(digest_size=20).hexdigest()
_DIGEST = re.compile(r"[0-9a-f]{40}")


class LocalObjects:
    """Blobs under ``ab/cdef...`` of a folder; a name appears only with its whole content.

    What makes a blob young, and what deletes old ones, exclude each other by a lock, so that content which was just
    put is not deleted for the age it had before.

    Args:
        root: the folder.
        fault: called at each point of a commit; tests stop there.
    """

    def __init__(self, root: Path, fault: Fault = lambda point: None) -> None:
        self._root = root
        self._tmp = root / "tmp"
        self._fault = fault
        with _turning():
            _make(root)
            self._tmp.mkdir(exist_ok=True)
            self._sweep()

    @contextlib.contextmanager
    def writer(self) -> Iterator[BlobFile]:
        """A stream to write a blob to."""
        with _turning():
            stream = self._started()
        try:
            yield stream
            stream.refuse_fork()
            with _turning():
                self._commit(stream)
        finally:
            stream.drop()

    def put(self, data: bytes | memoryview) -> Blob:
        """Store bytes."""
        size = memoryview(data).nbytes
        digest = hashlib.blake2b(data, digest_size=20).hexdigest()
        if self._is_renewed(digest, size):
            return Blob(digest, size)
        with self.writer() as stream:
            stream.write(data)
        assert stream.blob is not None
        return stream.blob

    def put_file(self, path: Path) -> Blob:
        """Store a file's content.

        Raises:
            OSError: the file cannot be read.
            StoreError: MS-4101, MS-4102, it cannot be stored.
        """
        with open(path, "rb") as source, self.writer() as stream:
            while chunk := source.read(_CHUNK):
                stream.write(chunk)
        assert stream.blob is not None
        return stream.blob

    def get(self, digest: str) -> bytes:
        """The whole content, verified."""
        data = self._read(digest)
        if _digest_of(data) == digest:
            return data
        with self._locked(fcntl.LOCK_EX):
            data = self._read(digest)  # a writer may have replaced it in the meantime
            found = _digest_of(data)
            if found == digest:
                return data
            raise corrupt(digest, found, self._is_moved_aside(digest))

    def path(self, digest: str) -> Path:
        """The blob's file."""
        if not self.has([digest]):
            raise missing(digest)
        return self._file(digest)

    def has(self, digests: Iterable[str]) -> frozenset[str]:
        """Those that are here with some content."""
        return frozenset(digest for digest in digests if self._size(digest) > (-1 if digest == _EMPTY else 0))

    def sizes(self) -> Iterator[Blob]:
        """Every blob."""
        with _turning():
            folders = [name for name in os.listdir(self._root) if len(name) == 2]
        for folder in folders:
            for digest in self._digests(folder):
                size = self._size(digest)
                if size >= 0:  # else it was deleted while we looked
                    yield Blob(digest, size)

    def touch(self, digests: Iterable[str]) -> None:
        """Note that these are in use."""
        with self._locked(fcntl.LOCK_SH):
            for digest in digests:
                self._renew(digest)

    def delete(self, digest: str, *, older_than: float) -> bool:
        """Delete a blob last touched before a time."""
        if not _DIGEST.fullmatch(digest):
            return False
        path = self._file(digest)
        with _turning(), self._locked(fcntl.LOCK_EX):
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

    def _size(self, digest: str) -> int:
        """How many bytes a blob has; -1 when it is not here."""
        if not _DIGEST.fullmatch(digest):
            return -1
        try:
            return os.stat(self._name(digest)).st_size
        except (FileNotFoundError, NotADirectoryError):
            return -1
        except OSError as error:
            raise turned(error) from error

    def _digests(self, folder: str) -> list[str]:
        with _turning():
            try:
                found = [folder + name for name in os.listdir(f"{self._root}/{folder}")]
            except (FileNotFoundError, NotADirectoryError):
                return []
        return [digest for digest in found if _DIGEST.fullmatch(digest)]

    def _read(self, digest: str) -> bytes:
        if not _DIGEST.fullmatch(digest):
            raise missing(digest)
        with _turning():
            try:
                return self._file(digest).read_bytes()
            except FileNotFoundError:
                raise missing(digest) from None

    def _renew(self, digest: str) -> None:
        with contextlib.suppress(OSError):
            if _DIGEST.fullmatch(digest):
                os.utime(self._name(digest))

    def _is_renewed(self, digest: str, size: int) -> bool:
        """Whether a blob is here in its whole length; then it is young again."""
        if self._size(digest) != size:
            return False
        with self._locked(fcntl.LOCK_SH):
            self._renew(digest)
            return self._size(digest) == size

    def _started(self) -> BlobFile:
        path = self._tmp / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            return BlobFile(path, turned)
        except FileNotFoundError:  # someone has removed the folder under us
            _make(self._root)
            self._tmp.mkdir(exist_ok=True)
            return BlobFile(path, turned)

    def _commit(self, stream: BlobFile) -> None:
        self._fault("blob.written")
        os.fsync(stream.file.fileno())
        stream.file.close()
        self._fault("blob.fsynced")
        digest = stream.hash.hexdigest()
        target = self._file(digest)
        with self._locked(fcntl.LOCK_SH):
            try:
                os.rename(stream.path, target)
            except FileNotFoundError:
                target.parent.mkdir(exist_ok=True)
                _sync(self._root)
                os.rename(stream.path, target)
        self._fault("blob.renamed")
        _sync(target.parent)
        stream.blob = Blob(digest, stream.size)

    @contextlib.contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        """Hold the store's lock; where no file can be written nothing can be deleted either, and it is not needed."""
        try:
            lock = os.open(f"{self._root}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            yield
            return
        try:
            fcntl.flock(lock, kind)
            yield
        finally:
            os.close(lock)

    def _is_moved_aside(self, digest: str) -> bool:
        aside = self._root / "corrupt"
        with contextlib.suppress(OSError):
            aside.mkdir(exist_ok=True)
            os.rename(self._file(digest), aside / digest)
            return True
        return False

    def _sweep(self) -> None:
        """Remove what writers that died long ago have left."""
        for path in self._tmp.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()


def _digest_of(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=20).hexdigest()


def _make(folder: Path) -> None:
    """Make a folder and those above it, so that they outlive a power cut as their blobs do."""
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextlib.contextmanager
def _turning() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise turned(error) from error


def open_objects(settings: LocalSettings, place: Path) -> LocalObjects:
    """The folder that the settings name, or ``objects`` in the state folder."""
    if settings.url is None:
        return LocalObjects(place / "objects")
    return LocalObjects(Path("/" + settings.url.partition("://")[2].lstrip("/")))
