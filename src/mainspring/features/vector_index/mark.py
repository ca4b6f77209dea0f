"""How far a vector index has come, kept online beside the rows that it is made of."""

from __future__ import annotations

import hashlib

import msgspec

from mainspring.features.online.rows import BODY, head
from mainspring.ports.online import OnlineStore

__all__ = ["Mark", "forget_mark", "read_mark", "write_mark"]

_MARKS = b"\xff\xff\xff\xffvectors"
_HEAD = head(0, 0, 0, 0)


class Mark(msgspec.Struct, frozen=True):
    """How far an index has come.

    Attributes:
        collection: where its points are, in the vector store.
        made: the `MADE_MARK` of the view's log.
        through: the greatest `_seq` of the log that it has seen.
        due_us: rows that happened up to then have been seen at or after their time, UTC microseconds.
        next_us: when the next row happens that lies ahead, or an earlier moment to look again; None is never.
        built: whether it has once been up to the log, and so may answer.
        at_us: when this was written.
    """

    collection: str
    made: int
    through: int
    due_us: int
    next_us: int | None
    built: bool
    at_us: int


_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(Mark).decode


def read_mark(store: OnlineStore, prefix: str, digest: str) -> tuple[bytes | None, Mark | None]:
    """The mark of an index's definition: as it is stored, for `write_mark`, and as a value."""
    (row,) = store.get_many([_key(prefix, digest)])
    if row is None:
        return None, None
    try:
        return row, _unpack(row[BODY:])
    except msgspec.MsgspecError:  # of another version of Mainspring: as good as none
        return row, None


def write_mark(store: OnlineStore, prefix: str, digest: str, old: bytes | None, mark: Mark) -> bytes | None:
    """Write a mark if the stored one is still `old`; what is stored then, or None when somebody else was first."""
    row = _HEAD + _pack(mark)
    return row if store.swap(_key(prefix, digest), old, row) else None


def forget_mark(store: OnlineStore, prefix: str, digest: str) -> None:
    """Remove the mark of a definition that is not used any more."""
    store.delete([_key(prefix, digest)])


def _key(prefix: str, digest: str) -> bytes:
    return _MARKS + hashlib.blake2b(f"{prefix}{digest}".encode(), digest_size=16).digest()
