"""Building an image: the settings, the layers, the manifests."""

from __future__ import annotations

import contextlib
import importlib.metadata
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import cast

import msgspec

from mainspring.choose.services import Services
from mainspring.config.settings import Settings, load_settings, reveal
from mainspring.deploy.image.blobs import BlobStore
from mainspring.deploy.image.door import OPEN, Door
from mainspring.deploy.image.entries import Entry, entry_of_bytes, entry_of_file
from mainspring.deploy.image.files import SOURCE, app_entries, app_files, left_out, refuse_secrets
from mainspring.deploy.image.layer import Codec, Layer
from mainspring.deploy.image.lock import Lock, Pin, Platform, kept_lock, pins_on
from mainspring.deploy.image.manifest import Base, Manifest, Spec, Variant, index_of, manifest_of, spelled
from mainspring.deploy.image.reference import reference_of
from mainspring.deploy.image.registry import Registry
from mainspring.deploy.image.sbom import bill_of, distributions
from mainspring.deploy.image.threads import begun
from mainspring.deploy.image.transport import Built, Told, base_of
from mainspring.deploy.image.wheels import COMMANDS, DEPS, Wheel, bytecode_note, compiled, deps_entries, wheels_of
from mainspring.deploy.release import FILE, Release, model_folder, release_of
from mainspring.errors import ConfigError, MainspringError

__all__ = [
    "MODELS", "PORT", "Image", "base_registry", "build", "environment_of", "epoch_of", "image_store", "run_settings",
]  # fmt: skip

MODELS = "app/models"
PORT = 8080
_PLATFORMS = {"linux/amd64": "amd64", "linux/arm64": "arm64"}
_READS = {
    "onnx": "onnxruntime",
    "lightgbm": "lightgbm",
    "xgboost": "xgboost-cpu",
    "skops": "skops",
    "pyfunc": "mlflow-skinny",
}
"""The distribution that reads each format of models."""
_COMMAND = ("python3", "-m", "mainspring")


class Image(msgspec.Struct, frozen=True):
    """A built image.

    Attributes:
        built: its manifests, ready to be sent.
        layers: ours of the first platform, in order.
        base: what it stands on.
        bills: the bill of materials of each manifest, by the manifest's digest.
        release: the models that it carries.
        notes: what a person should know.
    """

    built: Built
    layers: tuple[Layer, ...]
    base: Base
    bills: Mapping[str, bytes]
    release: Release
    notes: tuple[str, ...] = msgspec.field(default=())


def image_store(services: Services) -> BlobStore:
    """The image cache of a project."""
    return BlobStore(services.state / "image")


def base_registry(settings: Settings) -> Registry:
    """The registry of the base image."""
    found = settings.setting("image.base")
    if found is None or not found.value:
        return Registry(reference_of(f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"))
    return Registry(reference_of(str(found.value), origin=found.origin))


def build(services: Services, variant: Variant, *, epoch: int, told: Told, door: Door = OPEN) -> Image:
    """Build the image of a project for each of its platforms; the user's code is read, never imported.

    Args:
        services: the project's ports; the champions of its catalog go into the image.
        variant: what the target wants otherwise.
        epoch: the time of everything in it, in seconds since 1970.
        told: told what is done, a line at a time.
        door: where it is to go, asked before anything that takes long.

    Raises:
        ConfigError: MS-3089 to MS-3098, a setting, the lock or the base does not do.
        UsageError: MS-2700, MS-2703, a file cannot be in it.
        RefusedError: MS-5071, a secret is in a file.
        DataError: MS-2750; ServiceError: MS-4080 to MS-4085; StoreError: as the stores raise.
    """
    settings, project, store = services.settings, services.project, image_store(services)
    store.sweep()
    runs = run_settings(settings)
    lock = kept_lock(project, store)
    source = base_registry(settings)
    bases = {name: begun(_base(source, name, store)) for name in _architectures(settings)}
    release = release_of(services)
    shared = _Shared(services, store, _codec(settings), epoch, told, door)
    models = shared.models(release)
    app = shared.app(runs)
    manifests: list[Manifest] = []
    bills: dict[str, bytes] = {}
    notes = [] if release.models else ["the catalog has no champion: the image carries no model"]
    layers: list[Layer] = []
    below: list[Base] = []
    for architecture, waited in bases.items():
        base = waited()
        platform = Platform(architecture, _python(settings, base), _glibc(settings))
        _runtimes_are_locked(release, pins_on(lock, platform, store))
        wheels, deps = shared.deps(lock, platform)
        if note := bytecode_note(platform):
            notes.append(note)
        own = [deps, *models.values(), shared.release(release), app]
        manifest = manifest_of(base, own, _spec(platform, runs, lock, release, epoch, wheels), variant)
        digests = {name: layer.diff_id for name, layer in models.items()}
        digest = manifest.described.digest
        parts = distributions(wheels, store)
        bills[digest] = bill_of(project.name, digest, base, parts, digests, importlib.metadata.version("mainspring"))
        manifests.append(manifest)
        below.append(base)
        layers = layers or own
    top = manifests[0].described if len(manifests) == 1 else index_of(manifests)
    if source.at.digest == "":
        notes.append(f"the base moves: image.base = {source.at}@{below[0].asked} would hold it")
    layers_below = frozenset(one.digest for base in below for one in base.layers)
    built = Built(tuple(manifests), top, source.at, layers_below)
    return Image(built, tuple(layers), below[0], bills, release, tuple(notes))


def _base(source: Registry, architecture: str, store: BlobStore) -> Callable[[], Base]:
    return lambda: base_of(source, architecture, store)


class _Shared(msgspec.Struct, frozen=True):
    """What all layers are made with."""

    services: Services
    store: BlobStore
    codec: Codec
    epoch: int
    told: Told
    door: Door

    def layer(
        self, entries: Callable[[], list[Entry]], made_of: object, title: str, codec: Codec | None = None
    ) -> Layer:
        return self.store.layer(entries, [title, made_of], codec=codec or self.codec, epoch=self.epoch, title=title)

    def deps(self, lock: Lock, platform: Platform) -> tuple[tuple[Wheel, ...], Layer]:
        project = self.services.project
        places = [project / place for place in self.services.settings.words("image.wheels")]
        wheels = wheels_of(lock, platform, self.store, places, self.door.wait)
        made_of: list[object] = [wheel.sha256 for wheel in wheels]
        made_of += [COMMANDS[wheel.pin.name] for wheel in wheels if wheel.pin.name in COMMANDS]
        plain = bool(bytecode_note(platform))
        made_of.append("" if plain else ".".join(map(str, sys.version_info[:3])))
        with contextlib.ExitStack() as opened:

            def entries() -> list[Entry]:
                self.door.wait()
                self.told(f"packing {len(wheels)} distributions for linux/{platform.architecture}")
                bytecode = {} if plain else compiled(wheels, self.store)
                return list(deps_entries(wheels, bytecode, opened))

            return wheels, self.layer(entries, made_of, "dependencies")

    def models(self, release: Release) -> dict[str, Layer]:
        found = {}
        for name, artifact in sorted(release.models.items()):

            def entries(name: str = name, artifact: str = artifact) -> list[Entry]:
                self.door.wait()
                folder = model_folder(self.services, artifact, self.store.folder("models"))
                paths = [path for path in folder.rglob("*") if path.is_file()]
                return [entry_of_file(f"{MODELS}/{name}/{path.relative_to(folder).as_posix()}", path) for path in paths]

            found[name] = self.layer(entries, artifact, f"model {name}", "none")
        return found

    def release(self, release: Release) -> Layer:
        data = spelled(release)
        return self.layer(lambda: [entry_of_bytes(f"{MODELS}/{FILE}", data)], data.decode(), "release")

    def app(self, runs: Settings) -> Layer:
        files = list(app_files(self.services.project, left_out(runs)))
        refuse_secrets(files, {**_secrets(self.services.settings), **_secrets(runs)})

        def entries() -> list[Entry]:
            self.door.knock()
            return list(app_entries(files))

        return self.layer(entries, [file.made_of() for file in files], "app")


def _runtimes_are_locked(release: Release, pins: Iterable[Pin]) -> None:
    locked = {pin.name for pin in pins}
    for entity in release.entities:
        card = cast("Mapping[str, object]", entity.spec.get("card") or {})
        needed = _READS.get(str(card.get("format", "")), "")
        if needed and needed not in locked:
            raise ConfigError(
                f"the lock has no {needed}",
                code="MS-3095",
                why=f"model {entity.name!r} is stored as {card['format']}, which it reads",
                origin="requirements.lock",
                fix="ask for mainspring[tabular] in requirements.in, and lock anew",
            )


def environment_of(runs: Settings) -> dict[str, str]:
    """The variables of the container's process, for the profile that it runs."""
    return {
        "PYTHONPATH": f"/{DEPS}:/{SOURCE}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "HOME": "/tmp",
        "MAINSPRING_PROFILE": runs.profile,
        "MAINSPRING_RELEASE_FOLDER": f"/{MODELS}",
        "MAINSPRING_STATE_FOLDER": "/tmp/mainspring",
        "MAINSPRING_SERVER_HOST": "0.0.0.0",
        "MAINSPRING_SERVER_PORT": str(PORT),
        "MAINSPRING_SERVER_LOGS": "json",
    }


def _spec(
    platform: Platform, runs: Settings, lock: Lock, release: Release, epoch: int, wheels: Iterable[Wheel]
) -> Spec:
    labels = {
        "mainspring.dev/app": runs.project.name[:63],
        "mainspring.dev/lock": lock.digest[:16],
        "mainspring.dev/profile": runs.profile,
        "mainspring.dev/python": ".".join(platform.python.split(".")[:2]),
    }
    labels |= {f"mainspring.dev/{wheel.pin.name}": wheel.pin.version for wheel in wheels if wheel.pin.name in COMMANDS}
    labels |= {f"mainspring.dev/model.{name}": artifact[:16] for name, artifact in release.models.items()}
    return Spec(platform.architecture, epoch, environment_of(runs), _COMMAND, f"/{SOURCE}", PORT, labels)


def run_settings(settings: Settings) -> Settings:
    """The settings under the profile that the image runs.

    Raises:
        ConfigError: MS-3089, that is dev; MS-3003, there is no such profile.
    """
    profile = settings.text("image.profile") or settings.profile
    if profile == "dev":
        others = [name for name in settings.profiles if name != "dev"]
        raise ConfigError(
            "an image does not run profile dev",
            code="MS-3089",
            why="dev shows the console and lets requests say what time it is",
            origin="image.profile",
            fix=f'image.profile = "{others[0]}"' if others else 'add [profiles.prod], and image.profile = "prod"',
        )
    return load_settings(settings.project, profile=profile)


def _secrets(settings: Settings) -> dict[str, str]:
    """The secrets that can be read here, by their references: what must not be in the image."""
    found = {}
    for setting in settings.values.values():
        for reference in setting.references():
            with contextlib.suppress(MainspringError):
                found[f"of {reference.key}"] = reveal(reference, settings.project)
    return found


def _architectures(settings: Settings) -> list[str]:
    found = settings.words("image.platforms")
    strange = [one for one in found if one not in _PLATFORMS]
    if strange or not found:
        origin = str(getattr(settings.setting("image.platforms"), "origin", ""))
        option = origin.startswith("--")
        raise ConfigError(
            f"{origin if option else 'image.platforms'} names {strange[0]!r}"
            if strange
            else "image.platforms is empty",
            code="MS-3097",
            why=f"there are: {', '.join(_PLATFORMS)}",
            origin=origin,
            fix=f"{origin} linux/amd64" if option else 'image.platforms = ["linux/amd64"]',
        )
    return [_PLATFORMS[one] for one in dict.fromkeys(found)]


def _python(settings: Settings, base: Base) -> str:
    """The image's Python: what the user says, what an official Python image says, or this one's."""
    said = settings.text("image.python")
    if said is None:
        lines = (base.config.get("config") or {}).get("Env") or []
        said = dict(line.partition("=")[::2] for line in lines).get("PYTHON_VERSION")
    return _version(said or f"{sys.version_info.major}.{sys.version_info.minor}", "image.python", (2, 3), settings)


def _glibc(settings: Settings) -> str:
    return _version(settings.text("image.glibc") or "", "image.glibc", (2,), settings)


def _version(text: str, key: str, parts: tuple[int, ...], settings: Settings) -> str:
    if len(text.split(".")) not in parts or not all(part.isdigit() for part in text.split(".")):
        raise ConfigError(
            f"{key} = {text!r} is no version",
            code="MS-3097",
            why="it is two or three numbers" if 3 in parts else "it is two numbers",
            origin=getattr(settings.setting(key), "origin", ""),
            fix=f'{key} = "{"3.11" if 3 in parts else "2.36"}"',
        )
    return text


def _codec(settings: Settings) -> Codec:
    return "zstd" if settings.text("image.compression") == "zstd" else "gzip"


def epoch_of(environment: Mapping[str, str]) -> int:
    """``SOURCE_DATE_EPOCH``, or 1: zero is what some tools take for no time at all.

    Raises:
        ConfigError: MS-3097, it is no number of seconds.
    """
    text = environment.get("SOURCE_DATE_EPOCH", "1")
    if not text.isdigit() or int(text) >= 1 << 33:
        raise ConfigError(
            f"SOURCE_DATE_EPOCH = {text!r} is no time",
            code="MS-3097",
            why="it is whole seconds since 1970",
            origin="SOURCE_DATE_EPOCH",
            fix="export SOURCE_DATE_EPOCH=$(git log -1 --format=%ct), or leave it out",
        )
    return int(text)
