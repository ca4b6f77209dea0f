"""What the calls of a rollout are counted in: a file a worker, which its replacement goes on with.

Worker 0 reads the files of all, and judges by the sum. A call that is under way when its process dies is seen in the
file, and counts as failed: a version that takes its process with it is not judged by its survivors.
"""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from mainspring.serving.rollout.evidence import WORDS, Counted, Evidence
from mainspring.serving.rollout.shadow import TALLIED, Differences, Tally

__all__ = ["DIFFERENCES", "Kept", "Ledger", "Ledgers"]

DIFFERENCES = "differences"
"""Under what a shadow's are kept, beside the versions."""
_ID = 16
_SIZE = _ID + 8 * (2 * WORDS + TALLIED)


class Kept(msgspec.Struct, frozen=True):
    """What one worker has seen.

    Attributes:
        writer: by which its counts are told from others', in all its lives.
        stable: calls of the version that answers the rest.
        canary: calls of the one that is tried.
        differences: of a shadow; None where none was asked.
    """

    writer: str
    stable: Counted
    canary: Counted
    differences: Differences | None = None

    def parts(self, stable: str, canary: str) -> Mapping[str, bytes]:
        """As the catalog keeps it: by version, and the shadow's."""
        found = {stable: msgspec.json.encode(self.stable), canary: msgspec.json.encode(self.canary)}
        if self.differences is not None:
            found[DIFFERENCES] = msgspec.json.encode(self.differences)
        return found


class Ledger:
    """What this process counts of one rollout.

    Args:
        memory: where it is; nowhere but in this process when left out.

    Attributes:
        writer: as in `Kept`.
        stable: calls of the version that answers the rest.
        canary: calls of the one that is tried.
        shadow: what a shadow has found.
    """

    def __init__(self, memory: memoryview | None = None) -> None:
        whole = memoryview(bytearray(os.urandom(_ID) + bytes(_SIZE - _ID))) if memory is None else memory
        words = whole[_ID:]
        self.writer = bytes(whole[:_ID]).hex()
        self.stable = Evidence(words[: 8 * WORDS].cast("q"))
        self.canary = Evidence(words[8 * WORDS : 16 * WORDS].cast("q"))
        self.shadow = Tally(words[16 * WORDS :].cast("d"))

    def kept(self) -> Kept:
        """What was counted so far."""
        found = self.shadow.found()
        return Kept(self.writer, self.stable.counted(), self.canary.counted(), found if found.seen else None)


class Ledgers:
    """The ledgers of a server.

    Args:
        folder: where they are.
        name: of this process among the others: its number, and what it serves.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = name

    def own(self, rollout: str) -> Ledger:
        """This process's, as its last life has left it; calls that died with that have failed."""
        path = self._folder / rollout / f"{self._name}.bin"
        try:
            ledger = Ledger(_mapped(path))
        except OSError:  # no room: it counts as long as it lives
            return Ledger()
        for evidence in (ledger.stable, ledger.canary):
            evidence.recover()
        ledger.shadow.recover()
        return ledger

    def all(self, rollout: str) -> Iterator[Kept]:
        """What each worker has seen, those that are being replaced too."""
        for path in sorted((self._folder / rollout).glob("*.bin")):
            try:
                found = path.read_bytes()
            except OSError:
                continue
            if len(found) == _SIZE and any(found[:_ID]):
                yield Ledger(memoryview(bytearray(found))).kept()

    def forget(self, rollout: str) -> None:
        """It is over, and the catalog has what was counted."""
        shutil.rmtree(self._folder / rollout, ignore_errors=True)


def _mapped(path: Path) -> memoryview:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        part = path.with_suffix(f".{os.getpid()}")
        part.write_bytes(os.urandom(_ID) + bytes(_SIZE - _ID))
        part.replace(path)
    file = os.open(path, os.O_RDWR)
    try:
        return memoryview(mmap.mmap(file, _SIZE))
    finally:
        os.close(file)
