"""LMDB environments of this process: one a file, however many stores share it, and none taken over a fork.

LMDB forbids opening a file twice in one process (its locks belong to the process), and using an environment in a
forked child.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import lmdb
import msgspec

__all__ = ["Shared", "acquire", "release"]

_READERS = 512


class Shared(msgspec.Struct, eq=False):
    """An open environment.

    Attributes:
        env: the environment.
        owner: the process that opened it.
        usable: whether reads may begin: not while the map changes, nor in a forked child. A read looks at this alone,
            since to ask for the process's number is a system call.
        writing: held while one of this process writes or changes the size of the map.
        holders: stores that use it.
    """

    env: lmdb.Environment
    owner: int
    usable: bool = True
    writing: threading.RLock = msgspec.field(default_factory=threading.RLock)
    holders: int = 0

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Let new reads wait for `writing`, which the caller holds.

        LMDB's binding changes the map and gives up a write only when no other call is under way, and busy readers
        would let that never be.
        """
        self.usable = False
        try:
            yield
        finally:
            self.usable = True

    def resize(self, size: int) -> None:
        """Change the size of the map, 0 to what another process made it; hold `writing`."""
        with self.quiet():
            self.env.set_mapsize(size)


class _Opened(msgspec.Struct):
    """What a process has open, by device and inode of the data: a folder that was made anew is another one."""

    lock: threading.RLock = msgspec.field(default_factory=threading.RLock)
    shared: dict[tuple[int, int], Shared] = msgspec.field(default_factory=dict)


_BY_PROCESS: dict[int, _Opened] = {}


def _forked() -> None:
    """In a child: nothing that the parent opened may be read."""
    for opened in list(_BY_PROCESS.values()):
        for shared in list(opened.shared.values()):
            shared.usable = False


os.register_at_fork(after_in_child=_forked)


def acquire(folder: Path, map_size: int) -> Shared:
    """The environment in a folder, opened if this process has not; `release` it."""
    here = _of_this_process()
    with here.lock:
        data = folder / "data.mdb"
        shared = here.shared.get(_identity(data)) if data.exists() else None
        if shared is None:
            size = max(map_size, data.stat().st_size * 2 if data.exists() else 0)
            env = lmdb.open(str(folder), map_size=size, metasync=False, max_readers=_READERS, readahead=False)
            env.reader_check()
            shared = here.shared[_identity(data)] = Shared(env, os.getpid())
        shared.holders += 1
        return shared


def release(shared: Shared) -> None:
    """Close the environment when nobody uses it any more; in a forked child, nothing."""
    here = _of_this_process()
    with here.lock:
        found = [identity for identity, one in here.shared.items() if one is shared]
        if not found:
            return
        shared.holders -= 1
        if not shared.holders:
            del here.shared[found[0]]
            shared.env.close()


def _of_this_process() -> _Opened:
    mine = _BY_PROCESS.get(os.getpid())
    if mine is None:
        for pid in list(_BY_PROCESS):
            for shared in _BY_PROCESS.pop(pid).shared.values():
                shared.env.close()  # in a child this only lets go of the name: the parent's locks and readers stay
        mine = _BY_PROCESS.setdefault(os.getpid(), _Opened())
    return mine


def _identity(data: Path) -> tuple[int, int]:
    found = data.stat()
    return found.st_dev, found.st_ino
