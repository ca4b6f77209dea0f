"""The online store: the newest state of each entity, read in microseconds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

__all__ = ["OnlineStore"]


@runtime_checkable
class OnlineStore(Protocol):
    """Bytes by key. Keys are at most 400 bytes; a row's first 24 bytes order it against others of its key."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The rows of these keys, in order, from one moment of the store; None where there is none."""

    def put_newer(self, rows: Iterable[tuple[bytes, bytes]]) -> int:
        """Write each row unless the one there has greater first 24 bytes; how many were written. All or none.

        Raises:
            StoreError: MS-4101 disk full, MS-4140 not writable.
        """

    def swap(self, key: bytes, old: bytes | None, new: bytes) -> bool:
        """Write a row if the one there is still `old` (None: none is there); whether it was."""

    def delete(self, keys: Iterable[bytes]) -> None:
        """Remove rows."""

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All rows whose key begins so, in order of key."""

    def drop(self, prefix: bytes) -> int:
        """Remove all rows whose key begins so; how many there were."""

    def close(self) -> None:
        """Let go of the store."""
