"""No SQLite connection is open while the process forks."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from typing import Protocol

__all__ = ["USES", "Closable", "Uses", "closes_before_fork"]


class Closable(Protocol):
    """What holds connections."""

    def close_idle(self) -> None:
        """Close the connections that no transaction is in."""

    def leave_rest(self) -> None:
        """In a child: use the others no more, and do not close them either."""


class Uses:
    """Counts the threads that use a connection, so that another can wait until none does."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # re-entrant: a thread may use connections within a use
        self._inside: Counter[int] = Counter()
        self._stopping = 0

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Use a connection; waits while somebody wants `none`, except inside a use, which must be let end."""
        me = threading.get_ident()
        with self._changed:
            if me not in self._inside:  # who comes now would keep the one that waits for all to end waiting for ever
                self._changed.wait_for(lambda: not self._stopping)
            self._inside[me] += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside[me] -= 1
                if not self._inside[me]:
                    del self._inside[me]
                    self._changed.notify_all()

    @contextlib.contextmanager
    def none(self) -> Iterator[None]:
        """Wait until no other thread uses a connection, and let none begin."""
        self.stop()
        try:
            yield
        finally:
            self.go_on()

    def stop(self) -> None:
        """Begin `none`; the lock is kept, so that it is whole on both sides of a fork."""
        self._changed.acquire()
        me = threading.get_ident()
        self._stopping += 1
        self._changed.wait_for(lambda: not self._inside.keys() - {me})
        self._stopping -= 1  # from here on the lock keeps the others out

    def go_on(self) -> None:
        """End `none`."""
        self._changed.notify_all()
        self._changed.release()


USES = Uses()
"""The uses of this process's connections to all files: with one count for all, a fork cannot wait in a circle."""

_OPEN: weakref.WeakSet[Closable] = weakref.WeakSet()


def closes_before_fork(connections: Closable) -> None:
    """Close these before each fork of this process, for as long as they live."""
    _watch_forks()
    _OPEN.add(connections)


@functools.cache
def _watch_forks() -> None:
    os.register_at_fork(before=_close_all, after_in_parent=USES.go_on, after_in_child=_leave_all)


def _close_all() -> None:
    USES.stop()
    for connections in list(_OPEN):
        connections.close_idle()


def _leave_all() -> None:
    for connections in list(_OPEN):
        connections.leave_rest()
    USES.go_on()
