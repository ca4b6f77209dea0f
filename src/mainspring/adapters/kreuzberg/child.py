"""The child process that reads documents: frames in, frames out, within limits that it sets itself.

A frame is its length as eight bytes, little-endian, and that many bytes of MessagePack.
"""

from __future__ import annotations

import os
import queue
import resource
import sys
import threading
from pathlib import Path

import msgspec

from mainspring.adapters.kreuzberg.extract import extracted
from mainspring.adapters.kreuzberg.formats import Format
from mainspring.ports.parser import Parsed, Refused

__all__ = ["HEAD", "Job", "Limits", "Outcome", "main"]

HEAD = 8
_FILES = 128
_PIECE = 1 << 20


class Limits(msgspec.Struct, frozen=True):
    """What the process may use: bytes of address space, seconds of processor time."""

    memory: int
    seconds: int


class Job(msgspec.Struct, frozen=True):
    """One document: its bytes, or the path of the file."""

    kind: Format
    fast: bool
    most: int
    data: bytes = b""
    path: bytes = b""


class Outcome(msgspec.Struct, frozen=True):
    """What became of it; one of both."""

    parsed: Parsed | None = None
    refused: Refused | None = None


def main() -> None:
    """Read jobs from the standard input until it closes, which also ends a job that is under way."""
    limits = msgspec.json.decode(sys.argv[1], type=Limits)
    out = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints goes with the errors
    _limit(limits)
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(jobs,), daemon=True).start()
    while True:
        job = jobs.get()
        _allow(limits.seconds)
        found = _done(job)
        outcome = Outcome(parsed=found) if isinstance(found, Parsed) else Outcome(refused=found)
        reply = msgspec.msgpack.encode(outcome)
        _send(out, len(reply).to_bytes(HEAD, "little") + reply)


def _limit(limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory, limits.memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))


def _allow(seconds: int) -> None:
    """So much more processor time, after which the kernel ends the process even when nobody waits for it."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + seconds + 1, hard))


def _receive(jobs: queue.SimpleQueue[Job]) -> None:
    decoder = msgspec.msgpack.Decoder(Job)
    try:
        while True:
            size = int.from_bytes(_exactly(HEAD), "little")
            jobs.put(decoder.decode(_exactly(size)))
    except MemoryError:
        os.write(2, b"MemoryError")
        os._exit(1)


def _exactly(size: int) -> bytes:
    found = bytearray()
    while len(found) < size:
        piece = os.read(0, min(size - len(found), _PIECE))
        if not piece:
            os._exit(0)
        found += piece
    return bytes(found)


def _send(out: int, frame: bytes) -> None:
    view = memoryview(frame)
    while view:
        view = view[os.write(out, view) :]


def _done(job: Job) -> Parsed | Refused:
    try:
        data = Path(os.fsdecode(job.path)).read_bytes() if job.path else job.data
        return extracted(data, job.kind, job.fast, job.most)
    except MemoryError:
        return Refused("memory", "reading it takes more memory than parser.memory allows")
    except OSError as error:
        return Refused("corrupt", f"it cannot be read: {error.strerror}")


if __name__ == "__main__":
    main()
