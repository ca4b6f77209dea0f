"""Fresh interpreters: a zygote that is not a fork of the driver, and workers where nothing may be forked."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any, NoReturn, cast

import msgspec

from mainspring.engine.context import EngineServices
from mainspring.engine.reference import callable_named, dereference, reference
from mainspring.engine.task import Task
from mainspring.engine.wire import Fault, Hello, encode
from mainspring.engine.workers.processes import fork_hazard, native_threads
from mainspring.engine.workers.worker import fault_of
from mainspring.engine.workers.zygote import serve, warmed, work
from mainspring.errors import MainspringError, UserCodeError

__all__ = ["main", "packed", "start_zygote"]

_CODE = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); from mainspring.engine.workers.fresh import main; main()"
)


class _Load(msgspec.Struct, frozen=True):
    """What a fresh process needs: the class of the services with their plain value, and the tasks."""

    services_class: str
    services: object
    tasks: tuple[Task, ...]


class _ByReference(pickle.Pickler):
    """Pickles functions and classes by where they are, seeing through declarations that took their names."""

    def reducer_override(self, obj: object) -> Any:
        if isinstance(obj, types.FunctionType) and obj is not callable_named:
            return callable_named, (reference(obj), obj.__code__.co_filename)
        if isinstance(obj, types.MappingProxyType):
            return _read_only, (dict(obj),)
        return NotImplemented


def _read_only(values: dict[str, object]) -> types.MappingProxyType[str, object]:
    return types.MappingProxyType(values)


class _Buffer(bytearray):
    def write(self, data: bytes) -> int:
        self.extend(data)
        return len(data)


def packed(tasks: tuple[Task, ...], services: EngineServices) -> bytes:
    """Tasks and services as bytes for a fresh process.

    Raises:
        UserCodeError: MS-2029, a param or a function cannot be sent to another process.
    """
    buffer = _Buffer()
    carried_out = tuple(msgspec.structs.replace(task, holds=None) for task in tasks)  # which only the driver asks
    try:
        _ByReference(buffer, protocol=5).dump(_Load(reference(type(services)), services.spec(), carried_out))
    except Exception as error:
        raise UserCodeError(
            "a task cannot be sent to a fresh worker",
            code="MS-2029",
            why=f"{type(error).__name__}: {error}",
            fix="define its function at the top level of a module, and pass params that can be pickled",
        ) from error
    return bytes(buffer)


def _memory_file(data: bytes) -> int:
    file = os.memfd_create("mainspring")
    with open(file, "wb", closefd=False) as stream:
        stream.write(data)
    return file


def _command(role: str, *numbers: int) -> list[str]:
    return [sys.executable, "-c", _CODE, json.dumps(sys.path), role, *map(str, numbers)]


def start_zygote(control: socket.socket, load: bytes) -> subprocess.Popen[bytes]:
    """Start a zygote in a fresh interpreter; it says `Hello` on the control socket when the app is loaded."""
    file = _memory_file(load)
    try:
        return subprocess.Popen(
            _command("zygote", control.fileno(), file, os.getpid()),
            pass_fds=(control.fileno(), file),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    finally:
        os.close(file)


def _unpacked(data: bytes) -> tuple[dict[str, Task], EngineServices]:
    load = cast(_Load, pickle.loads(data))
    opened = dereference(load.services_class).from_spec(load.services)  # type: ignore[attr-defined]
    return {task.name: task for task in load.tasks}, opened


def main() -> NoReturn:
    """Be what the command line says: ``zygote CONTROL LOAD PARENT`` or ``worker CONNECTION LOAD``."""
    role, connection, file, *rest = sys.argv[2:]
    with open(int(file), "rb") as load:
        load.seek(0)
        data = load.read()
    if role == "worker":
        tasks, services = _unpacked(data)
        work(socket.socket(fileno=int(connection)), tasks, services)
    else:
        _be_zygote(socket.socket(fileno=int(connection)), data, int(rest[0]))
    os._exit(70)


def _be_zygote(control: socket.socket, data: bytes, parent: int) -> None:
    try:
        tasks, services = _unpacked(data)
    except Exception as error:
        _say(control, Hello(error=_load_fault(error)))
        os._exit(1)
    hazard = _hazard()
    _say(control, Hello(hazard))
    start: Callable[[socket.socket], None]
    if hazard:

        def start(connection: socket.socket) -> None:
            file = _memory_file(data)
            for number in (connection.fileno(), file):
                os.set_inheritable(number, True)
            command = _command("worker", connection.fileno(), file)
            os.execv(command[0], command)

    else:
        objects = warmed(tasks.values(), services)

        def start(connection: socket.socket) -> None:
            work(connection, tasks, services, objects)

    serve(control, start, parent=parent)


def _say(control: socket.socket, hello: Hello) -> None:
    try:
        control.send(encode(hello))
    except OSError:
        os._exit(0)  # the driver has gone meanwhile


def _hazard() -> str:
    """Whether this process, with the app loaded, can be forked; tried by forking it."""
    hazard = fork_hazard()
    if hazard:
        return hazard
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    threads = native_threads()
    return f"the app started {threads} native threads when it was imported" if threads else ""


def _load_fault(error: Exception) -> Fault:
    if isinstance(error, MainspringError):
        return fault_of(error, Task("app", _be_zygote))
    return fault_of(error, Task("the app, imported by a fresh worker,", _be_zygote))
