"""Which installed distribution a module belongs to, and what that one requires."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import re
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

__all__ = ["distributions_of", "is_project_module", "top_level_file"]

_NAME = re.compile(r"[A-Za-z0-9._-]+")
_INSTALLED = tuple(
    {str(Path(sysconfig.get_path(name)).resolve()) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)


@functools.cache
def top_level_file(name: str) -> str | None:
    """The file or folder of a top-level module, without importing it; None for built-in and unknown ones."""
    module = sys.modules.get(name)
    if module is not None:
        return _file(module)
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.origin not in (None, "built-in", "frozen"):
        return spec.origin
    return next(iter(spec.submodule_search_locations or ()), None)


def _file(module: ModuleType) -> str | None:
    file = getattr(module, "__file__", None)
    return file if file is not None else next(iter(getattr(module, "__path__", ())), None)


@functools.cache
def is_project_module(name: str) -> bool:
    """Whether a module is the user's own: outside the standard library and site-packages, and not Mainspring."""
    top = name.partition(".")[0]
    if top == "mainspring" or top in sys.stdlib_module_names:
        return False
    file = top_level_file(top)
    if file is None:
        return top == "__main__"
    resolved = str(Path(file).resolve())
    return not any(resolved.startswith(folder + "/") for folder in _INSTALLED)


@functools.cache
def _owners() -> dict[str, list[str]]:
    return {name: sorted(set(owners)) for name, owners in importlib.metadata.packages_distributions().items()}


@functools.cache
def distributions_of(top: str) -> tuple[str, ...]:
    """``name==version`` of the distributions that own a top-level module, and of all they require, sorted."""
    if top in sys.stdlib_module_names:
        return ()
    if top == "mainspring":  # its version stands for its code; what it requires is not what the step reaches
        return (f"mainspring=={_version(top)}",)
    found: dict[str, str] = {}
    waiting = [top] if _version(top) else list(_owners().get(top, ()))
    while waiting:
        name = _normal(waiting.pop())
        version = None if name in found else _version(name)
        if version is not None:
            found[name] = version
            waiting += _requirements(name)
    return tuple(sorted(f"{name}=={version}" for name, version in found.items()))


@functools.cache
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _requirements(name: str) -> list[str]:
    found = []
    for line in importlib.metadata.requires(name) or ():
        requirement, _, marker = line.partition(";")
        if "extra" not in marker and (match := _NAME.match(requirement.strip())):
            found.append(match[0])
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
