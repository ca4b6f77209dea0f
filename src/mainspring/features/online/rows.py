"""Online rows as bytes, both ways.

A row begins with event, ingest and seq as three u64 big endian of value + 2^63, so that comparing bytes compares rows
by rule 1; then a layout and flags (1 tombstone, 2 window rows, 4 ahead of time, 8 busy, 16 rows beside). A plain row
goes on with a msgpack array of the values; one that happens in the future with the rows that answer until then. A
window row goes on with the rows of the longest window by column: events, then values and a byte a value that says
whether it is null. One read thus answers every window exactly, and numbers are never unpacked one by one. Where an
entity has many rows, all but the newest lie in chunks, and the window row begins with their directory
(`mainspring.features.online.chunks`). Before all this come, if there are any, the rows that are in no window and still
can be the newest.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = [
    "AHEAD",
    "BESIDE",
    "BODY",
    "BUSY",
    "ORDER",
    "PLAIN",
    "TOMBSTONE",
    "WINDOWS",
    "MarkedRows",
    "PlainRow",
    "WindowRows",
    "head",
    "heads_of",
    "order_of",
    "read_beside",
    "read_plain",
    "read_windows",
    "write_plain",
]

ORDER = struct.Struct(">QQQ")
_HEAD = struct.Struct(">QQQBB")
BODY = _HEAD.size
"""Where a row's body begins."""
PLAIN, TOMBSTONE, WINDOWS, AHEAD, BUSY, BESIDE = 0, 1, 2, 4, 8, 16
_SIGN = 1 << 63
_COUNT = struct.Struct("<II")
_SIZE = struct.Struct("<I")

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


def head(event_us: int, ingest_us: int, seq: int, flags: int, layout: int = 1) -> bytes:
    """The first 26 bytes of a row."""
    return _HEAD.pack(event_us + _SIGN, ingest_us + _SIGN, seq + _SIGN, layout, flags)


def heads_of(
    events: NDArray[np.int64], ingests: NDArray[np.int64], seqs: NDArray[np.int64], flags: NDArray[Any]
) -> list[bytes]:
    """`head` of many rows: arrays (n,), microseconds and `_seq`."""
    parts = [("event", ">u8"), ("ingest", ">u8"), ("seq", ">u8"), ("layout", "u1"), ("flags", "u1")]
    made = np.empty(len(events), parts)
    for name, values in (("event", events), ("ingest", ingests), ("seq", seqs)):
        made[name] = np.ascontiguousarray(values, np.int64).view(np.uint64) ^ np.uint64(_SIGN)
    made["layout"], made["flags"] = 1, flags
    packed = made.tobytes()
    return [packed[at : at + BODY] for at in range(0, len(packed), BODY)]


def order_of(row: bytes) -> tuple[int, int, int]:
    """Event, ingest and seq of a row."""
    event, ingest, seq = ORDER.unpack_from(row)
    return event - _SIGN, ingest - _SIGN, seq - _SIGN


class PlainRow(NamedTuple):
    """One row of an entity; ordered as rule 1 orders rows.

    Attributes:
        event: microseconds.
        ingest: microseconds.
        seq: its `_seq`.
        flags: `PLAIN` or `TOMBSTONE`.
        values: the view's columns as the store has them.
    """

    event: int
    ingest: int
    seq: int
    flags: int
    values: Sequence[Any]


def write_plain(rows: Sequence[PlainRow]) -> bytes:
    """The stored row for rows of one entity, the newest first: those ahead of time, and the newest that is not."""
    first, rest = rows[0], rows[1:]
    order = (first.event, first.ingest, first.seq)
    if not rest:
        return head(*order, first.flags) + _pack(first.values)
    return head(*order, AHEAD) + _pack([first.flags, first.values, rest])


def read_plain(row: bytes) -> list[PlainRow]:
    """The rows of an entity in a stored row, the newest first."""
    order, flags = order_of(row), row[BODY - 1]
    body = _unpack(row[BODY:])
    if flags & AHEAD:
        return [PlainRow(*order, body[0], body[1]), *(PlainRow(*older) for older in body[2])]
    return [PlainRow(*order, flags, body)]


class WindowRows(msgspec.Struct, frozen=True):
    """The rows of one entity that its windows can reach, by column, ordered by (event, ingest, seq).

    Attributes:
        events: (n,) int64 microseconds.
        ingests: (n,) int64 microseconds.
        seqs: (n,) int64.
        ids: (n,) uint64 hashes of the version ids; empty when the source declares no ``id``.
        columns: a (n,) float64, int64 or uint64 array each.
        nulls: a (n,) uint8 array each; 1 is null, and the value is then 0.
        texts: columns that are no numbers, as lists.
    """

    events: NDArray[np.int64]
    ingests: NDArray[np.int64]
    seqs: NDArray[np.int64]
    ids: NDArray[np.uint64]
    columns: tuple[NDArray[Any], ...]
    nulls: tuple[NDArray[np.uint8], ...]
    texts: tuple[Sequence[object], ...] = ()

    def body(self) -> bytes:
        """The bytes after the head."""
        parts = [
            _COUNT.pack(len(self.events), len(self.ids)),
            self.events.tobytes(),
            self.ingests.tobytes(),
            self.seqs.tobytes(),
            self.ids.tobytes(),
        ]
        parts += [column.tobytes() for column in self.columns]
        parts += [null.tobytes() for null in self.nulls]
        return b"".join([*parts, _pack(self.texts)])


def read_windows(row: bytes, kinds: Sequence[str], at: int = BODY) -> WindowRows:
    """The window rows of a stored row.

    Args:
        row: the stored row.
        kinds: the NumPy kinds (``<f8``, ``<i8``, ``<u8``) of the numeric columns.
        at: where they begin.
    """
    n, n_ids = _COUNT.unpack_from(row, at)
    at += _COUNT.size
    events = np.frombuffer(row, np.int64, n, at)
    ingests = np.frombuffer(row, np.int64, n, at + 8 * n)
    seqs = np.frombuffer(row, np.int64, n, at + 16 * n)
    at += 24 * n
    ids = np.frombuffer(row, np.uint64, n_ids, at)
    at += 8 * n_ids
    columns = []
    for kind in kinds:
        columns.append(np.frombuffer(row, kind, n, at))
        at += 8 * n
    nulls = []
    for _ in kinds:
        nulls.append(np.frombuffer(row, np.uint8, n, at))
        at += n
    texts = _unpack(memoryview(row)[at:]) if len(row) > at + 1 else ()
    return WindowRows(events, ingests, seqs, ids, tuple(columns), tuple(nulls), tuple(texts))


class MarkedRows(msgspec.Struct, frozen=True):
    """Rows of one entity, deleted ones too.

    Attributes:
        rows: the rows.
        dead: (n,) uint8; 1 is a tombstone, 2 was taken away: it replaced the version before, and is not kept.
    """

    rows: WindowRows
    dead: NDArray[np.uint8]

    def body(self) -> bytes:
        """The bytes before those of the windows."""
        packed = self.dead.tobytes() + self.rows.body()
        return _SIZE.pack(len(self.dead)) + _SIZE.pack(len(packed)) + packed


def read_beside(row: bytes, kinds: Sequence[str]) -> tuple[MarkedRows | None, int]:
    """The rows beside the windows of a stored row, if it has any, and where what follows begins.

    Args:
        row: the stored row.
        kinds: as for `read_windows`.
    """
    if not row[BODY - 1] & BESIDE:
        return None, BODY
    (count,), (size,) = _SIZE.unpack_from(row, BODY), _SIZE.unpack_from(row, BODY + _SIZE.size)
    at = BODY + 2 * _SIZE.size
    dead = np.frombuffer(row, np.uint8, count, at)
    return MarkedRows(read_windows(row[: at + size], kinds, at + count), dead), at + size
