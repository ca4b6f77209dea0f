"""What the workers of a server have agreed on: words in a file that all of them map.

Before a worker lets a model have other versions it has them warm and votes for them; the vote that makes all equal
moves the word that every worker reads with every call. There is no message between the moment at which they agree and
the one at which they answer so, and a worker that dies leaves no lock behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from mainspring.errors import ServiceError
from mainspring.server.rollouts.agreement import ABSTAINS

__all__ = ["MOST_WORKERS", "Board", "board_file"]

MOST_WORKERS = 256
_MODELS = 1024
"""The most models of a server."""
_JOINED = 0
"""The words of who answers, one a worker."""
_NAMES = MOST_WORKERS
"""Digests of the models' names, one a model."""
_AGREED = _NAMES + _MODELS
"""What is agreed on, one a model."""
_VOTES = _AGREED + _MODELS
"""Votes, by model and then by worker."""
_WORDS = _VOTES + _MODELS * MOST_WORKERS


def board_file(kept: Path, ending: str) -> Path:
    """Where the workers of a server agree; the parent makes it anew at every start."""
    return kept / "workers" / f"board{ending}.bin"


class Board:
    """The board, as one process sees it.

    Args:
        path: of the file.
        worker: which worker this is; the parent is none of them, -1.
        fresh: whether it is made anew, under the feet of nobody: who has the old one keeps that.

    Attributes:
        joined: whether this worker has a vote.
    """

    def __init__(self, path: Path, worker: int = -1, *, fresh: bool = False) -> None:
        self._worker = worker
        self._lock = threading.Lock()
        self._texts = path.with_suffix(".agreed")
        if fresh:
            path.parent.mkdir(parents=True, exist_ok=True)
            for old in (path, *(self._texts.glob("*") if self._texts.exists() else ())):
                old.unlink(missing_ok=True)
        self._texts.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.posix_fallocate(self._file, 0, _WORDS * 8)
        self._words = memoryview(mmap.mmap(self._file, _WORDS * 8)).cast("Q")
        self._slots: dict[str, int] = {}
        self.joined = False

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def agreed(self, model: str) -> int:
        """The token that holds for a model in all workers; 0 before there is one."""
        return self._words[_AGREED + self._slot(model)]

    def agreed_text(self, model: str) -> bytes | None:
        """What was proposed under that token; None before there is one.

        Raises:
            ServiceError: MS-5130, somebody has removed it.
        """
        token = self.agreed(model)
        if not token:
            return None
        try:
            return (self._texts / f"{token:016x}").read_bytes()
        except OSError as error:
            raise ServiceError(
                f"what the workers have agreed on for model {model!r} is gone",
                code="MS-5130",
                why=f"{self._texts}: {error.strerror}",
                fix="stop the server and start it again; leave its state folder alone while it runs",
            ) from error

    def propose(self, model: str, token: int, text: bytes) -> int:
        """Vote for what this worker has warm; the token that holds afterwards, this one if all have voted so.

        From here on no other vote of this worker's counts.
        """
        self._write(token, text)
        slot = self._slot(model)
        with self._held():
            self._words[_VOTES + slot * MOST_WORKERS + self._worker] = token
            self._decide(slot)
            return self._words[_AGREED + slot]

    def _write(self, token: int, text: bytes) -> None:
        path = self._texts / f"{token:016x}"
        if not path.exists():
            part = path.with_name(f"{path.name}.{os.getpid()}")
            part.write_bytes(text)
            part.replace(path)

    def abstain(self, model: str) -> None:
        """Stand in nobody's way: the model answers here no more."""
        slot = self._slot(model)
        with self._held():
            self._words[_VOTES + slot * MOST_WORKERS + self._worker] = ABSTAINS
            self._decide(slot)

    def join(self, votes: Mapping[str, tuple[int, bytes]]) -> bool:
        """Take part, if this worker has everything warm that the others have agreed on.

        Args:
            votes: the token of what it has and the text that it is of, by model; 0 where it has nothing.

        Returns:
            Whether it takes part; if not, they have agreed on something else meanwhile.
        """
        for token, text in votes.values():
            if token and token != ABSTAINS:
                self._write(token, text)
        slots = {self._slot(model): token for model, (token, _) in votes.items()}
        with self._held():
            for slot, token in slots.items():
                agreed = self._words[_AGREED + slot]
                if agreed and token not in (agreed, ABSTAINS):
                    return False
            for slot, token in slots.items():
                self._words[_VOTES + slot * MOST_WORKERS + self._worker] = token
            self._words[_JOINED + self._worker] = 1
            for slot in slots:
                self._decide(slot)
        self.joined = True
        return True

    def leave(self, worker: int) -> None:
        """A worker has ended: nobody waits for its vote. Its replacement takes what is agreed on."""
        with self._held():
            self._words[_JOINED + worker] = 0
            for slot in range(_MODELS):
                if not self._words[_NAMES + slot]:
                    break
                self._words[_VOTES + slot * MOST_WORKERS + worker] = 0
                self._decide(slot)

    def votes(self, model: str) -> dict[int, int]:
        """The vote of each worker that takes part."""
        first = _VOTES + self._slot(model) * MOST_WORKERS
        return {one: self._words[first + one] for one in range(MOST_WORKERS) if self._words[_JOINED + one]}

    def _decide(self, slot: int) -> None:
        """Move the word if all that take part have voted alike."""
        first = _VOTES + slot * MOST_WORKERS
        votes = {self._words[first + one] for one in range(MOST_WORKERS) if self._words[_JOINED + one]} - {ABSTAINS}
        if len(votes) == 1 and (token := votes.pop()):
            self._words[_AGREED + slot] = token

    def _slot(self, model: str) -> int:
        found = self._slots.get(model)
        if found is None:
            found = self._slots[model] = self._taken(model)
        return found

    def _taken(self, model: str) -> int:
        """The slot of a model, by its name: workers that a replacement came between may know different models."""
        digest = int.from_bytes(hashlib.blake2b(model.encode(), digest_size=8).digest(), "little") or 1
        with self._held():
            for slot in range(_MODELS):
                known = self._words[_NAMES + slot]
                if known == digest:
                    return slot
                if not known:
                    self._words[_NAMES + slot] = digest
                    return slot
        raise ServiceError(
            f"the workers cannot agree on versions of model {model!r}",
            code="MS-5131",
            why=f"a server of several workers has at most {_MODELS} models",
            fix="serve some of the endpoints with another server, or server.workers = 1",
        )

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Nobody else moves anything meanwhile; the kernel lets go of it if this process dies."""
        with self._lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)
