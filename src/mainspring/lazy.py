"""The registered lazy loaders: heavy libraries are imported at their first use, never at the import of a module."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["lazy"]


class _LazyModule(ModuleType):
    def __getattr__(self, name: str) -> object:
        module = importlib.import_module(self.__name__)
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
