"""What each worker of a server says of its models: files that worker 0 and the command line read."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from mainspring.server.rollouts.agreement import Refused
from mainspring.server.rollouts.loading import ModelLoading
from mainspring.serving.table import ModelTable

__all__ = ["Flip", "ModelStatus", "StatusFile", "WorkerStatus", "flips", "read_statuses", "status_of"]


class ModelStatus(msgspec.Struct, frozen=True):
    """A model in a worker.

    Attributes:
        answers: the version that answers.
        wanted: the champion's version that this worker has warm.
        refused: why it cannot have it.
        lacking: the versions beside that cannot be loaded, with the reason.
        ready: the versions that are loaded and warm.
    """

    answers: str = ""
    wanted: str = ""
    refused: Refused | None = None
    lacking: dict[str, str] = {}
    ready: tuple[str, ...] = ()


class WorkerStatus(msgspec.Struct, frozen=True):
    """A worker.

    Attributes:
        pid: of its process.
        models: by name.
    """

    pid: int
    models: dict[str, ModelStatus] = {}

    @property
    def alive(self) -> bool:
        """Whether there is such a process on this machine."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


class Flip(msgspec.Struct, frozen=True):
    """A version that is not taken over yet.

    Attributes:
        model: the model's name.
        version: the champion that is wanted.
        answers: the version that answers meanwhile.
        ready: the workers in which it is READY.
        refused: by worker, why it cannot be loaded there.
    """

    model: str
    version: str
    answers: str
    ready: tuple[int, ...]
    refused: dict[int, str]

    def told(self) -> str:
        """In a line."""
        why = "".join(f"; worker {number}: {what}" for number, what in sorted(self.refused.items()))
        ready = ", ".join(map(str, self.ready)) or "none"
        return f"version {self.version} waits until all workers have it; READY in: {ready}{why}"


def status_of(loading: ModelLoading, table: ModelTable) -> dict[str, ModelStatus]:
    """How the models of this process are."""
    warm, refused, lacking = loading.warm(), loading.refused(), loading.lacking()
    return {
        name: ModelStatus(
            table.versions(name).default or "",
            str(warm.get(name, "")),
            refused.get(name),
            dict(lacking.get(name, {})),
            tuple(sorted(table.versions(name).ready, key=int)),
        )
        for name in loading.names()
    }


class StatusFile:
    """Where a worker says how it is.

    Args:
        kept: the state folder of the server.
        worker: the worker's number.
        ending: of the file's name, for the endpoints that are served alone.
    """

    def __init__(self, kept: Path, worker: int, ending: str) -> None:
        self._path = kept / "workers" / f"status-{worker}{ending}.json"
        self._said: WorkerStatus | None = None

    def write(self, models: dict[str, ModelStatus]) -> None:
        """Say it, whole or not at all, if it is something new; a full disk keeps no worker from answering."""
        status = WorkerStatus(os.getpid(), models)
        if status == self._said:
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            part = self._path.with_suffix(".part")
            part.write_bytes(msgspec.json.encode(status))
            part.replace(self._path)
            self._said = status

    def remove(self) -> None:
        """Say no more."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def read_statuses(kept: Path, ending: str | None = None) -> dict[int, WorkerStatus]:
    """What the workers that are alive say, by number.

    Args:
        kept: the state folder of the server.
        ending: of the file's name, for the endpoints that are served alone; None is all there are.
    """
    found = {}
    for path in sorted((kept / "workers").glob("status-*.json")):
        number, _, rest = path.stem.removeprefix("status-").partition("-")
        if ending is not None and ("-" + rest if rest else "") != ending:
            continue
        try:
            status = msgspec.json.decode(path.read_bytes(), type=WorkerStatus)
        except (OSError, msgspec.DecodeError):
            continue
        if status.alive:
            found[int(number)] = status
    return found


def flips(statuses: Mapping[int, WorkerStatus]) -> Sequence[Flip]:
    """The versions that some worker has ready, or cannot load, and that do not answer in all."""
    found = []
    for model in sorted({name for status in statuses.values() for name in status.models}):
        said = {number: status.models[model] for number, status in statuses.items() if model in status.models}
        refused = {number: one.refused for number, one in said.items() if one.refused is not None}
        wanted = {one.wanted for one in said.values() if one.wanted and one.wanted != one.answers}
        wanted |= {str(one.version) for one in refused.values()}
        if not wanted:
            continue
        version = max(wanted, key=int)
        found.append(
            Flip(
                model,
                version,
                next((one.answers for one in said.values() if one.answers), ""),
                tuple(number for number, one in sorted(said.items()) if one.wanted == version),
                {number: one.why for number, one in refused.items() if str(one.version) == version},
            )
        )
    return found
