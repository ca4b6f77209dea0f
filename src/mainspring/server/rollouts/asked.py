"""What clients have asked of models by request: to load, to unload, to keep versions; in every worker alike."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

__all__ = ["Asked", "AskedFile", "asked_file"]

_PATIENCE_S = 10.0
_LOOK_S = 0.02


class Asked(msgspec.Struct, frozen=True):
    """What was asked of a model since the server's start.

    Attributes:
        unloaded: whether it is to answer no more.
        extra: versions to be loaded beside those that the catalog names.
        policy: latest, all and specific ones, in the place of the endpoints' policy; None leaves that.
    """

    unloaded: bool = False
    extra: tuple[int, ...] = ()
    policy: tuple[int, bool, tuple[int, ...]] | None = None


def asked_file(kept: Path, ending: str) -> Path:
    """Where the workers of a server read it; the parent removes it at every start."""
    return kept / "workers" / f"asked{ending}.json"


class AskedFile:
    """What was asked, as one worker sees it.

    Args:
        path: of the file.
        everywhere: whether something holds of a model in all workers: told its name, and asked of each worker the
            version that answers and those that are READY there.
    """

    def __init__(self, path: Path, everywhere: Callable[[str, Callable[[str, tuple[str, ...]], bool]], bool]) -> None:
        self._path = path
        self._everywhere = everywhere
        self._seen = b""

    def news(self) -> dict[str, Asked] | None:
        """What was asked, by model, if somebody has said something since the last look."""
        try:
            text = self._path.read_bytes()
        except OSError:
            return None
        if text == self._seen:
            return None
        try:
            found = msgspec.json.decode(text, type=dict[str, Asked])
        except msgspec.DecodeError:
            return None
        self._seen = text
        return found

    def say(self, model: str, asked: Asked) -> dict[str, Asked]:
        """Let all workers know what was asked of a model; what has been asked of all."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            text = self._path.read_bytes() if self._path.exists() else b"{}"
            found = {**msgspec.json.decode(text, type=dict[str, Asked]), model: asked}
            part = self._path.with_suffix(".part")
            part.write_bytes(msgspec.json.encode(found))
            part.replace(self._path)
        finally:
            os.close(lock)
        return found

    def wait(self, model: str, holds: Callable[[str, tuple[str, ...]], bool]) -> None:
        """Wait until something holds in all workers, a little while: they follow by themselves."""
        end = time.monotonic() + _PATIENCE_S
        while time.monotonic() < end and not self._everywhere(model, holds):
            time.sleep(_LOOK_S)
