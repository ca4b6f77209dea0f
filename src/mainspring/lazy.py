"""The registered lazy loaders: heavy libraries are imported at their first use, never at the import of a module."""

from __future__ import annotations

import importlib
import sys
from _thread import get_ident
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

__all__ = ["imported", "lazy"]


class _LazyModule(ModuleType):
    def __getattr__(self, name: str) -> object:
        module = importlib.import_module(self.__name__)
        if self.__name__.startswith("pyarrow"):
            _PANDAS.leave_out()
        self.__dict__.update((key, value) for key, value in module.__dict__.items() if not key.startswith("__"))
        return getattr(module, name)


def lazy(name: str) -> ModuleType:
    """A stand-in for module `name` that imports it when an attribute is first read.

    Use it under a type-checker's guard, so that names keep their types::

        if TYPE_CHECKING:
            import pyarrow as pa
        else:
            pa = lazy("pyarrow")

    Raises:
        ModuleNotFoundError: at the first use, when the library is not installed.
    """
    return _LazyModule(name)


def imported(name: str) -> bool:
    """Import a library that is going to be used; False when that fails, which whoever uses it is told again."""
    try:
        importlib.import_module(name)
    except Exception:
        return False
    return True


class _Pandas:
    """Keeps Arrow from importing pandas, which takes half a second of each process, before anybody else does.

    Arrow imports it once, at the first ``pa.array`` of anything, to see whether it was given something of pandas; there
    is nothing of pandas before pandas is imported. So that one time it finds none, and it looks again afterwards.
    """

    def __init__(self) -> None:
        self._asking: int | None = None
        self._arrow: Any = None

    def leave_out(self) -> None:
        """Let Arrow look for pandas now, and find none, unless it is imported already; does something once."""
        arrow = getattr(sys.modules.get("pyarrow.lib"), "_pandas_api", None)
        if arrow is None or self._arrow is not None or "pandas" in sys.modules:
            return
        self._arrow, self._asking = arrow, get_ident()
        sys.meta_path.insert(0, self)
        try:
            _ = arrow.have_pandas
        finally:
            self._asking = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Nothing while Arrow looks; afterwards pandas itself, of whose import Arrow is told."""
        if fullname != "pandas":
            return None
        if self._asking == get_ident():
            raise ModuleNotFoundError("pandas is left out", name=fullname)
        spec = PathFinder.find_spec(fullname, path, target)
        loader = None if spec is None else spec.loader
        if loader is None:
            return None
        execute = loader.exec_module

        def execute_and_tell(module: ModuleType) -> None:
            self._arrow.__init__()  # as it was before it looked: it looks again when it is next given something
            execute(module)

        loader.exec_module = execute_and_tell  # type: ignore[method-assign]
        return spec


_PANDAS = _Pandas()
