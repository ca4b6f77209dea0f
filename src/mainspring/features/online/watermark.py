"""How far the online store has a view's log: whole up to a `_seq`, and of what follows, the first entities."""

from __future__ import annotations

import struct

import msgspec

from mainspring.features.online.rows import BODY, head

__all__ = ["FIRST", "Progress", "Watermark", "mark_key", "read_mark", "write_mark"]

FIRST = -(1 << 31)
"""The least `_hash` that an entity can have."""

_MARKS = b"\xff\xff\xff\xffmark"
_WHOLE = struct.Struct(">qq")
_PART = struct.Struct(">qq")


class Progress(msgspec.Struct, frozen=True):
    """A materialisation that is under way.

    Attributes:
        to: the `_seq` that it brings the store up to.
        hash: entities with a lesser `_hash` are there up to `to`.
    """

    to: int
    hash: int


class Watermark(msgspec.Struct, frozen=True):
    """What the online store holds of a view's log.

    Attributes:
        through: the greatest `_seq` up to which it has the rows of all entities; -1 for none.
        progress: how far it is with the rows beyond, or None when nothing is under way.
    """

    through: int = -1
    progress: Progress | None = None


def mark_key(view_id: int) -> bytes:
    """The key of a view's watermark, by its online number."""
    return _MARKS + view_id.to_bytes(4, "big")


def read_mark(stored: bytes | None, made: int) -> Watermark:
    """A watermark as it is stored; that of another log of the name says nothing of this one.

    Args:
        stored: what the store has, if anything.
        made: when the log was made.
    """
    if stored is None:
        return Watermark()
    through, of = _WHOLE.unpack_from(stored, BODY)
    if of != made:
        return Watermark()
    if len(stored) == BODY + _WHOLE.size:
        return Watermark(through)
    return Watermark(through, Progress(*_PART.unpack_from(stored, BODY + _WHOLE.size)))


def write_mark(mark: Watermark, made: int) -> bytes:
    """A watermark to store."""
    body = _WHOLE.pack(mark.through, made)
    if mark.progress is not None:
        body += _PART.pack(mark.progress.to, mark.progress.hash)
    return head(0, 0, 0, 0) + body
