"""The chosen adapters, opened at their first use."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import cast

import msgspec

from mainspring.choose.decide import Decision, decide
from mainspring.choose.discover import adapters, is_installed, named_object, part_of
from mainspring.config.settings import Settings, load_settings, reveal
from mainspring.errors import ConfigError
from mainspring.ports.adapter import Adapter
from mainspring.ports.catalog import Catalog
from mainspring.ports.converter import Converter
from mainspring.ports.objects import Objects
from mainspring.ports.online import OnlineStore
from mainspring.ports.runtime import ModelRuntime, Predictor, read_card
from mainspring.ports.tables import TableStore

__all__ = ["STORES", "Services", "ServicesSpec", "adapter_settings"]

STATE = ".mainspring"
STORES = ("catalog", "objects", "tables", "online")
"""The ports behind which things are kept."""


@dataclass(frozen=True, slots=True)
class ServicesSpec:
    """What another process needs to open the same services."""

    project: str
    profile: str
    flags: Mapping[str, object]


class Services:
    """One project under one profile: its settings and its ports, each opened when first read.

    A port that was opened before a fork is opened anew in the child.

    Args:
        settings: the settings of the active profile.
        flags: the settings given on the command line, for other processes to repeat.
    """

    def __init__(self, settings: Settings, flags: Mapping[str, object] = MappingProxyType({})) -> None:
        self.settings = settings
        self.project = settings.project
        self.state = settings.project / STATE
        self._flags = dict(flags)
        self._opened: dict[tuple[int, str], object] = {}

    @classmethod
    def of_project(
        cls, project: Path, *, profile: str | None = None, flags: Mapping[str, object] = MappingProxyType({})
    ) -> Services:
        """The services of a project's folder, with this process's environment."""
        return cls(load_settings(project, profile=profile, environment=os.environ, flags=flags), flags)

    @classmethod
    def from_spec(cls, spec: ServicesSpec) -> Services:
        """The same services in another process."""
        return cls.of_project(Path(spec.project), profile=spec.profile, flags=spec.flags)

    def spec(self) -> ServicesSpec:
        """What another process needs to open the same services."""
        return ServicesSpec(str(self.project), self.settings.profile, self._flags)

    @property
    def catalog(self) -> Catalog:
        """The metadata store."""
        return cast(Catalog, self.get("catalog"))

    @property
    def objects(self) -> Objects:
        """The content-addressed blobs."""
        return cast(Objects, self.get("objects"))

    @property
    def tables(self) -> TableStore:
        """The offline tables."""
        return cast(TableStore, self.get("tables"))

    @property
    def online(self) -> OnlineStore:
        """The online store."""
        return cast(OnlineStore, self.get("online"))

    @property
    def converter(self) -> Converter | None:
        """The converter, or None when none is installed."""
        found = self._usable("converter")
        return cast(Converter, self._open(found[0])) if found else None

    def predictor(self, folder: Path) -> Predictor:
        """Load the model of a folder with the runtime that reads its format.

        Raises:
            ConfigError: MS-3018, no installed runtime reads the format.
            StoreError: MS-4150; RefusedError: MS-5030, as the runtime raises.
        """
        card = read_card(folder)
        for adapter in self._usable("runtime"):
            if card.format in cast("tuple[str, ...]", adapter.capabilities["formats"]):
                return cast(ModelRuntime, self._open(adapter)).load(folder, card)
        raise ConfigError(
            f"no installed runtime reads {card.format} models",
            code="MS-3018",
            why=f"model {card.model!r} is stored as {card.format}",
            fix="mainspring conditions runtime",
        )

    def _usable(self, port: str) -> list[Adapter]:
        usable = [a for a in adapters() if a.port == port and all(is_installed(module) for module in a.modules)]
        return sorted(usable, key=lambda adapter: (adapter.order, adapter.name))

    def decision(self, port: str) -> Decision:
        """Which adapter serves a port, and why.

        Raises:
            ConfigError: MS-3010 to MS-3013, as `decide`.
        """
        return decide(port, adapters(), self.settings, is_installed)

    def health(self, port: str) -> Mapping[str, object]:
        """What the chosen adapter's ``health.py`` finds when it asks the opened port.

        Raises:
            MainspringError: the port does not answer, or cannot be opened.
        """
        ask = cast(
            "Callable[[object], Mapping[str, object]]",
            named_object(part_of(self.decision(port).chosen, "health:health")),
        )
        return ask(self.get(port))

    def get(self, port: str) -> object:
        """The opened port.

        Raises:
            ConfigError: MS-3010 to MS-3014.
            ServiceError: as the adapter raises when it cannot open.
        """
        key = (os.getpid(), port)
        if key not in self._opened:
            self._opened[key] = self._open(self.decision(port).chosen)
        return self._opened[key]

    def _open(self, adapter: Adapter) -> object:
        key = (os.getpid(), f"{adapter.port}.{adapter.name}")
        if key not in self._opened:
            opening = cast("Callable[[object, Path], object]", named_object(adapter.factory))
            settings = adapter_settings(adapter.port, adapter.settings, self.settings)
            self._opened[key] = opening(settings, self.state)
        return self._opened[key]

    def close(self) -> None:
        """Close what this process opened."""
        mine = {id(opened): opened for (pid, _), opened in self._opened.items() if pid == os.getpid()}
        for opened in mine.values():
            if hasattr(opened, "close"):
                opened.close()
        self._opened.clear()


def adapter_settings(port: str, kind: str, settings: Settings) -> object:
    """The settings of a chosen adapter, from the port's section.

    Raises:
        ConfigError: MS-3014, a key is unknown to the adapter or has the wrong type.
    """
    section = settings.section(port)
    section.pop("adapter", None)
    struct = cast("type[msgspec.Struct]", named_object(kind))
    known = set(struct.__struct_fields__)
    for key, setting in section.items():
        if key not in known:
            raise ConfigError(
                f"setting {setting.key!r} is unknown to the adapter",
                code="MS-3014",
                origin=setting.origin,
                fix=f"it knows {', '.join(sorted(known)) or 'none'}",
            )
    values = {key: reveal(item, settings.project) if item.secret else item.value for key, item in section.items()}
    try:
        return msgspec.convert(values, struct, strict=False)
    except msgspec.ValidationError as error:
        origins = ", ".join(sorted({item.origin for item in section.values()}))
        raise ConfigError(
            f"the settings of {port} do not fit its adapter", code="MS-3014", why=str(error), origin=origins
        ) from error
