"""The adapters that are installed, by the entry-point group; ours come in by the same door."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util

from mainspring.errors import ConfigError
from mainspring.ports.adapter import ENTRY_POINTS, Adapter

__all__ = ["adapters", "is_installed", "named_object", "part_of"]


@functools.cache
def adapters() -> tuple[Adapter, ...]:
    """Every adapter's description, by port and name; loads their light ``__init__`` and nothing else.

    Raises:
        ConfigError: MS-3013, an entry point does not lead to an `Adapter`.
    """
    found = []
    for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            value = point.load()
        except Exception as error:
            raise _broken(point, f"{type(error).__name__}: {error}") from error
        if not isinstance(value, Adapter):
            raise _broken(point, f"it is {type(value).__name__}, not an Adapter")
        found.append(value)
    return tuple(sorted(found, key=lambda item: (item.port, item.name)))


def _broken(point: importlib.metadata.EntryPoint, why: str) -> ConfigError:
    package = point.dist.name if point.dist is not None else point.value
    return ConfigError(
        f"adapter {point.name!r} cannot be loaded",
        code="MS-3013",
        why=why,
        origin=f"package {package}",
        fix=f"mend or uninstall {package}",
    )


def is_installed(module: str) -> bool:
    """Whether a module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def part_of(adapter: Adapter, name: str) -> str:
    """The reference of what a module beside the adapter's factory holds under the module's name: ``health:health``."""
    package = adapter.factory.partition(":")[0].rpartition(".")[0]
    return f"{package}.{name}"


def named_object(reference: str) -> object:
    """The object that ``module:name`` names, importing its module."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)
