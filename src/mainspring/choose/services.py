"""The chosen adapters, opened at their first use."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

import msgspec

from mainspring.choose.decide import SHARED, Decision, decide, serving
from mainspring.choose.discover import adapters, is_installed, named_object, part_of
from mainspring.config.settings import Setting, Settings, load_settings, reveal
from mainspring.declare.data import did_you_mean
from mainspring.errors import ConfigError, UsageError
from mainspring.lazy import lazy
from mainspring.ports.adapter import Adapter
from mainspring.ports.budgets import BudgetStore
from mainspring.ports.catalog import Catalog
from mainspring.ports.compute import Compute
from mainspring.ports.converter import Converter
from mainspring.ports.embedder import Embedder
from mainspring.ports.llm import Engine
from mainspring.ports.manifest import Manifest
from mainspring.ports.objects import Objects
from mainspring.ports.online import OnlineStore
from mainspring.ports.parser import Parser
from mainspring.ports.reranker import Reranker
from mainspring.ports.runtime import Card, ModelRuntime, Predictor, read_card
from mainspring.ports.tables import TableStore
from mainspring.ports.target import Target
from mainspring.ports.vector_store import VectorStore

if TYPE_CHECKING:
    from mainspring.choose import sharing
else:  # wanted by those that open an index only
    sharing = lazy("mainspring.choose.sharing")

__all__ = ["STORES", "Deployment", "Services", "ServicesSpec", "adapter_settings", "port_settings"]

STATE = ".mainspring"
STORES = ("catalog", "objects", "tables", "online")
"""The ports behind which things are kept."""


class ServicesSpec(msgspec.Struct, frozen=True):
    """What another process needs to open the same services."""

    project: str
    profile: str
    flags: Mapping[str, object]


class Deployment(msgspec.Struct, frozen=True):
    """A target, and the way to what it deploys to.

    Attributes:
        target: renders, compares and writes.
        adapter: which it is.
        settings: its settings.
        place: the app's state folder.
    """

    target: Target
    adapter: Adapter
    settings: object
    place: Path

    def client(self) -> object:
        """Open the other side.

        Raises:
            ConfigError: MS-3010, its library is not installed; as the adapter raises when there is no way to it.
        """
        needed = cast("tuple[str, ...]", self.adapter.capabilities["client_modules"])
        if missing := [module for module in needed if not is_installed(module)]:
            raise ConfigError(
                f"target {self.adapter.name!r} needs {missing[0]}",
                code="MS-3010",
                why="it is not installed",
                fix=f"pip install 'mainspring[{self.adapter.extra}]'",
            )
        opening = cast("Callable[[object, Path], object]", named_object(str(self.adapter.capabilities["client"])))
        return opening(self.settings, self.place)


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
        self.state = settings.project / (settings.text("state.folder") or STATE)
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
    def manifest(self) -> Manifest:
        """What indexes hold."""
        return cast(Manifest, self.get("manifest"))

    @property
    def vectors(self) -> VectorStore:
        """The vector store; an embedded one is shared by the processes of this machine."""
        if not isinstance(found := self.get("vectors"), sharing.SharedStore) and self._has_one_owner("vectors"):
            found = sharing.SharedStore(cast(VectorStore, found), self.state / "indexes")
            self._opened[os.getpid(), "vectors"] = found
        return cast(VectorStore, found)

    @property
    def embedder(self) -> Embedder:
        """What makes vectors of texts."""
        return cast(Embedder, self.get("embedder"))

    @property
    def parser(self) -> Parser:
        """What reads documents."""
        return cast(Parser, self.get("parser"))

    @property
    def reranker(self) -> Reranker | None:
        """What sorts hits, or None when none is configured."""
        return cast(Reranker, self.get("reranker")) if self.settings.section("reranker") else None

    @property
    def budgets(self) -> BudgetStore | None:
        """Where several servers count what is used together, or None when none is configured."""
        return cast(BudgetStore, self.get("budgets")) if self.settings.section("budgets") else None

    @property
    def compute(self) -> Compute | None:
        """Other machines for large pieces of work, or None when none are configured."""
        return cast(Compute, self.get("compute")) if self.settings.section("compute") else None

    @property
    def converter(self) -> Converter | None:
        """The converter, or None when none fits."""
        found = self.serving("converter")
        return cast(Converter, self._open(found[0])) if found else None

    def own_predictor(self, folder: Path) -> Predictor:
        """Load the model of a folder that a step of this project has made, and that may run code therefore.

        Raises:
            ConfigError, StoreError, RefusedError: as `predictor`.
        """
        return self.predictor(folder, vouched=read_card(folder).digest)

    def predictor(self, folder: Path, card: Card | None = None, *, vouched: str = "") -> Predictor:
        """Load the model of a folder with the runtime that reads its format.

        Args:
            folder: the model's folder.
            card: one of the `forms` of its card; the first one when left out.
            vouched: the digest that the catalog has recorded of a file that runs code; what the folder says of itself
                counts for nothing.

        Raises:
            ConfigError: MS-3018, no installed runtime reads the format.
            StoreError: MS-4150; RefusedError: MS-5030, MS-4341, as the runtime raises.
        """
        card = msgspec.structs.replace(card or read_card(folder), digest=vouched)
        for adapter in self.serving("runtime"):
            if card.format in cast("tuple[str, ...]", adapter.capabilities["formats"]):
                return cast(ModelRuntime, self._open(adapter)).load(folder, card)
        raise ConfigError(
            f"no installed runtime reads {card.format} models",
            code="MS-3018",
            why=f"model {card.model!r} is stored as {card.format}",
            fix="mainspring conditions runtime",
        )

    def serving(self, port: str) -> tuple[Adapter, ...]:
        """The adapters that serve a port: one, or every fitting one of a port that several serve at once.

        Raises:
            ConfigError: MS-3010 to MS-3013, as `decide`.
        """
        return serving(port, adapters(), self.settings, is_installed)

    def decision(self, port: str, section: str | None = None) -> Decision:
        """Which adapter serves a port, or the instance of it whose settings are in that section, and why.

        Raises:
            ConfigError: MS-3010 to MS-3013, as `decide`.
        """
        return decide(port, adapters(), self.settings, is_installed, section)

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

    def engine(self, name: str) -> Engine:
        """The engine of the language model of that name, whose settings are in ``[llms.NAME]``.

        Raises:
            ConfigError: MS-3010 to MS-3014, as `get`.
        """
        section = f"llms.{name}"
        key = (os.getpid(), section)
        if key not in self._opened:
            self._opened[key] = self._open(self.decision("llm", section).chosen, section)
        return cast(Engine, self._opened[key])

    def source(self, name: str) -> object:
        """What reads the source of that name, whose settings are in ``[sources.NAME]``.

        Returns:
            By the adapter's capability ``reads``: `Relations`, `Bucket` or `Messages` of `mainspring.ports.source`.

        Raises:
            ConfigError: MS-3010 to MS-3014, as `get`.
        """
        section = f"sources.{name}"
        return self._open(self.decision("source", section).chosen, section)

    def target(self, name: str) -> Deployment:
        """Where the app is deployed to, whose settings are in ``[targets.NAME]``; a target's own name needs none.

        Raises:
            ConfigError: MS-3010 to MS-3014, as `get`.
            UsageError: MS-2741, no target is called so.
        """
        section = f"targets.{name}"
        found = {adapter.name: adapter for adapter in adapters() if adapter.port == "target"}
        if self.settings.setting(f"{section}.adapter") is None and name in found:
            adapter = found[name]
        elif self.settings.section(section):
            adapter = self.decision("target", section).chosen
        else:
            known = sorted({*found, *(key.partition(".")[0] for key in self.settings.section("targets"))})
            raise UsageError(f"no target is called {name!r}", code="MS-2741", fix=did_you_mean(name, known))
        settings = adapter_settings(adapter, self.settings, section)
        opening = cast("Callable[[object, Path], Target]", named_object(adapter.factory))
        return Deployment(opening(settings, self.state), adapter, settings, self.state)

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

    def _open(self, adapter: Adapter, section: str | None = None) -> object:
        key = (os.getpid(), section or f"{adapter.port}.{adapter.name}")
        if key not in self._opened:
            opening = cast("Callable[[object, Path], object]", named_object(adapter.factory))
            settings = adapter_settings(adapter, self.settings, section)
            self._opened[key] = opening(settings, self.state)
        return self._opened[key]

    def _has_one_owner(self, port: str) -> bool:
        return self.decision(port).chosen.capabilities.get("writers") == "one"

    def close_port(self, port: str) -> None:
        """Close a port that this process opened; it is opened anew when it is read again."""
        keys = [key for key in self._opened if key[0] == os.getpid() and key[1].partition(".")[0] == port]
        for opened in {id(one): one for one in map(self._opened.pop, keys)}.values():
            if hasattr(opened, "close"):
                opened.close()

    def close(self) -> None:
        """Close what this process opened."""
        mine = {id(opened): opened for (pid, _), opened in self._opened.items() if pid == os.getpid()}
        for opened in mine.values():
            if hasattr(opened, "close"):
                opened.close()
        self._opened.clear()


def port_settings(port: str, settings: Settings, section: str | None = None) -> dict[str, object]:
    """The settings of each adapter that serves a port, by its name, which checks them all; nothing is opened.

    A port with several instances is asked for each by its `section`: ``llms.chat``.

    Raises:
        ConfigError: MS-3010 to MS-3014, as `decide` and `adapter_settings`.
    """
    if section is not None:
        adapter = decide(port, adapters(), settings, is_installed, section).chosen
        return {adapter.name: adapter_settings(adapter, settings, section)}
    chosen = serving(port, adapters(), settings, is_installed)
    return {adapter.name: adapter_settings(adapter, settings) for adapter in chosen}


def adapter_settings(adapter: Adapter, settings: Settings, place: str | None = None) -> object:
    """The settings of a chosen adapter, from its port's section, or from the one of its instance.

    A port that several adapters serve at once has one section for them all: each is handed the keys that it knows.

    Raises:
        ConfigError: MS-3014, a key is unknown to every adapter of the section, or a value does not fit;
            MS-3007, a secret is not there.
    """
    section = settings.section(place or adapter.port)
    section.pop("adapter", None)
    struct = cast("type[msgspec.Struct]", named_object(adapter.settings))
    _all_known(section, _beside(adapter) if adapter.port in SHARED else {adapter.name: struct})
    own = {key: item for key, item in section.items() if key.partition(".")[0] in struct.__struct_fields__}
    values = _nested({key: reveal(item, settings.project) if item.secret else item.value for key, item in own.items()})
    try:
        return msgspec.convert(values, struct, strict=False)
    except msgspec.ValidationError as error:
        raise _unfit(own, struct, adapter, error) from error


def _nested(values: Mapping[str, object]) -> dict[str, object]:
    """Keys of two words as a mapping below the first: ``options.region``."""
    found: dict[str, object] = {key: value for key, value in values.items() if "." not in key}
    for key, value in values.items():
        head, dot, rest = key.partition(".")
        if dot:
            inner = found.setdefault(head, {})
            if isinstance(inner, dict):
                inner[rest] = value
    return found


def _beside(adapter: Adapter) -> dict[str, type[msgspec.Struct]]:
    """The settings' classes of all adapters of a shared port, by name."""
    return {
        other.name: cast("type[msgspec.Struct]", named_object(other.settings))
        for other in adapters()
        if other.port == adapter.port
    }


def _all_known(section: Mapping[str, Setting], structs: Mapping[str, type[msgspec.Struct]]) -> None:
    known = sorted({name for struct in structs.values() for name in struct.__struct_fields__})
    for key, setting in section.items():
        if key.partition(".")[0] not in known:
            raise ConfigError(
                f"setting {setting.key!r} is unknown to {', '.join(sorted(structs))}",
                code="MS-3014",
                origin=setting.origin,
                fix=did_you_mean(key, known) if known else "remove it: no key is known there",
            )


def _unfit(
    section: Mapping[str, Setting], struct: type[msgspec.Struct], adapter: Adapter, error: msgspec.ValidationError
) -> ConfigError:
    """The error of the first value that does not fit; a secret's value is not in it."""
    types = {field.name: field.type for field in msgspec.structs.fields(struct)}
    for key, item in section.items():
        if item.secret or key not in types:
            continue
        try:
            msgspec.convert(item.value, types[key], strict=False)
        except msgspec.ValidationError as one:
            return ConfigError(
                f"setting {item.key} = {item.shown()!r} does not fit adapter {adapter.name!r}",
                code="MS-3014",
                why=str(one),
                origin=item.origin,
                fix=f"correct {item.key}, or leave it out",
            )
    return ConfigError(
        f"the settings of {adapter.port} do not fit adapter {adapter.name!r}",
        code="MS-3014",
        why="a secret has the wrong form" if any(item.secret for item in section.values()) else str(error),
        origin=", ".join(sorted({item.origin for item in section.values()})),
        fix=f"correct the section [{adapter.port}]",
    )
