"""What is shipped: the app as it is declared, and the image that was pushed last."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Sequence

import msgspec

from mainspring.choose.decide import decide
from mainspring.choose.discover import adapters, is_installed
from mainspring.choose.services import Services
from mainspring.config.settings import Setting, Settings, reveal
from mainspring.deploy.image.build import run_settings
from mainspring.deploy.image.reference import reference_of
from mainspring.errors import ConfigError, UsageError
from mainspring.plan.graph import Plan
from mainspring.ports.target import App, Job, LanguageModel, Release, Secret

__all__ = ["app_name", "app_of", "release_at", "remember", "secret_values"]

_STORES = ("catalog", "objects", "tables", "online")
_PUSHED = "pushed.json"
_LONGEST = 40
"""The longest name of an app: names of a cluster have 63 characters, and more parts."""
_BUILDING = ("image", "targets", "release")
"""Sections that the running process does not read."""


class _Pushed(msgspec.Struct, frozen=True):
    image: str
    models: dict[str, str]


def app_name(name: str) -> str:
    """An app's name as clusters and clouds take it.

    >>> app_name("Flight Delays")
    'flight-delays'
    """
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "app"
    if len(plain) <= _LONGEST:
        return plain
    return f"{plain[: _LONGEST - 9].rstrip('-')}-{hashlib.sha256(plain.encode()).hexdigest()[:8]}"


def app_of(
    services: Services, plan: Plan, jobs: Sequence[Job], kept: Sequence[str], models: Sequence[LanguageModel]
) -> App:
    """What is declared, as far as a target needs it.

    Args:
        services: the project's ports.
        plan: the app's graph.
        jobs: its timetables that a cron can say.
        kept: the names of the others.
        models: its language models that GPUs are named for.

    Raises:
        ConfigError: MS-3089, the profile that the image runs is dev.
    """
    runs = run_settings(services.settings)
    return App(
        app_name(plan.app),
        tuple(node.name for node in plan.of_kind("endpoint")),
        tuple(jobs),
        tuple(kept),
        _secrets(runs)[0],
        tuple(models),
        tuple(port for port in _STORES if _is_embedded(port, runs)),
        _counted_apart(runs),
        runs.number("server.drain"),
    )


def _counted_apart(settings: Settings) -> bool:
    limited = any(settings.section(section) for section in ("limits", "tenant_limits", "model_limits"))
    return limited and not settings.section("budgets")


def _is_embedded(port: str, settings: Settings) -> bool:
    with contextlib.suppress(ConfigError):  # what it lacks is told when it is served
        return decide(port, adapters(), settings, is_installed).chosen.embedded
    return False


def secret_values(services: Services) -> dict[str, str]:
    """The value of each secret that the running process reads, by the name that it has in a target's store.

    Raises:
        ConfigError: MS-3007, one is not there.
    """
    runs = run_settings(services.settings)
    return {name: reveal(one, services.project) for name, one in _secrets(runs)[1].items()}


def _secrets(settings: Settings) -> tuple[tuple[Secret, ...], dict[str, Setting]]:
    """The secrets that the running process reads, each reference one key of the target's store; and these by key."""
    taken: dict[str, Setting] = {}
    found = []
    for key, setting in sorted(settings.values.items()):
        if key.partition(".")[0] not in _BUILDING and any(setting.references()):
            found.append(_secret(setting, taken))
    return tuple(found), taken


def _secret(setting: Setting, taken: dict[str, Setting]) -> Secret:
    names: list[str] = []

    def turn(kind: str, name: str) -> str:
        one = Setting(setting.key, f"{kind}:{name}", setting.origin)
        short = re.sub(r"[^A-Za-z0-9._-]+", "-", name.rpartition("/")[2]) or "secret"
        if taken.setdefault(short, one).value != one.value:
            short = f"{short}-{hashlib.sha256(str(one.value).encode()).hexdigest()[:8]}"
            taken[short] = one
        names.append(short)
        return f"file:{{{short}}}"

    text = setting.with_references(turn)
    variable = f"MAINSPRING_{setting.key.replace('.', '_').upper()}"
    return Secret(setting.key, variable, text, tuple(dict.fromkeys(names)))


def remember(services: Services, image: str, models: dict[str, str]) -> None:
    """Keep which image was pushed last, so that the next command need not be told.

    It is only a note: what is deployed is known by the target alone.
    """
    folder = services.state / "image"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _PUSHED).write_bytes(msgspec.json.encode(_Pushed(image, models)))


def release_at(services: Services, image: str | None) -> Release:
    """The release of an image, or of the one that was pushed last.

    Raises:
        UsageError: MS-2744, there is none; MS-2745, it is named by a tag, which may move.
    """
    pushed = None
    with contextlib.suppress(OSError, msgspec.DecodeError):
        pushed = msgspec.json.decode((services.state / "image" / _PUSHED).read_bytes(), type=_Pushed)
    if image is None:
        if pushed is None:
            raise UsageError(
                "there is no image to deploy",
                code="MS-2744",
                why="none was pushed from this folder, and none is named",
                fix="mainspring build --image, or name one: --image REGISTRY/NAME@sha256:DIGEST",
            )
        image = pushed.image
    at = reference_of(image, origin="--image")
    if not at.digest:
        raise UsageError(
            f"{image!r} is no image by its digest",
            code="MS-2745",
            why="a tag may mean another image by the time that it is started",
            origin="--image",
            fix="mainspring build --image prints the digest; so does skopeo inspect",
        )
    models = pushed.models if pushed is not None and pushed.image.endswith(at.digest) else {}
    profile = run_settings(services.settings).profile
    return Release(f"{at.host}/{at.name}@{at.digest}", models, {"MAINSPRING_PROFILE": profile})
