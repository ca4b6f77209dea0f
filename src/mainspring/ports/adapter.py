"""What an adapter says about itself before anything of it is imported but this value."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

__all__ = ["ENTRY_POINTS", "Adapter"]

ENTRY_POINTS = "mainspring.adapters"
"""The entry-point group that adapters come in by, our own too: ``"catalog.sqlite" = "package.module:ADAPTER"``."""


class Adapter(msgspec.Struct, frozen=True):
    """One technology behind one port; the value an adapter's light ``__init__`` exports.

    Attributes:
        port: the port it serves: ``catalog``, ``objects``, ``tables``, ``online``, ``runtime``.
        name: its name in settings and reports: ``sqlite``.
        factory: ``module:function``; called as ``function(settings, place)`` with the settings below and the
            app's state folder (a `pathlib.Path`), it returns the opened port.
        settings: ``module:Class`` of a `msgspec.Struct` with its settings; a ``url`` member takes the port's URL.
        embedded: whether it runs inside the process with nothing else installed; only such an adapter is a default.
        schemes: the URL schemes that configure it: ``("redis", "rediss")``.
        modules: what must be importable for it to work.
        extra: the extra of Mainspring, or the package, that installs those.
        order: rank among those that fit equally well; lower comes first, and a tie is an error.
        capabilities: what it can do, as data, so that plans choose and no code asks for its name.
    """

    port: str
    name: str
    factory: str
    settings: str
    embedded: bool = False
    schemes: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    extra: str = ""
    order: int = 100
    capabilities: Mapping[str, object] = msgspec.field(default_factory=lambda: MappingProxyType({}))
