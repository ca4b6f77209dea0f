"""Replicas that outlive their deployer: who is killed outright stops nothing, so that the next one has to find them."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from mainspring.deploy.local.running import program
from mainspring.engine.workers.processes import Owner, this_process

__all__ = ["PROCESS", "end_left", "noted"]

PROCESS = "process"
"""The file in a replica's folder that says which process it is, where it is no container."""
_OURS = "mainspring-"
"""How the folders of replicas are called: no other is ever removed, whatever a note says."""
_GRACE_S = 10.0
_POLL_S = 0.05


class _Note(msgspec.Struct, frozen=True):
    """Who runs a replica, and what there is to end: a container by its name or else a process; and its folder."""

    deployer: str
    container: str
    folder: str


@contextlib.contextmanager
def noted(place: Path, name: str, folder: Path, *, container: bool) -> Iterator[None]:
    """Have it known, for as long as this process lives and is in this block, that a replica is its own.

    Args:
        place: where notes are.
        name: of the replica.
        folder: its bundle or files, to be taken away with it.
        container: whether it is one of that name.
    """
    place.mkdir(parents=True, exist_ok=True)
    note = place / f"{name}.json"
    note.write_bytes(msgspec.json.encode(_Note(str(this_process()), name if container else "", str(folder))))
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def end_left(place: Path, told: Callable[[str], None]) -> int:
    """End what killed deployers have left, in peace where it heeds SIGTERM; how many there were.

    One whose deployer lives, or may live on another machine, is left alone.
    """
    count, here = 0, this_process()
    for path in sorted(place.glob("*.json")):
        try:
            note = msgspec.json.decode(path.read_bytes(), type=_Note)
        except (OSError, msgspec.MsgspecError):  # it ended just now, or was killed while it wrote: nothing was started
            path.unlink(missing_ok=True)
            continue
        deployer = Owner.parse(note.deployer)
        if deployer is None or not deployer.is_dead(here):
            continue
        ended = _end_container(note.container) if note.container else _end_process(Path(note.folder) / PROCESS, here)
        if ended:
            told(f"ended {path.stem}, which a killed deployment had left")
            count += 1
        if Path(note.folder).name.startswith(_OURS):
            shutil.rmtree(note.folder, ignore_errors=True)
        path.unlink(missing_ok=True)
    return count


def _end_container(name: str) -> bool:
    runc = program("runc")
    if runc is None or (state := _state(runc, name)) is None:
        return False
    subprocess.run([runc, "kill", name, "TERM"], check=False, capture_output=True)
    deadline = time.monotonic() + _GRACE_S
    while state not in (None, "stopped") and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        state = _state(runc, name)
    subprocess.run([runc, "delete", "--force", name], check=False, capture_output=True)
    return True


def _state(runc: str, name: str) -> str | None:
    """The state of a container; None when there is none of that name."""
    done = subprocess.run([runc, "state", name], check=False, capture_output=True)
    return None if done.returncode else str(json.loads(done.stdout)["status"])


def _end_process(path: Path, here: Owner) -> bool:
    try:
        process = Owner.parse(path.read_text("ascii"))
    except OSError:
        return False
    if process is None or not process.is_near(here) or process.is_dead(here):
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_S
        while not process.is_dead(here):
            if time.monotonic() >= deadline:
                os.killpg(process.pid, signal.SIGKILL)
                break
            time.sleep(_POLL_S)
    return True
