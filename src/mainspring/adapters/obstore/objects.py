"""The object port in a bucket: a blob is hashed into a local file, and appears in the bucket whole by one put.

A bucket has no lock and no clock that is fine enough. So each use of a blob writes the moment under ``used/``, and who
deletes one says so under ``leaving/`` first and looks at that moment then; who uses one writes the moment first and
looks for such a word then. Of two at the same blob at least one sees the other, as reads follow writes in all stores.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote

import obstore
from obstore import exceptions

from mainspring.adapters.obstore.problems import corrupt, elsewhere, missing, objects_turned, unwritable
from mainspring.adapters.obstore.settings import BucketSettings
from mainspring.adapters.obstore.stores import bucket_of, opened
from mainspring.ports.blob_file import BlobFile
from mainspring.ports.objects import Blob, Fault

__all__ = ["BucketObjects", "open_objects"]

_CHUNK = 1 << 20
_PART, _PARTS = 32 << 20, 4
"""A blob up to this size is put in one request, a larger one in parts, so many at once."""
_AT_ONCE = 16
_KEPT_SECONDS = 3600.0
_STALE_SECONDS = 86_400.0
_LEAVING_SECONDS = 60.0
"""How long a deletion may take; one that took longer has ended, and its word counts no more."""
_PAUSE = 0.05
_EMPTY = hashlib.blake2b(digest_size=20).hexdigest()
_DIGEST = re.compile(r"[0-9a-f]{40}")
_FAULTS = (exceptions.BaseError, OSError, ValueError)


class BucketObjects:
    """Blobs under ``ab/cdef...`` of a path in a bucket; any number of machines may share it.

    Args:
        settings: where it is.
        cache: the local folder for blobs that were fetched and for those that are being written.
        fault: called at each point of a commit; tests stop there.

    Raises:
        ConfigError: MS-3042, the URL or an option is none.
        StoreError: MS-4102, the local folder cannot be written.
    """

    _user: ClassVar[int] = 0
    """The process that uses the driver: a fork of it lacks the driver's threads, and would wait for ever."""

    def __init__(self, settings: BucketSettings, cache: Path, fault: Fault = lambda point: None) -> None:
        self._place = bucket_of(settings.url, "objects")
        self._cache_bytes = settings.cache_bytes
        self._cache = cache
        self._tmp = cache / "tmp"
        self._fault = fault
        self._refuse_fork()
        with self._faults():
            self._store = opened(
                settings.url,
                settings.options,
                connect_seconds=settings.connect_seconds,
                seconds=settings.seconds,
                prefix=unquote(settings.url.partition("://")[2].partition("/")[2]).strip("/") or None,
            )
        with _local():
            self._tmp.mkdir(parents=True, exist_ok=True)
            self._sweep()

    # -- writing ------------------------------------------------------------------------------------------------------

    @contextmanager
    def writer(self) -> Iterator[BlobFile]:
        """A stream to write a blob to."""
        with _local():
            self._tmp.mkdir(parents=True, exist_ok=True)
            stream = BlobFile(self._tmp / f"{os.getpid()}-{secrets.token_hex(8)}", unwritable)
        try:
            yield stream
            stream.refuse_fork()
            self._commit(stream)
        finally:
            stream.drop()

    def put(self, data: bytes | memoryview) -> Blob:
        """Store bytes."""
        blob = Blob(_digest_of(data), memoryview(data).nbytes)
        if self._size(blob.digest) == blob.size:
            self._use(blob.digest)
            if self._size(blob.digest) == blob.size:
                return blob
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

    def _commit(self, stream: BlobFile) -> None:
        with _local():
            self._fault("blob.written")
            stream.file.close()
            self._fault("blob.fsynced")
        blob = Blob(stream.hash.hexdigest(), stream.size)
        self._use(blob.digest)
        whole = stream.path if blob.size else b""
        with self._turning():
            obstore.put(self._store, _name(blob.digest), whole, chunk_size=_PART, max_concurrency=_PARTS)
        with _local():
            self._fault("blob.renamed")
        stream.blob = blob

    # -- reading ------------------------------------------------------------------------------------------------------

    def get(self, digest: str) -> bytes:
        """The whole content, verified."""
        for _ in range(2):  # a writer may mend it in the meantime
            data = self._read(digest)
            if _digest_of(data) == digest:
                return data
        with self._turning(), contextlib.suppress(FileNotFoundError):  # another one has moved it
            obstore.copy(self._store, _name(digest), f"corrupt/{digest}")
            obstore.delete(self._store, _name(digest))
        raise corrupt(digest, _digest_of(data), self._place)

    def path(self, digest: str) -> Path:
        """A local copy of the blob, verified when it was fetched."""
        size = self._size(digest)
        if size < 0 or (not size and digest != _EMPTY):
            raise missing(digest, self._place)
        file = self._cache / digest[:2] / digest[2:]
        with _local():
            if file.is_file() and file.stat().st_size == size:
                os.utime(file)
                return file
            file.parent.mkdir(parents=True, exist_ok=True)
        self._fetch(digest, file)
        self._evict()
        return file

    def has(self, digests: Iterable[str]) -> frozenset[str]:
        """Those that are there with some content."""
        wanted = list(dict.fromkeys(digests))
        if len(wanted) == 1:
            sizes: Iterable[int] = map(self._size, wanted)
        else:
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                sizes = list(pool.map(self._size, wanted))
        found = zip(wanted, sizes, strict=True)
        return frozenset(digest for digest, size in found if size > (-1 if digest == _EMPTY else 0))

    def sizes(self) -> Iterator[Blob]:
        """Every blob."""
        with self._turning():
            for chunk in obstore.list(self._store):
                for entry in chunk:
                    digest = entry["path"].replace("/", "", 1)
                    if entry["path"] == f"{digest[:2]}/{digest[2:]}" and _DIGEST.fullmatch(digest):
                        yield Blob(digest, entry["size"])

    # -- what is old --------------------------------------------------------------------------------------------------

    def touch(self, digests: Iterable[str]) -> None:
        """Note that these are in use."""
        for digest in self.has(digests):
            self._use(digest)

    def delete(self, digest: str, *, older_than: float) -> bool:
        """Delete a blob last touched before a time."""
        if self._size(digest) < 0 or self._used(digest) >= older_than:
            return False
        word, began = f"leaving/{digest}", time.monotonic()
        with self._turning():
            try:
                obstore.put(self._store, word, repr(time.time()).encode(), mode="create")
            except exceptions.AlreadyExistsError:
                if not self._is_stale(word):
                    return False  # another one deletes it
                obstore.put(self._store, word, repr(time.time()).encode())
            try:
                if self._used(digest) >= older_than or time.monotonic() - began > _LEAVING_SECONDS / 2:
                    return False
                obstore.delete(self._store, [_name(digest), f"used/{digest}"])
                return True
            finally:
                obstore.delete(self._store, word)

    def _use(self, digest: str) -> None:
        """Write down that a blob is used now, and wait while somebody deletes it.

        A put before the deletion's end might be what is deleted; and what was written down goes with it.
        """
        while True:
            with self._turning():
                obstore.put(self._store, f"used/{digest}", repr(time.time()).encode())
            if self._is_stale(f"leaving/{digest}"):
                return
            time.sleep(_PAUSE)

    def _used(self, digest: str) -> float:
        """When a blob was last used, POSIX seconds; 0 when that is not known."""
        return self._moment(f"used/{digest}") or 0.0

    def _moment(self, name: str) -> float | None:
        with self._turning():
            try:
                return float(bytes(obstore.get(self._store, name).bytes()))
            except FileNotFoundError:
                return None

    def _is_stale(self, word: str) -> bool:
        """Whether who wrote that it deletes a blob has died over it."""
        said = self._moment(word)
        return said is None or time.time() - said > _LEAVING_SECONDS

    # -- the bucket and the cache -------------------------------------------------------------------------------------

    def _size(self, digest: str) -> int:
        """How many bytes a blob has; -1 when it is not there."""
        if not _DIGEST.fullmatch(digest):
            return -1
        with self._turning():
            try:
                return int(obstore.head(self._store, _name(digest))["size"])
            except FileNotFoundError:
                return -1

    def _read(self, digest: str) -> bytes:
        if not _DIGEST.fullmatch(digest):
            raise missing(digest, self._place)
        with self._turning():
            try:
                return bytes(obstore.get(self._store, _name(digest)).bytes())
            except FileNotFoundError:
                raise missing(digest, self._place) from None

    def _fetch(self, digest: str, to: Path) -> None:
        """Bring a blob to the local disk; it appears there when it is whole and verified."""
        with self._turning():
            try:
                chunks = obstore.get(self._store, _name(digest)).stream(min_chunk_size=_CHUNK)
            except FileNotFoundError:
                raise missing(digest, self._place) from None
        with _local():
            stream = BlobFile(self._tmp / f"{os.getpid()}-{secrets.token_hex(8)}", unwritable)
        try:
            with self._turning():
                for chunk in chunks:
                    stream.write(memoryview(chunk))
            if stream.hash.hexdigest() != digest:
                self.get(digest)  # tells what is wrong with it and moves it aside; or it was mended
                self._fetch(digest, to)
                return
            with _local():
                os.replace(stream.path, to)
        finally:
            stream.drop()

    def _refuse_fork(self) -> None:
        if BucketObjects._user not in (0, os.getpid()):
            raise elsewhere()

    @contextmanager
    def _turning(self) -> Iterator[None]:
        """Use the driver, and turn its errors into ours."""
        self._refuse_fork()
        BucketObjects._user = os.getpid()
        with self._faults():
            yield

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except _FAULTS as error:
            raise objects_turned(error, self._place) from error

    def _evict(self) -> None:
        """Remove the copies that were used longest ago, as far as there are too many."""
        held = [
            (stat.st_mtime, stat.st_size, file)
            for file in self._cache.glob("[0-9a-f][0-9a-f]/*")
            if (stat := file.stat(follow_symlinks=False))
        ]
        surplus = sum(size for _, size, _ in held) - self._cache_bytes
        for used, size, file in sorted(held):
            if surplus <= 0 or time.time() - used < _KEPT_SECONDS:
                return
            file.unlink(missing_ok=True)
            surplus -= size

    def _sweep(self) -> None:
        """Remove what writers that died long ago have left."""
        for path in self._tmp.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                    path.unlink()


def _name(digest: str) -> str:
    return f"{digest[:2]}/{digest[2:]}"


def _digest_of(data: bytes | memoryview) -> str:
    return hashlib.blake2b(data, digest_size=20).hexdigest()


@contextmanager
def _local() -> Iterator[None]:
    """Turn what the local disk says into ours."""
    try:
        yield
    except OSError as error:
        raise unwritable(error) from error


def open_objects(settings: BucketSettings, place: Path) -> BucketObjects:
    """The path that ``objects.url`` names; copies of blobs are kept in the state folder.

    Raises:
        ConfigError, StoreError: as `BucketObjects`.
    """
    return BucketObjects(settings, place / "objects-cache")
