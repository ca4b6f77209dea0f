"""One attempt of one step: load the inputs, call the function, check and store what it returns."""

from __future__ import annotations

import copy
import os
import pickle
import random
import shutil
import sys
import traceback
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from mainspring.engine.context import EngineServices, StepContext, entered
from mainspring.engine.fitting import fits, spell_type
from mainspring.engine.reference import annotations_of, is_users, place_of
from mainspring.engine.secrets import Screened, revealed
from mainspring.engine.task import Task
from mainspring.engine.values import load, save
from mainspring.engine.wire import Computed, Done, Failed, Fault, Measured, Moved, Noted, Order, Reply
from mainspring.engine.workers.guard import Guard, watching
from mainspring.errors import MainspringError, UserCodeError
from mainspring.lazy import lazy
from mainspring.ports.objects import Objects

if TYPE_CHECKING:
    import importlib.util as importlib_util

    import numpy as np
else:
    np, importlib_util = lazy("numpy"), lazy("importlib.util")

__all__ = ["carry_out", "fault_of"]


def carry_out(
    order: Order,
    task: Task,
    services: EngineServices,
    send: Callable[[Reply], None],
    *,
    isolated: bool,
    objects: Objects | None = None,
) -> None:
    """Carry out one attempt; whatever happens is sent as `Done` or `Failed`, nothing is raised.

    Args:
        order: what to do.
        task: the task that the order names.
        services: the services of this process.
        send: takes the replies.
        isolated: whether this process ends with the attempt.
        objects: an object store that was opened before this process was forked, if that may be shared.
    """
    work_dir = Path(order.work_dir)
    objects = services.objects if objects is None else objects
    try:
        done = _attempt(order, task, services, objects, send, isolated)
        sys.stdout.flush()  # the log is complete when the result is announced
        sys.stderr.flush()
        send(done)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
        send(Failed(fault_of(error, task)))
    finally:
        if work_dir.exists():
            shutil.rmtree(work_dir, ignore_errors=True)


def _attempt(
    order: Order,
    task: Task,
    services: EngineServices,
    objects: Objects,
    send: Callable[[Reply], None],
    isolated: bool,
) -> Done:
    _seed(task.options.seed)
    guard = Guard(order.declared, [order.work_dir, str(services.state)], task.options.env)
    secrets = revealed(services, task.options.secrets)
    context = StepContext(
        services,
        task,
        order.run_id,
        order.attempt,
        Path(order.work_dir),
        secrets,
        lambda name, value, step, at: send(Measured(name, value, step, at)),
        lambda done, total: send(Moved(done, total)),
        lambda text: send(Noted(text)),
        guard.undeclared,
        order.forced,
    )
    arguments = _arguments(order, task, objects)
    if not isolated:
        arguments = copy.deepcopy(arguments)  # a step may change what it is handed, and others are handed it too
    with entered(context), watching(guard, stays=isolated):
        value = task.function(**arguments)
    guard.named(order.named)
    if order.crowded:
        send(Computed())
    _check(value, task)
    store = cast(Objects, Screened(objects, secrets, task.title or task.name)) if secrets else objects
    return Done(save(value, store, task.function), guard.undeclared())


def _arguments(order: Order, task: Task, objects: Objects) -> dict[str, object]:
    wanted = annotations_of(task.function)
    place = Path(order.work_dir, "inputs")
    arguments = dict(task.params)
    for name, stored in order.inputs.items():
        arguments[name] = load(stored, objects, wanted.get(name), place / name)
    if task.over is not None:
        if order.item_input is not None:
            item = load(order.item_input, objects, wanted.get(task.over), place / task.over)
        else:
            item = pickle.loads(order.item or b"")  # made by the driver that started this process
        arguments[task.over] = item
    return arguments


def _seed(seed: int | None) -> None:
    if seed is None:
        return
    random.seed(seed)
    if "numpy" in sys.modules or importlib_util.find_spec("numpy") is not None:
        np.random.seed(seed % 2**32)


# -- what a function may return ---------------------------------------------------------------------------------------


def _check(value: object, task: Task) -> None:
    """Hold a result against the return annotation.

    Raises:
        UserCodeError: MS-2025, it is something else.
    """
    wanted = annotations_of(task.function).get("return", typing.Any)
    if not fits(value, wanted):
        raise UserCodeError(
            f"{task.title or task.name} returned {_kind(value)}, not {spell_type(wanted)}",
            code="MS-2025",
            why="its annotation says what it returns, and the steps after it rely on that",
            origin=place_of(task),
            fix="return what the annotation says, or change the annotation",
        )


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__


# -- errors as data ---------------------------------------------------------------------------------------------------


def fault_of(error: BaseException, task: Task) -> Fault:
    """An exception as plain data, with the line of the user's file that it came from."""
    text = "".join(traceback.format_exception(error))
    place = _origin(error) or place_of(task)
    if isinstance(error, MainspringError):
        kind = next(base.__name__ for base in type(error).__mro__ if base.__module__ == MainspringError.__module__)
        return Fault(kind, error.what, error.code, error.why, error.origin or place, error.fix, text)
    title = task.title or task.name
    if isinstance(error, MemoryError):
        return Fault("UserCodeError", f"{title} ran out of memory", "MS-2026", str(error), place, _LESS_MEMORY, text)
    if isinstance(error, SystemExit):
        return Fault("UserCodeError", f"{title} called sys.exit({error.code!r})", "MS-2027", "", place, _RETURN, text)
    why = f"{type(error).__name__}: {error}".rstrip(": ")
    fix = f"mend that line; mainspring logs {task.name} shows what was printed"
    return Fault("UserCodeError", f"{title} failed", "MS-2028", why, place, fix, text)


_LESS_MEMORY = "give it less data at once, or a machine with more memory"
_RETURN = "return from the function, or raise an exception"


def _origin(error: BaseException) -> str:
    """The innermost line outside the package, Python and its libraries; empty when there is none."""
    found = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if is_users(frame.filename):
            found = f"{os.path.basename(frame.filename)}:{frame.lineno}"
    return found
