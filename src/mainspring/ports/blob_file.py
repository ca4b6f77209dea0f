"""A blob while it is written: a local file that is hashed on the way, whatever store it goes to."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from mainspring.errors import StoreError
from mainspring.ports.objects import Blob

__all__ = ["BlobFile"]


class BlobFile:
    """A blob under a name of its own; implements `mainspring.ports.objects.BlobWriter`.

    The file has no buffer: one that a fork copies would be written twice.

    Args:
        path: where no file is yet.
        turned: makes the store's error of the file system's.

    Attributes:
        file: the file, until the store closes it.
        blob: what it has become, once the store has it.
        hash: of what was written so far.
        size: of that, in bytes.
        path: where it is.
        owner: the process that writes it.
    """

    def __init__(self, path: Path, turned: Callable[[OSError], StoreError]) -> None:
        self.file: BinaryIO = open(path, "xb", buffering=0)  # noqa: SIM115 - `drop` closes it
        self.blob: Blob | None = None
        self.hash = hashlib.blake2b(digest_size=20)
        self.size = 0
        self.path = path
        self.owner = os.getpid()
        self._turned = turned

    def write(self, data: bytes | memoryview) -> int:
        """Append bytes; the number of them.

        Raises:
            StoreError: MS-4101, MS-4102, they cannot be written.
        """
        self.refuse_fork()
        view = memoryview(data)
        size = view.nbytes
        if not size:
            return 0
        view = view.cast("B")
        self.hash.update(view)
        self.size += size
        try:
            while view:
                view = view[self.file.write(view) :]
        except OSError as error:
            raise self._turned(error) from error
        return size

    def refuse_fork(self) -> None:
        """A fork does not go on with what its parent has begun.

        Raises:
            StoreError: MS-4102.
        """
        if self.owner != os.getpid():
            raise StoreError(
                "the object store cannot be written or read",
                code="MS-4102",
                why="the process has forked while a blob was being written, and the other one writes it",
                fix="begin a writer of its own in the child",
            )

    def drop(self) -> None:
        """Close the file, and remove it unless it is another process's, or was moved to where the blob belongs."""
        with contextlib.suppress(OSError):
            self.file.close()
        if self.owner == os.getpid():
            with contextlib.suppress(OSError):
                self.path.unlink()
