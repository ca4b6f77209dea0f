"""Names for functions and classes, to find them again in another process."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, cast

from mainspring.declare.declaration import Declaration, spec_of
from mainspring.engine.task import Task
from mainspring.errors import UserCodeError

__all__ = [
    "annotations_of",
    "callable_named",
    "dereference",
    "is_users",
    "module_name",
    "origin_of_code",
    "place_of",
    "reference",
    "unwrapped",
]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def module_name(module: str) -> str:
    """The name a module is imported by; `__main__` has one too, after its file or its ``-m`` name."""
    if module != "__main__":
        return module
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name).removesuffix(".__main__")
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else module


@functools.lru_cache(maxsize=4096)
def reference(target: Any) -> str:
    """``module:qualname`` of a function or class."""
    return f"{module_name(target.__module__)}:{target.__qualname__}"


def unwrapped(found: object) -> object:
    """The function behind a declaration of ours; anything else as it is."""
    while isinstance(found, Declaration):
        found = getattr(spec_of(found), "function", None)
    return found


def dereference(name: str, file: str = "") -> object:
    """What `reference` named, importing its module; declarations are seen through.

    Args:
        name: ``module:qualname``.
        file: the module's file, for a module that was not imported by its name: a test, a script.

    Raises:
        UserCodeError: MS-2024, it is not there.
    """
    module, _, path = name.partition(":")
    try:
        found: object = _module(module, file)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, OSError) as error:
        raise UserCodeError(
            f"{name} cannot be found by a worker",
            code="MS-2024",
            why=str(error),
            fix="define it at the top level of a module of the project, not inside a function",
        ) from error
    return unwrapped(found)


def _module(name: str, file: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        spec = importlib.util.spec_from_file_location(name, file) if file else None
        if spec is None or spec.loader is None:
            raise
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.lru_cache(maxsize=4096)
def annotations_of(function: Callable[..., object]) -> Mapping[str, object]:
    """The annotations of a function as types; those that cannot be evaluated are left out."""
    plain = inspect.unwrap(function)
    found: dict[str, object] = {}
    for name, annotation in getattr(plain, "__annotations__", {}).items():
        # An annotation is any expression of the user's: it may name what only the type checker imports.
        with contextlib.suppress(Exception):
            text = isinstance(annotation, str)
            found[name] = eval(annotation, getattr(plain, "__globals__", {})) if text else annotation
    return MappingProxyType(found)


def origin_of_code(function: Callable[..., object]) -> str:
    """Where a function is written: ``flights.py:31``."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    return f"{Path(code.co_filename).name}:{code.co_firstlineno}" if code is not None else ""


def place_of(task: Task) -> str:
    """Where a task was declared, for errors that know no line of their own."""
    return task.origin or origin_of_code(task.function)


def is_users(file: str) -> bool:
    """Whether a source file is neither this package's nor Python's nor a library's."""
    full = os.path.abspath(file)
    return not (file.startswith("<") or full.startswith((_PACKAGE, sys.base_prefix + os.sep, sys.prefix + os.sep)))


def callable_named(name: str, file: str = "") -> Callable[..., object]:
    """`dereference` for functions.

    Raises:
        UserCodeError: MS-2024, it is not there or no function.
    """
    found = dereference(name, file)
    if not callable(found):
        raise UserCodeError(f"{name} is not a function", code="MS-2024", fix="declare the step again")
    return cast("Callable[..., object]", found)
