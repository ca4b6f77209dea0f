"""The object store: blobs by the digest of their content."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

import msgspec

__all__ = ["Blob", "Fault", "Objects"]

Fault = Callable[[str], None]
"""Called at each point of a commit (``blob.written``, ``blob.fsynced``, ``blob.renamed``); tests stop there."""


class Blob(msgspec.Struct, frozen=True):
    """A stored content: blake2b-160 in hex, and its size in bytes."""

    digest: str
    size: int


@runtime_checkable
class Objects(Protocol):
    """Content-addressed blobs. What `put` has returned survives kill -9 and power loss."""

    def put(self, data: bytes | memoryview) -> Blob:
        """Store bytes; storing the same content again is free.

        Raises:
            StoreError: MS-4101 disk full, MS-4102 not writable.
        """

    def put_file(self, path: Path) -> Blob:
        """Store a file's content by reading it once."""

    def writer(self) -> AbstractContextManager[BlobWriter]:
        """A stream to write a blob to; leaving the block stores it, an exception leaves nothing."""

    def get(self, digest: str) -> bytes:
        """The whole content, verified.

        Raises:
            StoreError: MS-4103 not there, MS-4104 corrupt (the blob is moved aside).
        """

    def path(self, digest: str) -> Path:
        """A local file with the content, to be mapped or read in place; not to be written."""

    def has(self, digests: Iterable[str]) -> frozenset[str]:
        """Those of the digests that are here with some content."""

    def sizes(self) -> Iterator[Blob]:
        """Every blob, in no order."""

    def touch(self, digests: Iterable[str]) -> None:
        """Note that these are in use, so that gc keeps them another day."""

    def delete(self, digest: str, *, older_than: float) -> bool:
        """Delete a blob last touched before that POSIX time; whether it was."""


class BlobWriter(Protocol):
    """A blob that is being written."""

    file: BinaryIO
    blob: Blob | None

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes."""
