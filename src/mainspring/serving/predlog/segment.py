"""One segment: a file of fixed records that is written through memory and read after any death of the process.

Header (4096 bytes, more when the schema needs it): ``MSPL``, version u2, record size u4, capacity u4, worker u2, boot
id 16, schema hash 32, length of the schema u4, schema as JSON. The records follow.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mainspring.errors import StoreError
from mainspring.lazy import lazy
from mainspring.serving.predlog.schema import LogSchema

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["CAPACITY", "FULL", "PAGE", "Segment", "SegmentFile", "open_segment", "segment_name"]

CAPACITY = 8192
PAGE = 4096
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What a disk without room says."""
_MAGIC = b"MSPL"
_VERSION = 2
_HEAD = struct.Struct("<4sHIIH16s32sI")
_FRESH = ".new-"
_WAL, _SEALED = "wal-", "seg-"
_TRIES = 3


def segment_name(path: Path) -> str:
    """What a segment is called for its whole life, whichever file it is in: ``0-BOOT-000001``."""
    return path.name.removeprefix(_SEALED).removeprefix(_WAL).removesuffix(".tmp").removesuffix(".parquet")


class Segment(msgspec.Struct):
    """A segment that is being written; its file is locked for as long as this process lives.

    Attributes:
        path: its file.
        view: the file in memory.
        descriptor: the open file, which holds the lock.
        start: where the records begin.
        size: bytes a record.
        capacity: how many records it can hold.
        rows: how many it holds.
    """

    path: Path
    view: mmap.mmap
    descriptor: int
    start: int
    size: int
    capacity: int
    rows: int = 0

    @classmethod
    def create(cls, path: Path, schema: LogSchema, worker: int, boot: bytes, capacity: int = CAPACITY) -> Segment:
        """Make a segment's file at its full size and touch every page, so that no put waits for the disk.

        Raises:
            StoreError: MS-4101, the disk is full; MS-4160, the folder cannot be written.
        """
        text, size = schema.encoded(), schema.record().size
        start = -(-(_HEAD.size + len(text)) // PAGE) * PAGE
        digest = hashlib.blake2b(text, digest_size=32).digest()
        head = _HEAD.pack(_MAGIC, _VERSION, size, capacity, worker, boot, digest, len(text)) + text
        try:
            descriptor, view = _allocated(path, head, start + capacity * size)
        except OSError as error:
            full = error.errno in FULL
            raise StoreError(
                "the disk is full" if full else "the prediction log cannot be written",
                code="MS-4101" if full else "MS-4160",
                why=str(error.strerror),
                fix="make room, or make the folder writable",
            ) from error
        return cls(path, view, descriptor, start, size, capacity)

    def close(self) -> None:
        """Let go of the file and its lock."""
        self.view.close()
        os.close(self.descriptor)


def _allocated(path: Path, head: bytes, total: int) -> tuple[int, mmap.mmap]:
    """A locked, mapped file that is given its name when it is whole: nobody recovers it before it is locked."""
    fresh = path.with_name(f"{_FRESH}{path.name}")
    for attempt in range(_TRIES):
        descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.posix_fallocate(descriptor, 0, total)
            view = mmap.mmap(descriptor, total)
            view[: len(head)] = head
            for page in range(0, total, mmap.PAGESIZE):
                view[page] = view[page]
            os.rename(fresh, path)
        except FileNotFoundError:  # another process took it for a leftover before it was locked
            os.close(descriptor)
            if attempt == _TRIES - 1:
                raise
        except OSError:
            os.close(descriptor)
            fresh.unlink(missing_ok=True)
            raise
        else:
            return descriptor, view
    raise AssertionError


class SegmentFile(msgspec.Struct, frozen=True):
    """A segment's file as a reader sees it.

    Attributes:
        path: the file.
        schema: what its records hold.
        start: where the records begin.
    """

    path: Path
    schema: LogSchema
    start: int

    def records(self, first: int = 0) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        """The finished records from the `first` on, in the order of writing, as the schema's dtype (rows,).

        Raises:
            FileNotFoundError: it was sealed meanwhile.
        """
        kind = self.schema.dtype()
        with open(self.path, "rb") as file:
            at = self.start + first * kind.itemsize
            seen = np.frombuffer(_rest(file.fileno(), at), np.uint8)
            unwritten = np.flatnonzero(seen[: len(seen) // kind.itemsize * kind.itemsize].view(kind)["ts"] <= 0)
            rows = int(unwritten[0]) if len(unwritten) else len(seen) // kind.itemsize
            # Read again: in the first copy a record's values may be older than its ts.
            return np.frombuffer(os.pread(file.fileno(), rows * kind.itemsize, at), kind)


def _rest(descriptor: int, at: int) -> bytes:
    return os.pread(descriptor, max(os.fstat(descriptor).st_size - at, 0), at)


def open_segment(path: Path) -> SegmentFile | None:
    """A segment's file, or None when its header is not one that this version writes.

    Raises:
        FileNotFoundError: it was sealed meanwhile.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size:
            return None
        magic, version, size, _, _, _, digest, length = _HEAD.unpack(head)
        text = file.read(length) if magic == _MAGIC and version == _VERSION else b""
    if not text or hashlib.blake2b(text, digest_size=32).digest() != digest:
        return None
    schema = msgspec.json.decode(text, type=LogSchema)
    if schema.dtype().itemsize != size:
        return None
    return SegmentFile(path, schema, -(-(_HEAD.size + length) // PAGE) * PAGE)
