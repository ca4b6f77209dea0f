"""One segment: a file of fixed records that is written through memory and read after any death of the process.

Header (4096 bytes): ``MSPL``, version u2, record size u4, capacity u4, worker u2, boot id 16, schema hash 32, schema
as JSON. Record: id 16, weight f4, model version u2, flags u2, null bits u8, score f8, a f8 a column, ts i8 (ns) last;
a record whose ts is 0 was never finished.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mainspring.errors import StoreError
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
else:
    np, pa = lazy("numpy"), lazy("pyarrow")

__all__ = ["CAPACITY", "HEADER", "LogSchema", "Segment", "read_segment"]

HEADER = 4096
CAPACITY = 8192
_MAGIC = b"MSPL"
_VERSION = 1
_HEAD = struct.Struct("<4sHIIH16s32sI")
_TS = struct.Struct("<q")


class LogSchema(msgspec.Struct, frozen=True):
    """What the records of an endpoint hold.

    Attributes:
        endpoint: the endpoint's name.
        model: the model's name.
        columns: the model's columns, in order; at most 64.
    """

    endpoint: str
    model: str
    columns: tuple[str, ...]

    def encoded(self) -> bytes:
        """As JSON, the same bytes for equal schemas."""
        return msgspec.json.encode(self, order="sorted")

    @property
    def record(self) -> struct.Struct:
        """A record without its ts."""
        return struct.Struct(f"<16sfHHQd{len(self.columns)}d")

    def dtype(self) -> np.dtype[np.void]:
        """A record as NumPy reads it."""
        names = ["id", "weight", "model", "flags", "nulls", "score", *(f"c{i}" for i in range(len(self.columns))), "ts"]
        kinds = ["V16", "<f4", "<u2", "<u2", "<u8", "<f8", *(["<f8"] * len(self.columns)), "<i8"]
        return np.dtype(list(zip(names, kinds, strict=True)))


@dataclass(slots=True)
class Segment:
    """A segment that is being written; its file is locked for as long as this process lives."""

    path: Path
    view: mmap.mmap
    descriptor: int
    size: int
    rows: int = 0

    @classmethod
    def create(cls, path: Path, schema: LogSchema, worker: int, boot: bytes) -> Segment:
        """Make a segment's file at its full size and touch every page, so that no put waits for the disk.

        Raises:
            StoreError: MS-4101, the disk is full; MS-4160, the folder cannot be written.
        """
        size = schema.record.size + _TS.size
        total = HEADER + CAPACITY * size
        text = schema.encoded()
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                os.posix_fallocate(descriptor, 0, total)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                view = mmap.mmap(descriptor, total)
            except OSError:
                os.close(descriptor)
                path.unlink(missing_ok=True)
                raise
        except OSError as error:
            code = "MS-4101" if error.errno == 28 else "MS-4160"
            what = "the disk is full" if error.errno == 28 else "the prediction log cannot be written"
            raise StoreError(
                what, code=code, why=str(error.strerror), fix="make room, or make the folder writable"
            ) from error
        digest = hashlib.blake2b(text, digest_size=32).digest()
        head = _HEAD.pack(_MAGIC, _VERSION, size, CAPACITY, worker, boot, digest, len(text))
        view[: len(head) + len(text)] = head + text
        for page in range(HEADER, total, mmap.PAGESIZE):
            view[page] = 0
        return cls(path, view, descriptor, size)

    def close(self) -> None:
        """Let go of the file and its lock."""
        self.view.close()
        os.close(self.descriptor)


def read_segment(path: Path) -> tuple[LogSchema, pa.Table] | None:
    """The schema and the finished records of a segment's file, in the order of writing; None for a torn header."""
    data = path.read_bytes()
    if len(data) < HEADER:
        return None
    magic, version, size, _, _, _, digest, length = _HEAD.unpack_from(data)
    text = data[_HEAD.size : _HEAD.size + length]
    if magic != _MAGIC or version != _VERSION or hashlib.blake2b(text, digest_size=32).digest() != digest:
        return None
    schema = msgspec.json.decode(text, type=LogSchema)
    kind = schema.dtype()
    if kind.itemsize != size:
        return None
    records = np.frombuffer(data, kind, (len(data) - HEADER) // size, HEADER)
    return schema, to_arrow(schema, records[records["ts"] > 0])


def to_arrow(schema: LogSchema, records: np.ndarray[tuple[int], np.dtype[np.void]]) -> pa.Table:
    """Records as a table: prediction_id, at, version, weight, score, and the model's columns, null where null."""
    ids = [bytes(value).hex() for value in records["id"]]
    columns: dict[str, pa.Array] = {
        "prediction_id": pa.array(ids, pa.string()),
        "at": pa.array(records["ts"] // 1000, pa.int64()).cast(pa.timestamp("us", "UTC")),
        "version": pa.array(records["model"].astype(np.int32)),
        "weight": pa.array(np.ascontiguousarray(records["weight"])),
        "score": pa.array(np.ascontiguousarray(records["score"])),
    }
    for place, name in enumerate(schema.columns):
        null = (records["nulls"] >> np.uint64(place)) & np.uint64(1) == 1
        columns[name] = pa.array(np.ascontiguousarray(records[f"c{place}"]), mask=null)
    return pa.table(columns)


def pack_values(values: Sequence[object]) -> tuple[int, list[float]]:
    """The null bits and the numbers of a record's columns."""
    bits, numbers = 0, []
    for place, value in enumerate(values):
        if value is None:
            bits |= 1 << place
            numbers.append(0.0)
        else:
            numbers.append(float(value))  # type: ignore[arg-type]
    return bits, numbers
