"""The parent of a server's workers: it starts them, replaces those that end, and lets all drain on SIGTERM.

It loads nothing of the app and answers no request, so that nothing of these can end it.
"""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from types import FrameType

import msgspec

from mainspring.errors import ServiceError

__all__ = ["Supervisor", "pause_after"]

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.25, 30.0
_STEADY_S = 60.0
"""A worker that has answered so long is replaced as if it were its first time."""
_GRACE_S = 30.0
"""How long a worker may take to seal its logs, after the time that requests have to drain."""
_LOOK_S = 1.0


def pause_after(failures: int) -> float:
    """Seconds until a worker is replaced that has ended so many times, 1 or more, without a steady time between."""
    return min(_FIRST_PAUSE_S * 2.0 ** min(failures - 1, 32), _LONGEST_PAUSE_S)


class _Slot(msgspec.Struct):
    """A worker's place, and the process that has it."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    link: socket.socket | None = None
    answers_since: float | None = None
    failures: int = 0
    due: float = msgspec.field(default=0.0)


class Supervisor:
    """Keeps workers at work.

    Args:
        workers: how many.
        start: starts the worker of a number with a socket as its stdin.
        ended: told of the number of each worker that has ended.
        told: told what a person should know, a line at a time.
        drain: seconds that requests under way may take after SIGTERM.
    """

    def __init__(
        self,
        workers: int,
        start: Callable[[int, socket.socket], subprocess.Popen[bytes]],
        ended: Callable[[int], None],
        told: Callable[[str], None],
        drain: float,
    ) -> None:
        self._slots = [_Slot(number) for number in range(workers)]
        self._start = start
        self._ended = ended
        self._told = told
        self._drain = drain
        self._selector = selectors.DefaultSelector()
        self._signals: list[int] = []
        self._stopping = 0.0
        self._whole = False
        self._status = 0

    def run(self) -> int:
        """Keep the workers until SIGTERM or SIGINT, which drains them; a second one ends them without waiting.

        Returns:
            The exit status: 0, or that of a worker that has refused to start.

        Raises:
            ServiceError: MS-4390, a worker was killed before it ever answered; MS-4391, one had to be killed because
                it did not stop.
        """
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._selector.register(ours, selectors.EVENT_READ)
        before = {number: signal.signal(number, self._asked) for number in (signal.SIGTERM, signal.SIGINT)}
        wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            return self._keep(ours)
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            for slot in self._slots:
                if slot.process is not None:
                    slot.process.kill()
                    slot.process.wait()
                if slot.link is not None:
                    slot.link.close()
            self._selector.close()
            ours.close()
            theirs.close()

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self._signals.append(number)

    def _keep(self, wakes: socket.socket) -> int:
        while True:
            self._begin()
            for key, _ in self._selector.select(self._patience()):
                if key.fileobj is wakes:
                    with contextlib.suppress(BlockingIOError):
                        wakes.recv(64)
                else:
                    self._hear(key.data)
            while self._signals:
                self._signals.pop()
                self._stop()
            if self._stopping and all(slot.process is None for slot in self._slots):
                return self._status
            if self._stopping and time.monotonic() > self._stopping:
                raise ServiceError(
                    "a worker did not stop",
                    code="MS-4391",
                    why=f"it still ran {self._drain + _GRACE_S:g} s after it was asked to, and was killed",
                    fix="look at what its requests wait for; what it had logged is kept",
                )

    def _begin(self) -> None:
        """Start the workers whose time has come; the first one alone at first: it makes what all of them need."""
        now = time.monotonic()
        for slot in self._slots:
            first = slot.number == 0 or self._whole or self._slots[0].answers_since is not None
            if self._stopping or slot.process is not None or slot.due > now or not first:
                continue
            ours, theirs = socket.socketpair()
            with theirs:
                slot.process = self._start(slot.number, theirs)
            slot.link, slot.answers_since = ours, None
            self._selector.register(ours, selectors.EVENT_READ, slot)

    def _patience(self) -> float:
        now = time.monotonic()
        waiting = [slot.due - now for slot in self._slots if slot.process is None]
        return max(0.0, min([_LOOK_S, *waiting])) if not self._stopping else _LOOK_S

    def _hear(self, slot: _Slot) -> None:
        assert slot.link is not None
        try:
            said = slot.link.recv(64)
        except OSError:
            said = b""
        if not said:
            self._gone(slot)
            return
        slot.answers_since = time.monotonic()
        if all(each.answers_since is not None for each in self._slots):
            many = f"{'workers':<11} {len(self._slots)} answer"
            self._told(f"worker {slot.number} is replaced" if self._whole else many)
            self._whole = True

    def _gone(self, slot: _Slot) -> None:
        assert slot.link is not None
        assert slot.process is not None
        self._selector.unregister(slot.link)
        slot.link.close()
        try:
            status = slot.process.wait(timeout=_GRACE_S)
        except subprocess.TimeoutExpired:
            slot.process.kill()
            status = slot.process.wait()
        since, now = slot.answers_since, time.monotonic()
        slot.process = slot.link = slot.answers_since = None
        self._ended(slot.number)
        how = f"status {status}" if status >= 0 else signal.Signals(-status).name
        if self._stopping:
            return
        if not self._whole:
            self._status = max(status, 0)
            self._stop()
            if status <= 0:
                raise ServiceError(
                    "a worker ended before it answered",
                    code="MS-4390",
                    why=f"worker {slot.number} ended with {how}",
                    fix="what it said last is above; server.workers = 1 shows whether one process starts",
                )
            return
        slot.failures = 1 if since is not None and now - since > _STEADY_S else slot.failures + 1
        pause = pause_after(slot.failures)
        slot.due = now + pause
        self._told(f"worker {slot.number} has ended with {how}: another takes its place in {pause:g} s")

    def _stop(self) -> None:
        """Ask the workers to drain; those that were asked before end at once."""
        if not self._stopping:
            self._stopping = time.monotonic() + self._drain + _GRACE_S
        for slot in self._slots:
            if slot.process is not None and slot.process.poll() is None:
                slot.process.send_signal(signal.SIGTERM)
