"""What ties a worker to its parent: a socket in place of stdin, by which each learns of the other's end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading

import msgspec

__all__ = ["ParentLink", "WorkerPlace"]


class ParentLink:
    """The worker's end. When the parent has gone, however it went, the worker drains and ends.

    Args:
        descriptor: of the socket; stdin is another file afterwards, so that nothing that the worker starts holds it.
    """

    def __init__(self, descriptor: int = 0) -> None:
        self._socket = socket.socket(fileno=os.dup(descriptor))
        nowhere = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nowhere, descriptor)
        os.close(nowhere)
        threading.Thread(target=self._watch, name="parent", daemon=True).start()

    def answers(self) -> None:
        """Tell the parent that this worker answers."""
        with contextlib.suppress(OSError):
            self._socket.sendall(b"1")

    def _watch(self) -> None:
        with contextlib.suppress(OSError):
            while self._socket.recv(64):
                pass
        os.kill(os.getpid(), signal.SIGTERM)


class WorkerPlace(msgspec.Struct, frozen=True):
    """Which worker a process is.

    Attributes:
        number: from 0; that one alone manages, judges and keeps the timetables.
        workers: how many there are.
        link: to the parent.
    """

    number: int
    workers: int
    link: ParentLink
