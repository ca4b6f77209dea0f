"""Readers that announce nothing to Python's audit hooks, wrapped so that they tell which files they are given.

Functions are replaced where they are defined and where modules of the project have bound them by name
(``from polars import read_parquet``); classes and methods are changed in place. Which arguments are files is told by
the kind of the reader: a path, or SQL whose quoted texts name files.
"""

from __future__ import annotations

import functools
import glob
import importlib.abc
import importlib.machinery
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, TypeAlias

__all__ = ["Natives", "names_file", "probing"]

Tell: TypeAlias = Callable[[str], None]
Undo: TypeAlias = Callable[[], None]

_DUCK = ("", "DuckDBPyConnection.")
_QUERIES = ("execute", "executemany", "sql", "query", "from_query")
_PATHS = {
    "polars": (
        *("read_csv", "read_csv_batched", "read_parquet", "read_parquet_schema", "read_parquet_metadata", "read_ipc"),
        *("read_ipc_schema", "read_ipc_stream", "read_json", "read_ndjson", "read_avro", "read_excel", "read_ods"),
        *("read_delta", "scan_csv", "scan_parquet", "scan_ipc", "scan_ndjson", "scan_delta", "scan_iceberg"),
        *("read_lines", "scan_lines"),
    ),
    "pandas": ("read_parquet", "read_feather", "read_orc"),
    "pyarrow": ("memory_map",),
    "pyarrow.parquet": (
        *("read_table", "read_pandas", "read_schema", "read_metadata"),
        *("ParquetFile.__init__", "ParquetDataset.__init__"),
    ),
    "pyarrow.csv": ("read_csv", "open_csv"),
    "pyarrow.json": ("read_json", "open_json"),
    "pyarrow.feather": ("read_table", "read_feather"),
    "pyarrow.orc": ("read_table", "ORCFile.__init__"),
    "pyarrow.ipc": ("open_file", "open_stream"),
    "pyarrow.dataset": ("dataset", "parquet_dataset"),
    "duckdb": (
        "connect",
        *(owner + name for owner in _DUCK for name in ("read_csv", "read_parquet", "read_json")),
        *(owner + name for owner in _DUCK for name in ("from_csv_auto", "from_parquet")),
    ),
    "deltalake": ("DeltaTable.__init__",),
    "lightgbm": ("Dataset.__init__", "Booster.__init__"),
    "xgboost": ("DMatrix.__init__", "Booster.load_model"),
    "catboost": ("Pool.__init__", "CatBoost.load_model"),
    "h5py": ("File.__init__",),
    "onnxruntime": ("InferenceSession.__init__",),
}
_SQL = {
    "duckdb": tuple(owner + name for owner in _DUCK for name in _QUERIES),
    "polars": ("sql",),
}
_LOOKS = {
    "posixpath": ("exists", "lexists", "isfile", "getsize", "getmtime", "getctime", "getatime"),
    "pathlib": ("Path.exists", "Path.is_file", "Path.stat"),
}
"""What only looks whether a file is there, or how large or old it is."""

_QUOTED = re.compile(r"'([^'\n]{1,1000})'|\"([^\"\n]{1,1000})\"")
_STAT = os.stat
probing: list[str] = []
"""The patterns that are being looked for; that folders are listed for them is no reading of the step's."""


def _quoted_texts(text: str) -> list[str]:
    """The quoted texts in a piece of SQL."""
    return [one or two for one, two in _QUOTED.findall(text)]


def names_file(text: str) -> bool:
    """Whether a text names a file or folder that is there, or is a pattern that fits some, or a web address."""
    if not 0 < len(text) < 1024 or "\0" in text:
        return False
    if "://" in text:
        return bool(re.match(r"[a-z][a-z0-9+]*://\S+$", text))
    if any(sign in text for sign in "*?["):
        probing.append(text)
        try:
            return next(glob.iglob(text, recursive=True), None) is not None
        finally:
            probing.pop()
    try:
        _STAT(text)
    except OSError:
        return False
    return True


def _text(value: object) -> str | None:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    return value if isinstance(value, str) else None


def _flat(value: object) -> Iterator[str]:
    for one in value if isinstance(value, list | tuple | set) else [value]:
        text = _text(one)
        if text:
            yield text


def _given_paths(args: Sequence[object], kwargs: Mapping[str, object]) -> Iterator[str]:
    """The first argument, whatever it names; of the named ones, those that name something that is there."""
    if args:
        yield from (text for text in _flat(args[0]) if not text.startswith(":"))
    for value in kwargs.values():
        yield from filter(names_file, _flat(value))


def _given_sql(args: Sequence[object], kwargs: Mapping[str, object]) -> Iterator[str]:
    """The files that the text of a query, or one of its parameters, names."""
    for value in (*args, *kwargs.values()):
        for part in value.values() if isinstance(value, dict) else [value]:
            for text in _flat(part):
                yield from filter(names_file, [text, *_quoted_texts(text)])


def _given_self(args: Sequence[object], kwargs: Mapping[str, object]) -> Iterator[str]:
    """What a method of a path is called on."""
    yield from _flat(args[0])


_Given: TypeAlias = Callable[[Sequence[object], Mapping[str, object]], Iterable[str]]
_TABLE: dict[str, list[tuple[str, _Given, bool]]] = {}
for _names, _given in ((_PATHS, _given_paths), (_SQL, _given_sql)):
    for _module, _members in _names.items():
        _TABLE.setdefault(_module, []).extend((_member, _given, False) for _member in _members)
for _module, _members in _LOOKS.items():
    _TABLE[_module] = [(_member, _given_self if "." in _member else _given_paths, True) for _member in _members]


class Natives:
    """Wraps the readers of the modules that are loaded, and of those that are imported later.

    Args:
        read: told each file that a reader is given.
        looked: told each file that is looked at.
        is_project: whether a module is the project's own.
    """

    def __init__(self, read: Tell, looked: Tell, is_project: Callable[[ModuleType], bool]) -> None:
        self._read = read
        self._looked = looked
        self._is_project = is_project
        self._finder = _AfterImport(self._wrap)
        self._undo: list[Undo] = []
        self._wrapped: set[str] = set()

    def wrap(self) -> None:
        """Wrap what is not wrapped yet."""
        bound: dict[int, tuple[object, object]] = {}
        for name in (_TABLE.keys() & sys.modules.keys()) - self._wrapped:
            bound |= self._wrap(sys.modules[name])
        if bound:
            self._rebind(bound)
        if self._finder not in sys.meta_path:
            sys.meta_path.insert(0, self._finder)

    def unwrap(self) -> None:
        """Undo all."""
        while self._undo:
            self._undo.pop()()
        self._wrapped.clear()
        sys.meta_path.remove(self._finder)

    def _wrap(self, module: ModuleType) -> dict[int, tuple[object, object]]:
        """Wrap a module's readers; the functions that were replaced, by identity."""
        self._wrapped.add(module.__name__)
        replaced: dict[int, tuple[object, object]] = {}
        for member, given, looks in _TABLE[module.__name__]:
            path, _, name = member.rpartition(".")
            owner = getattr(module, path, None) if path else module
            function = getattr(owner, name, None)
            if owner is None or function is None or (isinstance(function, type) and not path):
                continue
            wrapped = _wrapped(function, given, self._looked if looks else self._read, method=bool(path))
            if self._set(owner, name, wrapped) and not path:
                replaced[id(function)] = (function, wrapped)
        return replaced

    def _set(self, owner: Any, name: str, value: object) -> bool:
        own = vars(owner).get(name)
        try:
            setattr(owner, name, value)
        except (AttributeError, TypeError):  # a class of native code that cannot be changed
            return False
        back = functools.partial(delattr, owner, name) if own is None else functools.partial(setattr, owner, name, own)
        self._undo.append(back)
        return True

    def _rebind(self, bound: Mapping[int, tuple[object, object]]) -> None:
        """Replace functions where modules of the project have bound them by name."""
        for module in list(sys.modules.values()):
            if not isinstance(module, ModuleType) or not self._is_project(module):
                continue
            for name, value in list(vars(module).items()):
                if id(value) in bound and bound[id(value)][0] is value:
                    self._set(module, name, bound[id(value)][1])


def _wrapped(function: Callable[..., Any], given: _Given, tell: Tell, *, method: bool) -> Callable[..., Any]:
    skipped = 1 if method and given is not _given_self else 0

    @functools.wraps(function, updated=())
    def reading(*args: Any, **kwargs: Any) -> Any:
        for text in given(args[skipped:], kwargs):
            tell(text)
        return function(*args, **kwargs)

    return reading


class _AfterImport(importlib.abc.MetaPathFinder):
    """Wraps the readers of a module that the step imports itself."""

    def __init__(self, wrap: Callable[[ModuleType], object]) -> None:
        self._wrap = wrap

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _TABLE:
            return None
        others = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((found for found in others if found is not None), None)
        loader = None if spec is None else spec.loader
        if loader is None:
            return None
        execute = loader.exec_module

        def execute_and_wrap(module: ModuleType) -> None:
            execute(module)
            self._wrap(module)

        loader.exec_module = execute_and_wrap  # type: ignore[method-assign]
        return spec
