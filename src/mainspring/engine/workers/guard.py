"""What a step reads without saying so: files, environment variables, the network, programs.

Python announces what it opens to audit hooks, and `os.environ` is watched; native readers announce nothing, so those
that are known are wrapped (`mainspring.engine.workers.natives`), and for the others a file counts as read when the
step's code names it. An undeclared read does no harm to the result, but nobody can know when it changes, so the result
is not kept for another run.
"""

from __future__ import annotations

import functools
import importlib
import os
import site
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, ModuleType
from typing import Any

from mainspring.engine.workers.natives import Natives, probing

__all__ = ["Guard", "libraries", "prepare", "watching"]

_ROOM = os.path.dirname(os.path.abspath(__file__)) + os.sep
_PACKAGE = os.path.dirname(os.path.dirname(os.path.dirname(_ROOM))) + os.sep
# A `File` reads on behalf of who calls it; the rest of the package answers for itself.
_ON_BEHALF = (_PACKAGE + "declare" + os.sep, _PACKAGE + "lazy.py")
_SELF = (_ROOM + "guard.py", _ROOM + "natives.py")
_SYSTEM = ("/proc/", "/sys/", "/dev/", "/etc/", "/usr/", "/lib/", "/lib64/", "/bin/", "/run/")
_CODE = (".py", ".pyc", ".pyi", ".so", ".pth")
_ENVIRONMENT = ("environ", "environb", "getenv", "getenvb", "expandvars", "expanduser", "home")
# What is imported, and what is installed: both look through sys.path, and the key knows what they find.
_IMPORTS = ("<frozen importlib", os.path.join(os.path.dirname(importlib.__file__), "metadata"))


@functools.cache
def libraries() -> tuple[str, ...]:
    """The folders of Python and its libraries; found once, before workers are forked."""
    roots = {sys.prefix, sys.base_prefix, sys.exec_prefix, *sysconfig.get_paths().values(), *site.getsitepackages()}
    roots |= {path for path in sys.path if os.path.basename(path) == "site-packages"}  # an image's, by PYTHONPATH
    return tuple(sorted({os.path.abspath(root) + os.sep for root in roots}))


class Guard:
    """Collects what one attempt reads.

    Args:
        declared: files and folders that are inputs of the step, as absolute paths.
        own: folders that belong to the attempt or to the engine.
        env: the environment variables that the step declares.
    """

    def __init__(self, declared: Iterable[str], own: Iterable[str], env: Iterable[str]) -> None:
        self._allowed = [*libraries(), *_SYSTEM, *(os.path.abspath(folder) + os.sep for folder in own)]
        self._declared = {os.path.abspath(path) for path in declared}
        self._written: set[str] = set()
        self._env = frozenset(env)
        self._found: dict[str, None] = {}
        self._classes: dict[str, str] = {}
        self._busy = False

    def undeclared(self) -> tuple[str, ...]:
        """What was read undeclared, each with the line that did it, in order."""
        return tuple(self._found)

    # -- events ---------------------------------------------------------------------------------------------------

    def opened(self, path: object, mode: object, flags: object) -> None:
        """A file was opened."""
        name = _path_text(path)
        if name is None:
            return
        reads, writes = _directions(mode, flags)
        if writes and not reads:
            self._written.add(name)
        elif self._is_foreign(name):
            self._note("reads", name, direct=False)
            if writes:
                self._written.add(name)

    def given(self, text: str) -> None:
        """A native reader was given the name of a file, or an address."""
        if "://" in text and not text.startswith("file://"):
            self._note("reads", text, direct=False)
        else:
            self.opened(text.removeprefix("file://"), "r", 0)

    def looked(self, path: str, caller: FrameType) -> None:
        """It was asked for whether, or since when, a file is there; what libraries ask for is their own business."""
        name = os.path.abspath(path)
        if self._class_of(caller.f_code.co_filename) == "project" and self._is_foreign(name):
            self._note("looks at", name, direct=True)

    def named(self, files: Mapping[str, str]) -> None:
        """The step's code holds the names of these files (with the line); it may have read them by native code."""
        for name, place in files.items():
            if self._is_foreign(name) and not any(f" {name} at " in found for found in self._found):
                self._found[f"may read {name}, which is named at {place}"] = None

    def listed(self, path: object) -> None:
        """A folder was listed."""
        name = _path_text(path if path is not None else ".")
        if name is not None and self._is_foreign(name):
            self._note("lists", name, direct=False)

    def made(self, path: object) -> None:
        """A folder was made: what is in it is the step's own."""
        name = _path_text(path)
        if name is not None:
            self._allowed.append(name + os.sep)

    def connected(self, address: object) -> None:
        """A socket was connected."""
        where = ":".join(map(str, address[:2])) if isinstance(address, tuple) else str(address)
        self._note("connects to", where, direct=False)

    def started(self, program: object) -> None:
        """A program was started."""
        self._note("runs", os.path.basename(_path_text(program) or str(program)), direct=True)

    def environment(self, name: object) -> None:
        """A variable was read; native code that is called reads some too, so the line must speak of the environment."""
        if name not in self._env:
            self._note("reads environment variable", str(name), direct=True, mentions=_ENVIRONMENT)

    # -- judging --------------------------------------------------------------------------------------------------

    def _is_foreign(self, name: str) -> bool:
        if name in self._written or name.endswith(_CODE) or f"{os.sep}__pycache__{os.sep}" in name:
            return False
        if name in self._declared or any(name.startswith(path + os.sep) for path in self._declared):
            return False
        folder = name + os.sep
        return not any(folder.startswith(root) for root in self._allowed)

    def _note(self, verb: str, what: str, *, direct: bool, mentions: tuple[str, ...] = ()) -> None:
        if self._busy:
            return
        self._busy = True
        try:
            place = self._place(direct, mentions)
            if place:
                self._found[f"{verb} {what} at {place}"] = None
        finally:
            self._busy = False

    def _place(self, direct: bool, mentions: tuple[str, ...]) -> str:
        """The line of the project that does it; empty when a library (if `direct`) or the engine does."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            if frame.f_code.co_filename.startswith(_IMPORTS):
                return ""
            kind = self._class_of(frame.f_code.co_filename)
            if kind == "project":
                if mentions and not _speaks_of(frame, mentions):
                    return ""
                return f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}"
            if kind == "ours" or (direct and kind in ("library", "on behalf")):
                return ""
            frame = frame.f_back
        return ""

    def _class_of(self, file: str) -> str:
        known = self._classes.get(file)
        if known is None:
            known = self._classes[file] = self._classify(file)
        return known

    def _classify(self, file: str) -> str:
        if file.startswith("<"):
            return "stdlib"
        full = os.path.abspath(file)
        if full in _SELF:
            return "stdlib"
        if full.startswith(_PACKAGE):
            return "on behalf" if full.startswith(_ON_BEHALF) else "ours"
        if full.startswith(libraries()):
            return "library" if "site-packages" in full or "dist-packages" in full else "stdlib"
        return "project"


def _speaks_of(frame: FrameType, names: tuple[str, ...]) -> bool:
    """Whether a function's code uses one of these names, or a global that stands for the environment."""
    used = frame.f_code.co_names
    values = [frame.f_globals[name] for name in used if name in frame.f_globals]
    return any(name in used for name in names) or any(value is os.environ or value is os.getenv for value in values)


def _path_text(path: object) -> str | None:
    if isinstance(path, bytes):
        path = os.fsdecode(path)
    if isinstance(path, os.PathLike):
        path = os.fspath(path)
    return os.path.abspath(path) if isinstance(path, str) else None


def _directions(mode: object, flags: object) -> tuple[bool, bool]:
    """Whether an open file is read, and whether it is written."""
    if isinstance(mode, str):
        return "r" in mode or "+" in mode, bool(set(mode) & set("wax+"))
    access = flags & os.O_ACCMODE if isinstance(flags, int) else os.O_RDONLY
    return access in (os.O_RDONLY, os.O_RDWR), access in (os.O_WRONLY, os.O_RDWR)


# -- the process's one hook -------------------------------------------------------------------------------------------

_EVENTS: dict[str, Callable[[Guard, tuple[Any, ...]], None]] = {
    "open": lambda guard, args: guard.opened(*args),
    "os.listdir": lambda guard, args: guard.listed(args[0]),
    "os.scandir": lambda guard, args: guard.listed(args[0]),
    "os.mkdir": lambda guard, args: guard.made(args[0]),
    "sqlite3.connect": lambda guard, args: guard.opened(args[0], "r", 0),
    "socket.connect": lambda guard, args: guard.connected(args[1]),
    "subprocess.Popen": lambda guard, args: guard.started(args[0]),
}
_active: list[Guard] = []
_hooked: list[bool] = []


def _hook(event: str, args: tuple[Any, ...]) -> None:
    handle = _EVENTS.get(event)
    if handle is not None and _active and not probing:
        handle(_active[-1], args)


class _Watched(type(os.environ)):  # type: ignore[misc]
    """`os.environ` that tells what is read; all who hold the mapping see through it."""

    def __getitem__(self, key: str) -> str:
        if _active:
            _active[-1].environment(key)
        return str(super().__getitem__(key))

    def __iter__(self) -> Iterator[str]:
        if _active:
            _active[-1].environment("(all)")
        return super().__iter__()  # type: ignore[no-any-return]


def _read(text: str) -> None:
    if _active:
        _active[-1].given(text)


def _looked(text: str) -> None:
    if _active:
        _active[-1].looked(text, sys._getframe(2))


@functools.lru_cache(maxsize=4096)
def _is_project_file(file: str) -> bool:
    full = os.path.abspath(file)
    return not full.startswith((_PACKAGE, *libraries()))


def _is_project(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and _is_project_file(file)


_natives = Natives(_read, _looked, _is_project)


def prepare() -> None:
    """Wrap native readers before workers are forked, so that none of them has to; they stay wrapped."""
    _natives.wrap()


@contextmanager
def watching(guard: Guard, *, stays: bool) -> Iterator[Guard]:
    """Collect what this process reads during a block.

    Args:
        guard: where to.
        stays: native readers stay wrapped for the rest of the process's life: for workers, which end soon.
    """
    if not _hooked:
        sys.addaudithook(_hook)
        _hooked.append(True)
    _natives.wrap()
    plain = type(os.environ)
    os.environ.__class__ = _Watched
    _active.append(guard)
    try:
        yield guard
    finally:
        _active.remove(guard)
        os.environ.__class__ = plain
        if not stays and not _active:
            _natives.unwrap()
