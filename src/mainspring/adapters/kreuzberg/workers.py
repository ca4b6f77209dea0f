"""The child processes: started when needed, killed when late, replaced when dead, never waited for without end."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO, cast

import msgspec

from mainspring.adapters.kreuzberg.child import HEAD, Job, Limits, Outcome
from mainspring.adapters.kreuzberg.problems import death
from mainspring.ports.parser import Parsed, Refused

__all__ = ["Workers"]

_LIVES = 1000
"""Documents after which a child is replaced: what native code leaks goes with it."""
_PIECE = 1 << 18
_SAID = 4096
_KEPT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""All of the environment that a child is given: a document that took it over would find no secrets there."""


class _Late(Exception):  # noqa: N818 - it is no fault of ours
    pass


class _Dead(Exception):  # noqa: N818
    pass


class _Child:
    """One process. Not for several threads at once."""

    def __init__(self, limits: Limits) -> None:
        self._said = cast("IO[bytes]", tempfile.TemporaryFile())  # noqa: SIM115 - closed with the child
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mainspring.adapters.kreuzberg.child", msgspec.json.encode(limits).decode()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={name: os.environ[name] for name in _KEPT if name in os.environ} | {"MALLOC_ARENA_MAX": "2"},
            bufsize=0,
        )
        self.done = 0
        for pipe in (self._in, self._out):
            os.set_blocking(pipe, False)

    @property
    def _in(self) -> int:
        return cast("IO[bytes]", self._process.stdin).fileno()

    @property
    def _out(self) -> int:
        return cast("IO[bytes]", self._process.stdout).fileno()

    def ask(self, job: Job, deadline: float) -> Parsed | Refused:
        """The outcome of a job; `_Late` at the deadline, `_Dead` when the process has ended."""
        frame = msgspec.msgpack.encode(job)
        waiting = memoryview(len(frame).to_bytes(HEAD, "little") + frame)
        answer = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._in, selectors.EVENT_WRITE)
            selector.register(self._out, selectors.EVENT_READ)
            while len(answer) < HEAD or len(answer) < HEAD + int.from_bytes(answer[:HEAD], "little"):
                ready = selector.select(max(deadline - time.monotonic(), 0))
                if not ready:
                    raise _Late
                for key, _ in ready:
                    if key.fd == self._out:
                        answer += self._received()
                    else:
                        waiting = waiting[self._sent(waiting) :]
                        if not waiting:
                            selector.unregister(self._in)
        self.done += 1
        outcome = msgspec.msgpack.decode(bytes(answer[HEAD:]), type=Outcome)
        return outcome.parsed or outcome.refused or Refused("crashed", "the parser's process said nothing")

    def _received(self) -> bytes:
        piece = os.read(self._out, _PIECE)
        if not piece:
            raise _Dead
        return piece

    def _sent(self, waiting: memoryview) -> int:
        try:
            return os.write(self._in, waiting[:_PIECE])
        except BrokenPipeError as error:
            raise _Dead from error

    def end(self) -> tuple[int, str]:
        """Kill it; its exit status, and the last that it said."""
        try:
            status = self._process.wait(0.2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        self._said.seek(max(self._said.seek(0, os.SEEK_END) - _SAID, 0))
        said = self._said.read().decode("utf-8", "replace")
        for file in (self._process.stdin, self._process.stdout, self._said):
            cast("IO[bytes]", file).close()
        return status, said

    def kill(self) -> None:
        """End it now."""
        self._process.kill()
        self.end()


class Workers:
    """At most so many children; threads share them and wait for a free one.

    Args:
        most: child processes.
        memory: bytes of address space of each.
        timeout: seconds that a job may take, a child's start included.
    """

    def __init__(self, most: int, memory: int, timeout: float) -> None:
        self._limits = Limits(memory, int(timeout) + 1)
        self._timeout = timeout
        self._free = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._idle: list[_Child] = []
        self._closed = False
        self.started = 0

    def run(self, job: Job) -> Parsed | Refused:
        """What becomes of a document. One that kills a child which has read others is tried again in a fresh one."""
        with self._free:
            child = self._taken()
            used = child.done > 0
            found = self._asked(child, job)
            if used and isinstance(found, Refused) and found.reason in ("crashed", "memory"):
                found = self._asked(self._fresh(), job)
            return found

    def close(self) -> None:
        """End the idle children; one that is at work ends with its document."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for child in idle:
            child.kill()

    def _asked(self, child: _Child, job: Job) -> Parsed | Refused:
        try:
            found = child.ask(job, time.monotonic() + self._timeout)
        except _Late:
            child.kill()
            return Refused("timeout", f"reading it takes longer than {self._timeout:g} seconds (parser.timeout)")
        except _Dead:
            return death(*child.end())
        except BaseException:
            child.kill()
            raise
        self._returned(child)
        return found

    def _taken(self) -> _Child:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self._fresh()

    def _fresh(self) -> _Child:
        with self._lock:
            self.started += 1
        return _Child(self._limits)

    def _returned(self, child: _Child) -> None:
        with self._lock:
            if child.done < _LIVES and not self._closed:
                self._idle.append(child)
                return
        child.kill()
