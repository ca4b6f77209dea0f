"""A release: the versions of what is served, as an image carries them, and how a server takes them over."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from mainspring.catalog.ids import now_us
from mainspring.choose.services import Services
from mainspring.declare.artifact import File
from mainspring.errors import ConfigError
from mainspring.lazy import lazy
from mainspring.ports.catalog import Alias, Entity, Event

if TYPE_CHECKING:
    from mainspring.engine import driver
else:  # a build whose models are all kept loads none
    driver = lazy("mainspring.engine.driver")

__all__ = ["FILE", "Release", "model_folder", "plant", "release_of"]

FILE = "release.json"
_FORMAT = 1
_MODEL, _CHAMPION = "model", "champion"
_WHOLE = ("online_view", "prompt", "prompt_split")
"""Kinds of which all versions are carried: a server looks rows and prompts up by their numbers."""
_MOST = 10_000


class Release(msgspec.Struct, frozen=True):
    """What a server needs of the catalog in which the models were made.

    Attributes:
        format: 1.
        entities: versions, in order.
        aliases: where names point: kind, name, alias and the id of the version.
        models: the digest of each champion's folder, by the model's name.
    """

    format: int
    entities: tuple[Entity, ...] = ()
    aliases: tuple[tuple[str, str, str, str], ...] = ()
    models: dict[str, str] = {}


def release_of(services: Services) -> Release:
    """The champions, and what else is looked up by a number, of a project's catalog."""
    catalog = services.catalog
    found: dict[str, Entity] = {}
    aliases, models = [], {}
    for alias in catalog.aliases():
        champion = alias.kind == _MODEL and alias.alias == _CHAMPION
        if not champion and alias.kind not in _WHOLE:
            continue
        entity = catalog.entity_by_id(alias.entity_id)
        if entity is None:
            continue
        found[entity.id] = entity
        aliases.append((alias.kind, alias.name, alias.alias, entity.id))
        if champion:
            models[alias.name] = str(entity.spec["artifact"])
    for kind in _WHOLE:
        found |= {entity.id: entity for entity in catalog.entities(kind, limit=_MOST)}
    entities = sorted(found.values(), key=lambda item: (item.kind, item.name, item.version))
    return Release(_FORMAT, tuple(entities), tuple(sorted(aliases)), models)


def model_folder(services: Services, artifact: str, place: Path) -> Path:
    """A model's folder, copied out of the object store below a place once.

    Raises:
        StoreError: MS-4103, MS-4104, MS-4121, as the object store raises.
    """
    folder = place / artifact
    if not folder.is_dir():
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place) as part:
            stored = cast(File, driver.load(services, artifact, File, Path(part) / "model"))
            with contextlib.suppress(OSError):  # another build may have been first
                os.rename(stored.path, folder)
    return folder


def plant(services: Services, told: Callable[[str], None]) -> None:
    """Take over what the image carries: versions that the catalog lacks, aliases that it has not, models in place.

    A catalog that has a champion keeps it: where replicas share a catalog, a promotion there reaches them all, and the
    image is only where the files are near.

    Args:
        services: the project's ports, with ``release.folder`` among the settings.
        told: told what was taken over.

    Raises:
        ConfigError: MS-3099, the folder holds no release that this version reads.
    """
    setting = services.settings.setting("release.folder")
    if setting is None or not setting.value:
        return
    folder = Path(str(setting.value))
    try:
        release = msgspec.json.decode((folder / FILE).read_bytes(), type=Release)
        if release.format != _FORMAT:
            raise ValueError(f"format {release.format}, not {_FORMAT}")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{folder} holds no release",
            code="MS-3099",
            why=str(error),
            origin=setting.origin,
            fix="build the image again with this version of mainspring, or leave release.folder out",
        ) from error
    ids = {entity.id: services.catalog.add_entity(entity) for entity in release.entities}
    for kind, name, alias, identity in release.aliases:
        _point(services, kind, name, alias, ids[identity], told)
    _link(services.state / "models", folder, release.models)


def _point(services: Services, kind: str, name: str, alias: str, to: Entity, told: Callable[[str], None]) -> None:
    now = services.catalog.alias(kind, name, alias)
    if now is None:
        data: dict[str, object] = {"version": to.version, "why": "carried by the image", "before": "", "to": to.id}
        event = Event(now_us(), "release", f"{kind}.{alias}", f"/{kind}/{name}", data)
        services.catalog.move_alias(Alias(kind, name, alias, to.id, 0), event)
    elif now.entity_id != to.id and kind == _MODEL:
        told(f"model {name}: the image carries version {to.version}, and the catalog's champion answers")


def _link(models: Path, folder: Path, carried: Mapping[str, str]) -> None:
    """Make the carried folders the ones that a server would unpack; nothing is copied."""
    models.mkdir(parents=True, exist_ok=True)
    for name, artifact in carried.items():
        with contextlib.suppress(FileExistsError):
            os.symlink(folder / name, models / artifact)
