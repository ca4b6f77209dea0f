"""Trainings that alarms ask for: one after the other, and none is lost when the server stops or dies."""

from __future__ import annotations

import fcntl
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from mainspring.choose.services import Services
from mainspring.server.errands import ended, started

__all__ = ["Trainings"]

_LOG = "retrain.log"
_STOP_SECONDS = 30.0


class Trainings:
    """What waits to be trained: a file a model, which holds the reason, until a training of it has ended by itself.

    The file of the training under way is locked, so that of several servers over one state folder one carries it out.

    Args:
        services: the project's ports.
        told: told of a training that failed.
    """

    def __init__(self, services: Services, told: Callable[[str], None]) -> None:
        self._services = services
        self._told = told
        self._folder = services.state / "retrain"
        self._changing = threading.Lock()
        self._running: tuple[str, IO[str], subprocess.Popen[bytes]] | None = None

    def ask(self, model: str, reason: str) -> None:
        """Have a model trained, now or after those that wait; once, if it waits or is trained already."""
        self._folder.mkdir(parents=True, exist_ok=True)
        place = self._folder / model
        if not place.exists():
            written = self._folder / f".{model}.{os.getpid()}"
            written.write_text(reason, encoding="utf-8")
            written.replace(place)
        self.once()

    def once(self) -> None:
        """Look after the training under way, and start the next one when it is over."""
        with self._changing:
            if self._running is not None:
                model, held, process = self._running
                if process.poll() is None:
                    return
                failed = ended(process, f"the training of {model} after an alarm", _LOG)
                if failed is not None:
                    self._told(failed)
                (self._folder / model).unlink(missing_ok=True)
                held.close()
                self._running = None
            self._running = self._next()

    def close(self) -> None:
        """Stop the training under way; the next server begins with it."""
        with self._changing:
            if self._running is None:
                return
            _, held, process = self._running
            self._running = None
            process.terminate()
            try:
                process.wait(timeout=_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            held.close()

    def _next(self) -> tuple[str, IO[str], subprocess.Popen[bytes]] | None:
        for place in self._waiting():
            try:
                held = open(place, encoding="utf-8")  # noqa: SIM115 - held until the training is over
            except FileNotFoundError:
                continue  # another server has just ended it
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                held.close()
                continue
            process = started(self._services, [f"model/{place.name}"], held.read(), _LOG)
            return place.name, held, process
        return None

    def _waiting(self) -> list[Path]:
        """What waits, the longest first."""
        if not self._folder.is_dir():
            return []
        files = [place for place in self._folder.iterdir() if not place.name.startswith(".")]
        return sorted(files, key=_since)


def _since(place: Path) -> float:
    try:
        return place.stat().st_mtime
    except OSError:
        return 0.0  # gone meanwhile
