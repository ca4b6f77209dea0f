"""Work on threads that nobody waits for longer than is needed: those of a pool are joined at the end, these are not."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["begun", "side_by_side"]

_AT_ONCE = 4

T = TypeVar("T")
R = TypeVar("R")


def begun(work: Callable[[], R]) -> Callable[[], R]:
    """Begin a work now; what is given back waits for it, and raises what it raised."""
    done: queue.SimpleQueue[tuple[R | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            done.put((work(), None))
        except BaseException as error:  # handed over to whoever waits
            done.put((None, error))

    def waited() -> R:
        found = done.get()
        done.put(found)  # for who asks again
        value, error = found
        if error is not None:
            raise error
        return value  # type: ignore[return-value]  # None only where the work gives None

    threading.Thread(target=run, daemon=True).start()
    return waited


def side_by_side(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """What comes of each item, a few at a time; the first error, or Ctrl-C, ends it without waiting for the others.

    A pool would wait for uploads under way, which a registry that stalls keeps for minutes: these threads are daemons.
    """
    done: queue.SimpleQueue[tuple[int, R | BaseException]] = queue.SimpleQueue()
    todo, lock, over = iter(enumerate(items)), threading.Lock(), threading.Event()

    def run() -> None:
        while not over.is_set():
            with lock:
                number, item = next(todo, (-1, None))
            if item is None:
                return
            try:
                done.put((number, work(item)))
            except BaseException as error:  # handed over to whoever waits
                done.put((number, error))

    for _ in range(min(_AT_ONCE, len(items))):
        threading.Thread(target=run, daemon=True).start()
    found: dict[int, R] = {}
    try:
        while len(found) < len(items):
            number, value = done.get()
            if isinstance(value, BaseException):
                raise value
            found[number] = value
    finally:
        over.set()
    return [found[number] for number in range(len(items))]
