"""The process that has loaded the app and forks a worker for each attempt; it never runs a step itself.

It adopts whatever a worker leaves behind and ends it, and it ends everything when the driver goes away.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Collection
from typing import TextIO

from mainspring.engine.context import EngineServices
from mainspring.engine.reference import annotations_of
from mainspring.engine.task import Task
from mainspring.engine.wire import (
    Exited,
    Frames,
    Kill,
    Launch,
    Order,
    Reply,
    decode_command,
    decode_order,
    encode,
    frame,
)
from mainspring.engine.workers.guard import prepare
from mainspring.engine.workers.processes import (
    adopt_orphans,
    children,
    die_with_parent,
    end_children,
    kill_tree,
    native_threads,
)
from mainspring.engine.workers.worker import carry_out
from mainspring.lazy import imported
from mainspring.ports.objects import Objects

__all__ = ["serve", "warmed", "work"]

# -- a worker ---------------------------------------------------------------------------------------------------------


def warmed(tasks: Collection[Task], services: EngineServices) -> Objects | None:
    """Do once, before workers are forked, what each of them would have to do.

    Returns:
        The object store, opened, when opening it has started no thread and opened no file; else None.
    """
    prepare()
    for name in sorted({name for task in tasks for name in task.imports}):
        imported(name)
    for task in tasks:
        annotations_of(task.function)
    before = len(os.listdir("/dev/fd")), native_threads()
    objects = services.objects
    return objects if (len(os.listdir("/dev/fd")), native_threads()) == before else None


def work(
    connection: socket.socket, tasks: dict[str, Task], services: EngineServices, objects: Objects | None = None
) -> None:
    """Be a worker: wait for one order of the driver, carry it out, and end this process."""
    status = 0  # also when the driver has gone, or has no order for this worker
    try:
        order, pipe = _first_order(connection)
        _redirect(order.log, pipe)

        def send(reply: Reply) -> None:
            connection.sendall(frame(reply))

        carry_out(order, tasks[order.task], services, send, isolated=True, objects=objects)
    except (ConnectionError, EOFError):
        pass
    except BaseException:
        status = 70
        raise
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        end_children()
    os._exit(status)


def _first_order(connection: socket.socket) -> tuple[Order, int]:
    """The order, and the pipe for its output that comes along when the output is to be redacted; -1 without."""
    frames, pipe = Frames(), -1
    while True:
        data, files, _, _ = socket.recv_fds(connection, 1 << 16, 1)
        pipe = files[0] if files else pipe
        if not data:
            raise EOFError
        for whole in frames.feed(data):
            return decode_order(whole), pipe


def _redirect(path: str, pipe: int) -> None:
    """Send this process's output to the log, by file descriptor, so that native code and programs write there, too."""
    log = pipe if pipe >= 0 else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    # Whoever started the driver may have put something else in their place: a notebook, a test runner.
    sys.stdout, sys.stderr = _lines(1), _lines(2)
    faulthandler.enable(2, all_threads=False)  # a crash of native code leaves the Python stack in the log


def _lines(file: int) -> TextIO:
    return open(file, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)


def _become_worker(connection: int, parent: int) -> socket.socket:
    """What a child does first: its own session, and the signals as Python has them."""
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    die_with_parent(parent)
    adopt_orphans()
    return socket.socket(fileno=connection)


# -- the zygote -------------------------------------------------------------------------------------------------------


class _Zygote:
    def __init__(self, control: socket.socket, start: Callable[[socket.socket], None]) -> None:
        self._control = control
        self._start = start
        self._workers: dict[int, int] = {}
        self._wake, self._woken = socket.socketpair()

    def run(self) -> None:
        for end in (self._wake, self._woken):
            end.setblocking(False)
        signal.set_wakeup_fd(self._woken.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._end())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        while True:
            ready = {file for file, _ in poll.poll()}
            if self._wake.fileno() in ready:
                with contextlib.suppress(BlockingIOError):
                    self._wake.recv(4096)
                self._reap()
            if self._control.fileno() in ready:
                self._command()

    def _command(self) -> None:
        try:
            data, files, _, _ = socket.recv_fds(self._control, 4096, 1)
        except OSError:
            data, files = b"", []
        if not data:
            self._end()
        command = decode_command(data)
        if isinstance(command, Launch):
            self._launch(command, files[0])
        elif isinstance(command, Kill):
            self._kill(command)

    def _launch(self, command: Launch, connection: int) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                for end in (self._control, self._wake, self._woken):
                    end.close()
                self._start(_become_worker(connection, parent))
            finally:
                os._exit(70)
        os.close(connection)
        self._workers[pid] = command.number

    def _kill(self, command: Kill) -> None:
        for pid, number in self._workers.items():
            if number == command.number:
                kill_tree(pid)

    def _reap(self) -> None:
        """Wait for the dead: tell the driver of its workers, and end what they left behind."""
        gone = []
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            number = self._workers.pop(pid, None)
            if number is not None:
                gone.append(Exited(number, os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024))
        if any(exited.status != 0 for exited in gone):
            self._end_orphans()
        for exited in gone:
            with contextlib.suppress(OSError):
                self._control.send(encode(exited))

    def _end_orphans(self) -> None:
        """What a killed worker has left came to us as its subreaper; no child of ours but a worker is wanted."""
        while orphans := [pid for pid in children(os.getpid()) if pid not in self._workers]:
            for pid in orphans:
                kill_tree(pid)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)

    def _end(self) -> None:
        """The driver is gone or has said so: leave nothing behind."""
        for pid in list(self._workers):
            kill_tree(pid)
        end_children()
        os._exit(0)


def serve(
    control: socket.socket,
    start: Callable[[socket.socket], None],
    *,
    parent: int,
    inherited: tuple[object, ...] = (),
) -> None:
    """Be the zygote, until the driver closes the control socket; never returns.

    Args:
        control: a socket of packets to the driver.
        start: what a forked child does with its connection to the driver; does not return.
        parent: the driver's process.
        inherited: open stores of the driver that this process must let go, because a database connection may not
            be used on both sides of a fork.
    """
    with contextlib.suppress(OSError):
        os.setsid()
    die_with_parent(parent, signal.SIGTERM)
    adopt_orphans()
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for store in inherited:
        with contextlib.suppress(Exception):
            store.close()  # type: ignore[attr-defined]
    gc.freeze()
    _Zygote(control, start).run()
