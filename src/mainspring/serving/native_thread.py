"""One native thread of a model: what takes long is computed there, so that the event loop never waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Protocol

__all__ = ["Executor", "NativeThread"]

_IDLE_S = 10.0


class Executor(Protocol):
    """Carries out one task after the other, somewhere else."""

    def give(self, task: Callable[[], None]) -> None:
        """Carry out a task, which raises nothing, behind those that were given before."""


class NativeThread:
    """A thread that begins with its first task and ends when it had none for a while: an idle model costs none.

    Args:
        name: of the thread, as tools show it.
        idle_s: seconds without a task after which it ends.
    """

    def __init__(self, name: str, idle_s: float = _IDLE_S) -> None:
        self._name = name
        self._idle_s = idle_s
        self._tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def give(self, task: Callable[[], None]) -> None:
        """Carry out a task, which raises nothing, behind those that were given before."""
        with self._lock:
            self._tasks.put(task)
            if self._thread is None:
                # A model that never comes back must not keep the process from ending.
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether there is a thread now."""
        return self._thread is not None

    def _work(self) -> None:
        while True:
            try:
                task = self._tasks.get(timeout=self._idle_s)
            except Empty:
                with self._lock:
                    if self._tasks.empty():
                        self._thread = None
                        return
                continue
            task()
            del task  # its arrays are not kept while there is nothing to do
