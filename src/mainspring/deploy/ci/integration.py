"""What a project asks of CI, as all flavours need it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from mainspring.config.settings import Settings
from mainspring.errors import ConfigError, UsageError
from mainspring.plan.graph import Plan

__all__ = ["SHARES", "Integration", "integration_of", "repository_of"]

SHARES = (5, 25, 100)
"""The percent of requests that a new version is given, one after the other."""


class Integration(msgspec.Struct, frozen=True):
    """What is generated.

    Attributes:
        app: the app's name.
        models: those that are trained and judged.
        folder: the project's folder below the repository, ``.`` for the repository itself.
        lock: the lock file, from the repository.
        profile: what CI runs under; empty for the project's own.
        schedule: cron, UTC; empty for never.
        python: a version.
        runner: a label.
        image: where images are pushed; empty builds none.
        registry: the registry's host.
        target: where to deploy to; empty deploys nothing.
        champion_url: the champion's Prometheus page; empty judges a canary by its pods alone.
        canary_url: the canary's.
        watch: how long it is watched at each share.
        cloud: where to sign in by OIDC; empty for nowhere.
    """

    app: str
    models: tuple[str, ...]
    folder: str
    lock: str
    profile: str
    schedule: str
    python: str
    runner: str
    image: str
    registry: str
    target: str
    champion_url: str
    canary_url: str
    watch: str
    cloud: str


def repository_of(project: Path) -> Path:
    """The folder with ``.git`` that the project is in; the project's own when there is none."""
    return next((place for place in (project, *project.parents) if (place / ".git").exists()), project)


def integration_of(settings: Settings, plan: Plan) -> Integration:
    """What the settings below ``ci`` and the app say.

    Raises:
        UsageError: MS-2787, there is no model for CI; MS-2788, no lock file.
        ConfigError: MS-2789, ``ci.models`` names something else.
    """
    root = repository_of(settings.project)
    known = [node.name for node in plan.of_kind("model")]
    served = {url.rpartition("/")[2] for node in plan.of_kind("endpoint", over="model") for url in node.inputs}
    models = settings.words("ci.models") or tuple(name for name in known if name in served)
    _are_known(settings, models, known)
    image = settings.text("image.repository") or ""
    return Integration(
        plan.app,
        tuple(models),
        settings.project.relative_to(root).as_posix(),
        _lock(settings.project, root),
        settings.text("ci.profile") or "",
        settings.text("ci.schedule") or "",
        settings.text("ci.python") or "",
        settings.text("ci.runner") or "",
        image,
        image.partition("/")[0],
        settings.text("ci.target") or "",
        settings.text("ci.champion_url") or "",
        settings.text("ci.canary_url") or "",
        settings.text("ci.watch") or "",
        settings.text("ci.cloud") or "",
    )


def _are_known(settings: Settings, models: Sequence[str], known: Sequence[str]) -> None:
    setting = settings.setting("ci.models")
    for name in models:
        if name not in known:
            raise ConfigError(
                f"ci.models names {name!r}, which is no model",
                code="MS-2789",
                origin=setting.origin if setting is not None else "",
                fix=f"the app declares {', '.join(known) or 'none'}",
            )
    if not models:
        raise UsageError(
            "there is no model for CI to train",
            code="MS-2787",
            why="a pipeline trains and judges models that have an endpoint, or those that ci.models names",
            fix="app.endpoint(MODEL), or ci.models in mainspring.toml",
        )


def _lock(project: Path, root: Path) -> str:
    for place in (project, *project.parents):
        if (place / "requirements.lock").is_file():
            return (place / "requirements.lock").relative_to(root).as_posix()
        if place == root:
            break
    raise UsageError(
        "there is no lock file",
        code="MS-2788",
        why="CI installs exactly what was tried, with hashes",
        fix="uv pip compile requirements.in --universal --generate-hashes -o requirements.lock",
    )
