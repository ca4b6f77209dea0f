"""More models than memory holds: each is loaded when it is asked, and the one that was asked longest ago makes room.

A model that is computing is never taken away. Whoever needs room while all of it is in use waits for a call to end.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mainspring.ports.runtime import Predictor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Brought", "Residency", "Resident", "resident_bytes"]

_STATM = "/proc/self/statm"
_PAGE = 4096
_GUESS = 4
"""How many times its files a model is thought to take before it was loaded once."""


def resident_bytes() -> int:
    """The memory of this process that is in use; 0 where the system does not tell."""
    try:
        with open(_STATM, encoding="ascii") as file:
            return int(file.read().split()[1]) * _PAGE
    except OSError:
        return 0


class Brought:
    """A model that was brought into memory.

    Attributes:
        predictor: the model.
        at_once: the most rows that are computed at once, where they are asked.
    """

    __slots__ = ("at_once", "predictor")

    def __init__(self, predictor: Predictor, at_once: int) -> None:
        self.predictor = predictor
        self.at_once = at_once


class Residency:
    """What is in memory, and what may be: of all `Resident` models of a process.

    Args:
        most: bytes that all of them together may take. One that alone is larger is loaded alone all the same.
        measure: the bytes of this process that are in use.
    """

    def __init__(self, most: int, measure: Callable[[], int] = resident_bytes) -> None:
        self._most = most
        self._measure = measure
        self._changed = threading.Condition()
        self._bringing = threading.Lock()
        self._held: OrderedDict[int, tuple[weakref.ref[Resident], int]] = OrderedDict()
        self._in_use: dict[int, int] = {}
        self.loads = 0
        self.evictions = 0

    @property
    def total(self) -> int:
        """The bytes of what is in memory."""
        with self._changed:
            return self._total()

    @property
    def names(self) -> list[str]:
        """What is in memory, the one that was asked longest ago first."""
        with self._changed:
            return [model.name for ref, _ in list(self._held.values()) if (model := ref()) is not None]

    @contextlib.contextmanager
    def using(self, model: Resident) -> Iterator[Predictor]:
        """The model in memory, for one call; it stays there until the call is over."""
        brought = self._pinned(model) or self._bring(model)
        try:
            yield brought.predictor
        finally:
            del brought  # nothing of it is held when it may be taken away
            with self._changed:
                key = id(model)
                self._in_use[key] -= 1
                if not self._in_use[key]:
                    del self._in_use[key]
                self._changed.notify_all()

    def _pinned(self, model: Resident) -> Brought | None:
        """The model, in use from now on; None when it is not in memory."""
        with self._changed:
            if model.brought is not None:
                key = id(model)
                self._held.move_to_end(key)
                self._in_use[key] = self._in_use.get(key, 0) + 1
            return model.brought

    def _bring(self, model: Resident) -> Brought:
        """Load a model, in use from now on; one at a time, so that what each takes can be told."""
        with self._bringing:
            if (found := self._pinned(model)) is not None:
                return found
            self._make_room(model.size)
            before = self._measure()
            brought = model.bring()
            model.size = max(self._measure() - before, model.least)
            with self._changed:
                key = id(model)
                model.brought = brought
                self._held[key] = weakref.ref(model), model.size
                self._in_use[key] = 1
                self.loads += 1
            self._make_room(0, may_wait=False)  # it may be larger than was thought
            return brought

    def _make_room(self, wanted: int, *, may_wait: bool = True) -> None:
        """Evict until so many bytes more fit; wait for calls to end while everything left is in use."""
        with self._changed:
            while self._total() + wanted > self._most and self._held:
                if not self._evict():
                    if not may_wait:
                        return
                    self._changed.wait(1.0)

    def _evict(self) -> bool:
        """Take the model that was asked longest ago out of memory; False when all are in use."""
        key = next((key for key in list(self._held) if key not in self._in_use), None)
        if key is None:
            return False
        ref, _ = self._held.pop(key)
        if (model := ref()) is not None:
            model.brought = None
        self.evictions += 1
        _give_back()
        return True

    def forget(self, key: int) -> None:
        """A model that is served no more, by its identity, takes no room."""
        with self._changed:
            self._held.pop(key, None)
            self._changed.notify_all()

    def _total(self) -> int:
        return sum(size for _, size in list(self._held.values()))


class Resident:
    """A model that is in memory while it is asked; as a `Predictor` it is loaded by whoever asks.

    Args:
        name: of the model, and of its version.
        residency: what decides who may stay.
        bring: loads and warms it.
        least: bytes that it takes at least: those of its files.

    Attributes:
        size: bytes that it takes, as far as is known.
        brought: the model, while it is in memory.
    """

    def __init__(self, name: str, residency: Residency, bring: Callable[[], Brought], least: int) -> None:
        self.name = name
        self.bring = bring
        self.least = least
        self.size = _GUESS * least
        self.brought: Brought | None = None
        self.takes_parameters = False
        self._residency = residency
        weakref.finalize(self, residency.forget, id(self)).atexit = False

    @property
    def at_once(self) -> int:
        """The most rows that are computed at once; none while it is not in memory."""
        brought = self.brought
        return 0 if brought is None else brought.at_once

    def scores(self, matrix: NDArray[Any], parameters: Mapping[str, Any] | None = None) -> NDArray[np.float64]:
        """One score a row."""
        with self._residency.using(self) as predictor:
            if parameters:
                return predictor.scores(matrix, parameters)  # type: ignore[call-arg]
            return predictor.scores(matrix)


def _give_back() -> None:
    """Let the C library return what it has no use for, where it can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
