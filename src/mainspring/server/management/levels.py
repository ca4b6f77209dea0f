"""Levels of loggers that hold in all workers of a server: one says them, the others read them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from mainspring.protocols.actuator.loggers import LEVELS, apply_level

__all__ = ["Levels", "levels_file"]


def levels_file(kept: Path, ending: str) -> Path:
    """Where they are; the parent removes it at every start."""
    return kept / "workers" / f"levels{ending}.json"


class Levels:
    """The levels that somebody has set since the server's start.

    Args:
        path: where workers read them; None is a process by itself.
        apply: lets a logger of this process have one.
    """

    def __init__(self, path: Path | None, apply: Callable[[str, str | None], None] = apply_level) -> None:
        self._path = path
        self._apply = apply
        self._lock = threading.Lock()
        self._set: dict[str, str | None] = {}

    def change(self, name: str, level: str | None) -> None:
        """Let a logger have a level in all workers, or none of its own."""
        with self._lock:
            self._follow()
            self._apply(name, level)
            self._set[name] = level
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                part = self._path.with_suffix(".part")
                part.write_bytes(msgspec.json.encode(self._set))
                part.replace(self._path)

    def follow(self) -> None:
        """Take over what was set in another worker."""
        with self._lock:
            self._follow()

    def _follow(self) -> None:
        if self._path is None or not self._path.exists():
            return
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=dict[str, str | None])
        except (OSError, msgspec.DecodeError):
            return
        for name, level in found.items():
            if (level is None or level in LEVELS) and self._set.get(name, "") != level:
                self._apply(name, level)
                self._set[name] = level
