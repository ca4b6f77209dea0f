"""The bytes of a write-ahead log: frames that are whole or are not there.

A segment is a file of frames. A frame is ``MSWL``, the length of what follows the checksum as u32 LE, the CRC-32 of
that, then one msgpack value after the other: what the frame says, then the bodies of its rows as they are. The first
frame of a segment is its `Head`, every other one a `Group`: all that was made durable by one fsync. A group is written
when the one before it is durable, so that only the last frame of a log can be torn.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

import msgspec

__all__ = ["VERSION", "Entry", "Frame", "Group", "Head", "frame", "frames", "is_torn"]

MAGIC = b"MSWL"
VERSION = 1
"""Of this format."""
_START = struct.Struct("<4sII")
_LENGTH = struct.Struct("<I")
_pack = msgspec.msgpack.Encoder().encode


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What a segment says first.

    Attributes:
        version: of this format.
        log: the log that the rows are for, in the table store.
        quarantine: the table of rows that are set aside.
        schema: the Arrow schema of the rows, as IPC bytes.
        aside: that of rows set aside.
        n: the number of the next entry.
        counter: the counter of the next row's `_seq`.
    """

    version: int
    log: str
    quarantine: str
    schema: bytes
    aside: bytes
    n: int
    counter: int


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One push.

    Attributes:
        n: its number in the log: 1, 2, ..
        at_us: when it was taken by the machine's clock, microseconds since 1970.
        batch: what its rows bear as `_batch`.
        counter: the counter of its first row's `_seq`.
        rows: how many rows.
        aside: how many were set aside.
        report: how many for each reason.
        request: the request's id, or None.
        asked: digest of the rows that were sent, where there is a request's id.
        body: bytes of the rows.
        aside_body: bytes of those set aside.
    """

    n: int
    at_us: int
    batch: str
    counter: int
    rows: int
    aside: int
    report: dict[str, int]
    request: str | None
    asked: str
    body: int
    aside_body: int


class Group(msgspec.Struct, frozen=True, array_like=True):
    """What one fsync made durable.

    Attributes:
        n: the number of the next entry, after these.
        counter: the counter of the next row's `_seq`.
        entries: the pushes; none where numbers were only set apart for rows of files.
    """

    n: int
    counter: int
    entries: list[Entry]


_said = msgspec.msgpack.Decoder(Group).decode
_headed = msgspec.msgpack.Decoder(Head).decode


class Frame(msgspec.Struct, frozen=True):
    """A frame as it was found.

    Attributes:
        start: where it begins in the bytes that were looked at.
        stop: where the next one begins.
        bodies: where its bodies begin.
        what: what it says.
    """

    start: int
    stop: int
    bodies: int
    what: Head | Group


def frame(what: Head | Group, bodies: Sequence[bytes] = ()) -> bytes:
    """A frame's bytes."""
    said = _pack(what)
    rest = b"".join((_LENGTH.pack(len(said)), said, *bodies))
    return _START.pack(MAGIC, len(rest), zlib.crc32(rest)) + rest


def frames(data: bytes, *, headed: bool = False) -> Iterator[Frame]:
    """The whole frames at the beginning of some bytes; what cannot be one ends them.

    Args:
        data: bytes from the beginning of a frame on.
        headed: whether the first is a segment's head.
    """
    start, view = 0, memoryview(data)
    while (stop := _end(view, start)) is not None:
        bodies = start + _START.size + _LENGTH.size + _LENGTH.unpack_from(data, start + _START.size)[0]
        said = view[start + _START.size + _LENGTH.size : bodies]
        yield Frame(start, stop, bodies, _headed(said) if headed else _said(said))
        headed, start = False, stop


def _end(data: memoryview, start: int) -> int | None:
    """Where the frame that begins there ends; None when none does."""
    if start + _START.size > len(data):
        return None
    magic, length, checksum = _START.unpack_from(data, start)
    stop = start + _START.size + length
    if magic != MAGIC or stop > len(data) or length < _LENGTH.size:
        return None
    return stop if zlib.crc32(data[start + _START.size : stop]) == checksum else None


def is_torn(data: bytes) -> bool:
    """Whether bytes after the last whole frame are one that was never finished: no whole one comes after it."""
    at, view = data.find(MAGIC, 1), memoryview(data)
    while at >= 0:
        if _end(view, at) is not None:
            return False
        at = data.find(MAGIC, at + 1)
    return True
