"""Where attempts run: in warm isolated workers, or in the driver's own process to debug."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from mainspring.engine.context import EngineServices
from mainspring.engine.task import Task
from mainspring.engine.wire import (
    Exited,
    Failed,
    Fault,
    Frames,
    Kill,
    Launch,
    Order,
    Reply,
    decode_notice,
    encode,
    frame,
)
from mainspring.engine.workers.fresh import packed, start_zygote
from mainspring.engine.workers.processes import fork_hazard, native_threads
from mainspring.engine.workers.worker import carry_out
from mainspring.engine.workers.zygote import serve, warmed, work

__all__ = ["Executor", "Happening", "Inline", "Pool"]

Happening = tuple[int, Reply | Exited]
"""What a worker said, or that it is gone; by the number of its attempt."""


class Executor(Protocol):
    """Carries out attempts; everything comes back through `wait`.

    Attributes:
        notes: what a person should know about how attempts are run.
    """

    notes: list[str]

    def launch(self, number: int, order: Order, pipe: int = -1) -> None:
        """Start an attempt; its output goes to the order's log, or to a file descriptor, which the caller closes."""

    def kill(self, number: int) -> None:
        """End an attempt and all that it has started; `Exited` follows."""

    def wait(self, timeout: float | None) -> list[Happening]:
        """What happened, waiting for it for at most `timeout` seconds; may be nothing."""

    def watch(self, file: int, call: Callable[[], None]) -> None:
        """Also wake up for a file descriptor, and call this when it is readable."""

    def unwatch(self, file: int) -> None:
        """Undo `watch`."""

    def close(self) -> None:
        """End everything that still runs."""


class _Worker(msgspec.Struct):
    """A worker process: its own id, and the number of the attempt that it was given."""

    id: int
    connection: socket.socket
    number: int = -1
    partly: bool = False
    frames: Frames = msgspec.field(default_factory=Frames)
    unsent: memoryview = msgspec.field(default_factory=lambda: memoryview(b""))


class Pool:
    """Warm isolated workers: one process an attempt, forked from a process that has loaded the app.

    The zygote is started at the first attempt, so a run that is all hits starts nothing.

    Args:
        tasks: the graph's tasks by name.
        services: the driver's; each worker opens its own.
    """

    def __init__(self, tasks: Mapping[str, Task], services: EngineServices) -> None:
        self.notes: list[str] = []
        self._tasks = dict(tasks)
        self._services = services
        self._poll = select.poll()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | int | None = None
        self._workers: dict[int, _Worker] = {}
        self._ids: dict[int, int] = {}
        self._count = itertools.count(1)
        self._spare: _Worker | None = None
        self._by_file: dict[int, _Worker] = {}
        self._watched: dict[int, Callable[[], None]] = {}
        self._queue: list[Happening] = []

    # -- the zygote -----------------------------------------------------------------------------------------------

    def _start(self) -> socket.socket:
        _reap(wait=False)
        hazard = fork_hazard()
        control = None if hazard else self._fork()
        if control is None:
            self._say(f"workers start from a fresh interpreter: {hazard or 'native threads are running'}")
            control = self._spawn()
        self._control = control
        self._poll.register(control, select.POLLIN)
        return control

    def _say(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    def _fork(self) -> socket.socket | None:
        """A zygote as a fork of this process; None when native threads would be missing in it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent, inherited = os.getpid(), (self._services.catalog,)
        pid = os.fork()
        if pid == 0:
            try:
                ours.close()
                _serve_forked(theirs, self._tasks, self._services, parent, inherited)
            finally:
                os._exit(70)
        theirs.close()
        if native_threads():
            ours.close()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        self._process = pid
        return ours

    def _spawn(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = start_zygote(theirs, packed(tuple(self._tasks.values()), self._services))
        return ours

    # -- attempts -------------------------------------------------------------------------------------------------

    def launch(self, number: int, order: Order, pipe: int = -1) -> None:
        """Give an attempt to a worker that waits, or to a new one."""
        spare, self._spare = self._spare, None
        worker = spare or self._worker()
        worker.number, data = number, frame(order)
        self._workers[worker.id] = self._by_file[worker.connection.fileno()] = worker
        self._ids[number] = worker.id
        self._poll.register(worker.connection, select.POLLIN)
        worker.unsent = memoryview(data)
        self._push(worker, pipe)

    def _worker(self) -> _Worker:
        """A new worker that waits for an order."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        number = next(self._count)
        message = [encode(Launch(number))]
        with theirs:
            try:
                socket.send_fds(self._control or self._start(), message, [theirs.fileno()])
            except OSError:  # somebody has ended the zygote: start another
                self._zygote_gone("")
                socket.send_fds(self._start(), message, [theirs.fileno()])
        return _Worker(number, ours)

    def _push(self, worker: _Worker, pipe: int = -1) -> None:
        """Send what the socket takes of the order; the rest goes when it takes more."""
        try:
            sent = socket.send_fds(worker.connection, [worker.unsent], [pipe] if pipe >= 0 else [])
            worker.unsent = worker.unsent[sent:]
        except BlockingIOError:
            pass
        except OSError:
            worker.unsent = memoryview(b"")  # it died; Exited follows
        if worker.unsent or worker.partly:
            worker.partly = bool(worker.unsent)
            self._poll.modify(worker.connection, select.POLLIN | (select.POLLOUT if worker.partly else 0))

    def kill(self, number: int) -> None:
        """End a worker and everything it started."""
        if self._control is not None and number in self._ids:
            with contextlib.suppress(OSError):
                self._control.send(encode(Kill(self._ids[number])))

    def watch(self, file: int, call: Callable[[], None]) -> None:
        """Also wake up for a file descriptor."""
        self._watched[file] = call
        self._poll.register(file, select.POLLIN)

    def unwatch(self, file: int) -> None:
        """Undo `watch`."""
        if self._watched.pop(file, None) is not None:
            self._poll.unregister(file)

    def wait(self, timeout: float | None) -> list[Happening]:
        """What happened; when there is nothing else to do, the next worker is forked."""
        if not self._queue:
            if self._workers and self._spare is None:
                self._spare = self._worker()
            for file, events in self._poll.poll(None if timeout is None else max(0.0, timeout) * 1000):
                self._ready(file, events)
        happened, self._queue = self._queue, []
        return happened

    def _ready(self, file: int, events: int) -> None:
        if file in self._watched:
            self._watched[file]()
        elif file in self._by_file:
            worker = self._by_file[file]
            if events & select.POLLOUT:
                self._push(worker)
            if events & ~select.POLLOUT:
                self._receive(worker)
        elif self._control is not None and file == self._control.fileno():
            self._notice(self._control)

    def _receive(self, worker: _Worker) -> None:
        """Take all that a worker has sent so far."""
        while True:
            try:
                data = worker.connection.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._hang_up(worker)
                return
            self._queue.extend((worker.number, reply) for reply in worker.frames.replies(data))

    def _hang_up(self, worker: _Worker) -> None:
        file = worker.connection.fileno()
        if self._by_file.pop(file, None) is not None:
            self._poll.unregister(file)
            worker.connection.close()

    def _notice(self, control: socket.socket) -> None:
        data = _received(control) or _received(control)  # what was sent before a reset comes after the news of it
        if not data:
            self._zygote_gone("")
            return
        notice = decode_notice(data)
        if isinstance(notice, Exited):
            self._exited(notice)
        elif notice.error is not None:
            self._zygote_gone(notice.error)
        elif notice.hazard:
            self._say(f"each worker is a fresh interpreter: {notice.hazard}")

    def _exited(self, notice: Exited) -> None:
        worker = self._workers.pop(notice.number, None)
        if worker is None:
            if self._spare is not None and self._spare.id == notice.number:
                self._drop_spare()
            return
        self._ids.pop(worker.number, None)
        if worker.connection.fileno() >= 0:
            self._receive(worker)
            self._hang_up(worker)
        self._queue.append((worker.number, notice))

    def _drop_spare(self) -> None:
        if self._spare is not None:
            self._spare.connection.close()
            self._spare = None

    def _zygote_gone(self, fault: Fault | str) -> None:
        """The zygote is dead, and its workers with it; the next attempt starts another."""
        self._stop_zygote()
        for worker in list(self._workers.values()):
            if isinstance(fault, Fault):
                self._queue.append((worker.number, Failed(fault)))
            self._exited(Exited(worker.id, -signal.SIGKILL, 0))

    def _stop_zygote(self) -> None:
        """Close the connection to the zygote, at which it ends; it is waited for when it has workers to end."""
        self._drop_spare()
        if self._control is None or self._process is None:
            return
        self._poll.unregister(self._control)
        self._control.close()
        self._control = None
        _LEAVING.append(self._process)
        _reap(wait=bool(self._workers))

    def close(self) -> None:
        """End the zygote; it ends all workers and what they have started."""
        for worker in self._workers.values():
            self._hang_up(worker)
        self._stop_zygote()
        self._workers.clear()


def _serve_forked(
    control: socket.socket,
    tasks: dict[str, Task],
    services: EngineServices,
    parent: int,
    inherited: tuple[object, ...],
) -> None:
    objects = warmed(tasks.values(), services)
    serve(control, lambda link: work(link, tasks, services, objects), parent=parent, inherited=inherited)


_LEAVING: list[subprocess.Popen[bytes] | int] = []
"""Zygotes that were told to end, for this process to wait for."""


def _reap(*, wait: bool) -> None:
    for process in list(_LEAVING):
        if _is_over(process, wait):
            _LEAVING.remove(process)


def _is_over(process: subprocess.Popen[bytes] | int, wait: bool) -> bool:
    if isinstance(process, int):
        with contextlib.suppress(ChildProcessError):
            return os.waitpid(process, 0 if wait else os.WNOHANG)[0] != 0
        return True
    return (process.wait() if wait else process.poll()) is not None


def _received(control: socket.socket) -> bytes:
    try:
        return control.recv(1 << 16)
    except OSError:
        return b""


class Inline:
    """Attempts in the driver's own process and thread, one after the other: for a debugger. No time limits, no logs."""

    def __init__(self, tasks: Mapping[str, Task], services: EngineServices) -> None:
        self.notes: list[str] = []
        self.seconds = 0.0
        self._tasks = dict(tasks)
        self._services = services
        self._queue: list[Happening] = []

    def launch(self, number: int, order: Order, pipe: int = -1) -> None:
        """Carry out an attempt, now."""
        started = time.perf_counter()
        replies: list[Reply] = []
        carry_out(order, self._tasks[order.task], self._services, replies.append, isolated=False)
        self.seconds += time.perf_counter() - started
        self._queue += [(number, reply) for reply in replies]
        self._queue.append((number, Exited(number, 0, 0)))

    def kill(self, number: int) -> None:
        """Nothing runs while anybody can call this."""

    def watch(self, file: int, call: Callable[[], None]) -> None:
        """Nothing wakes an executor that never waits."""

    def unwatch(self, file: int) -> None:
        """Undo `watch`."""

    def wait(self, timeout: float | None) -> list[Happening]:
        """What happened."""
        if not self._queue and timeout:
            time.sleep(timeout)
        happened, self._queue = self._queue, []
        return happened

    def close(self) -> None:
        """Nothing is open."""
