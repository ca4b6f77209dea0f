"""Tables that are scored for clients: each a `mainspring score` in a process of its own, with its files in a folder.

What is known of a scoring is what its folder says and whether its process lives, so that neither the end of the server
nor that of the scoring leaves a record that is wrong. What was under way when the server ended goes on with the next
start; parts that were scored are not scored again.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from mainspring.catalog.ids import new_id, now_us
from mainspring.engine.workers.processes import Owner, this_process
from mainspring.protocols.http import Fault
from mainspring.protocols.native.scorings import Result, ScoringAsked

__all__ = ["Scorings"]

_AT_ONCE = 2
"""Scorings under way; each has workers of its own."""
_KEPT = 100
"""Scorings that are kept, with their files; the oldest that is over makes room."""
_STOP_S = 20.0
_ASKED, _OUTCOME, _LOG, _OWNER, _PROGRESS = "asked.json", "outcome.json", "log", "process", "progress.json"
_TYPES = {
    "parquet": b"application/vnd.apache.parquet",
    "csv": b"text/csv",
    "arrow": b"application/vnd.apache.arrow.file",
}
_ID = re.compile(r"[0-9a-f]{32}")


class _Kept(msgspec.Struct, frozen=True):
    """What is written of a scoring when it is taken."""

    asked: ScoringAsked
    table: str
    begun_us: int


class Scorings:
    """The scorings of a server, in the folder of its state.

    Args:
        folder: where they are.
        models: the models that may be asked.
        words: what the command line is given besides: the project and the profile.
        told: told what a person should know.
    """

    def __init__(
        self, folder: Path, models: Callable[[], Sequence[str]], words: Sequence[str], told: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._models = models
        self._words = tuple(words)
        self._told = told
        self._lock = threading.Lock()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._resumed = False
        self._closed = False

    def start(self, asked: ScoringAsked, table: bytes, kind: str) -> Mapping[str, object]:
        """Begin to score a table.

        Args:
            asked: what is to be scored, and how.
            table: its bytes; a source is asked for when there are none.
            kind: their format: ``parquet``, ``csv`` or ``arrow``.

        Raises:
            Fault: 404, there is no such model; 429, too many are under way.
        """
        if asked.model not in self._models():
            raise Fault(404, f"no model of this app is called {asked.model[:80]!r}")
        with self._lock:
            self._room()
            identity = new_id()
            place = self._folder / identity
            place.mkdir(parents=True)
            named = f"source/{asked.source}" if asked.source else f"table.{kind}"
            if not asked.source:
                (place / named).write_bytes(table)
            _write(place / _ASKED, msgspec.json.encode(_Kept(asked, named, now_us())))
            self._begin(identity)
        return self.described(identity)

    def resume(self, identity: str) -> Mapping[str, object]:
        """Go on with a scoring that was stopped or has failed; one that is done or under way is left as it is.

        Raises:
            Fault: 404, there is none; 429, too many are under way.
        """
        with self._lock:
            if self._state(self._place(identity)) in ("stopped", "failed"):
                self._room()
                self._begin(identity)
        return self.described(identity)

    def every(self) -> Sequence[Mapping[str, object]]:
        """All that are kept, the newest first."""
        return [self.described(identity) for identity in reversed(self._names())]

    def described(self, identity: str) -> Mapping[str, object]:
        """What is known of a scoring.

        Raises:
            Fault: 404, there is none.
        """
        place = self._place(identity)
        kept, state = _kept(place), self._state(place)
        begun = kept.begun_us / 1e6
        found: dict[str, object] = {"id": identity, "model": kept.asked.model, "status": state, "begun": begun}
        outcome = _outcome(place) or {}
        if state in ("running", "stopped") and (standing := _read(place / _PROGRESS)) is not None:
            found["progress"] = standing
        if state == "done":
            found |= {key: outcome["scores"][key] for key in ("version", "scored", "set_aside")}
            found |= {key: outcome[key] for key in ("run", "parts", "kept")}
        elif state == "failed":
            found["error"] = {key: outcome["error"][key] for key in ("code", "what", "why", "fix")}
        return found

    def result(self, identity: str, *, aside: bool) -> Result:
        """The file with the scores, or the one with the rows that were set aside.

        Raises:
            Fault: 404, there is no such scoring, or no such file; 409, it is not done.
        """
        place = self._place(identity)
        if (state := self._state(place)) != "done":
            raise Fault(409, f"the scoring is {state}", retry_after=1 if state == "running" else None)
        form = _kept(place).asked.form
        path = place / (f"aside.{form}" if aside else f"scored.{form}")
        if not path.exists():
            raise Fault(404, "no rows were to be set aside")
        return Result(path, _TYPES[form])

    def remove(self, identity: str) -> None:
        """Stop a scoring if it is under way, and forget it with its files; what is scored stays the engine's.

        Raises:
            Fault: 404, there is none.
        """
        with self._lock:
            place = self._place(identity)
            self._end(identity)
            shutil.rmtree(place, ignore_errors=True)

    def once(self) -> None:
        """Look after those that have ended; the first time, go on with what was under way when a server ended."""
        with self._lock:
            for identity, process in tuple(self._running.items()):
                if process.poll() is not None:
                    del self._running[identity]
            if self._resumed or self._closed:
                return
            self._resumed = True
            for identity in self._names():
                if self._state(self._folder / identity) == "stopped" and self._under_way() < _AT_ONCE:
                    self._told(f"scoring {identity} goes on")
                    self._begin(identity)

    def close(self) -> None:
        """Stop what is under way; the next start goes on with it."""
        with self._lock:
            self._closed = True
            for identity in tuple(self._running):
                self._end(identity)

    # -- processes -----------------------------------------------------------------------------------------------

    def _begin(self, identity: str) -> None:
        place = self._folder / identity
        kept = _kept(place)
        asked, table = kept.asked, kept.table if kept.asked.source else str(place / kept.table)
        words = [
            asked.model, f"--input={table}", f"--output={place / 'scored'}.{asked.form}",
            f"--version={asked.version}", f"--time={asked.time}", f"--moment={asked.moment}",
            *(f"--keep={column}" for column in asked.keep),
            *([f"--set-aside={place / 'aside'}.{asked.form}"] if asked.set_aside else []),
            *([f"--rows={asked.rows}"] if asked.rows else []),
            f"--progress={place / _PROGRESS}",
        ]  # fmt: skip
        for old in (_OUTCOME, _PROGRESS):
            (place / old).unlink(missing_ok=True)
        with open(place / _OUTCOME, "wb") as outcome, open(place / _LOG, "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "mainspring.cli", "score", *words, *self._words, "--json"],
                stdin=subprocess.DEVNULL,
                stdout=outcome,
                stderr=log,
                env=dict(os.environ),
            )
        self._running[identity] = process
        _write(place / _OWNER, str(Owner.of(process.pid)).encode())

    def _end(self, identity: str) -> None:
        process = self._running.pop(identity, None)
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _under_way(self) -> int:
        return sum(self._state(self._folder / identity) == "running" for identity in self._names())

    def _room(self) -> None:
        """Room for one more.

        Raises:
            Fault: 429, too many are under way.
        """
        if self._under_way() >= _AT_ONCE:
            raise Fault(429, f"{_AT_ONCE} tables are being scored already", retry_after=5)
        names = self._names()
        over = [name for name in names if self._state(self._folder / name) != "running"]
        for name in over[: max(0, len(names) + 1 - _KEPT)]:
            shutil.rmtree(self._folder / name, ignore_errors=True)

    # -- what folders say ----------------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        """The oldest first: ids begin with their moment."""
        if not self._folder.is_dir():
            return []
        return sorted(path.name for path in self._folder.iterdir() if (path / _ASKED).exists())

    def _place(self, identity: str) -> Path:
        place = self._folder / identity
        if not _ID.fullmatch(identity) or not (place / _ASKED).exists():
            raise Fault(404, "there is no such scoring")
        return place

    def _state(self, place: Path) -> str:
        """``running``, ``done``, ``failed``; ``stopped`` for one that has ended without an outcome."""
        if _lives(place):
            return "running"
        outcome = _outcome(place)
        if outcome is None:
            return "stopped"
        return "failed" if "error" in outcome else "done"


def _lives(place: Path) -> bool:
    with contextlib.suppress(OSError):
        owner = Owner.parse((place / _OWNER).read_text())
        return owner is not None and not owner.is_dead(this_process())
    return False


def _kept(place: Path) -> _Kept:
    return msgspec.json.decode((place / _ASKED).read_bytes(), type=_Kept)


def _outcome(place: Path) -> dict[str, Any] | None:
    """What a scoring that is over has said; None where it was stopped."""
    return _read(place / _OUTCOME)


def _read(file: Path) -> dict[str, Any] | None:
    """The JSON object of a file; None where there is none, or not yet."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all."""
    part = path.with_suffix(".tmp")
    part.write_bytes(data)
    os.replace(part, path)
