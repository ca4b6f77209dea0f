"""One ``mainspring dev`` a project: a lock that dies with its process."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from types import TracebackType

from mainspring.errors import StoreError

__all__ = ["ProjectLock", "unwritable"]


def unwritable(state: Path, error: OSError) -> StoreError:
    """The error of a state folder in which nothing can be made."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            "the disk is full", code="MS-4101", why=str(error.strerror), fix="free some space and run it again"
        )
    return StoreError(
        "the state folder cannot be written",
        code="MS-4111",
        why=str(error.strerror),
        origin=state.name,
        fix="make the project's folder writable",
    )


class ProjectLock:
    """Held for the length of a block.

    Args:
        state: the project's state folder.

    Raises:
        StoreError: MS-4170, another process holds it; MS-4101, the disk is full; MS-4111, the folder cannot be written.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / "dev.lock"

    def __enter__(self) -> ProjectLock:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise unwritable(self._path.parent, error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._descriptor, 32).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise StoreError(
                "mainspring dev runs in this project already",
                code="MS-4170",
                why=f"process {holder} holds {self._path.name}",
                fix="use that one, or stop it",
            ) from error
        os.truncate(self._descriptor, 0)
        os.write(self._descriptor, str(os.getpid()).encode())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
