"""``mainspring promote``: make a version of a model or a prompt the one that answers."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import click
import msgspec

from mainspring.choose.services import Services
from mainspring.cli.options import open_services, project_options
from mainspring.cli.output import emit, lines
from mainspring.config.project import load_app
from mainspring.declare.data import did_you_mean
from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.duration import microseconds
from mainspring.declare.model import Promotion
from mainspring.declare.rollout import RolloutStep, read_share
from mainspring.errors import UsageError
from mainspring.plan.graph import Plan
from mainspring.server.answering.prompts import PROD, keep_prompts, promote_prompt, prompts_of
from mainspring.server.planning import plan_of
from mainspring.server.rollouts.deciding import label_version, promote_whole, try_version
from mainspring.training.versions import KIND

__all__ = ["command", "tell_shares"]


@click.command(short_help="make a version of a model or a prompt the one that answers")
@click.argument("name")
@click.argument("version", type=int)
@click.option("--force", is_flag=True, help="also when the gate has refused this version of a model")
@click.option("--as", "alias", help=f"a label of the model to move instead; of a prompt its alias [default: {PROD}]")
@click.option("--canary", help="of a model: only for this share of its callers, 10%")
@click.option("--shadow", is_flag=True, help="of a model: asked beside the champion, and nobody gets its answers")
@click.option("--for", "length", help="with --canary: take over after this time, when it is no worse; else it stays")
@click.option("--rollout", is_flag=True, help="of a model: in the steps that the app declares")
@click.option("--share", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="of a prompt: of its users")
@project_options
def command(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    name: str,
    version: int,
    force: bool,
    alias: str | None,
    canary: str | None,
    shadow: bool,
    length: str | None,
    rollout: bool,
    share: float,
) -> int:
    """Make VERSION of the model NAME its champion, or of prompt/NAME the one that its alias stands for.

    Running servers take it over without a failed request. With --share the rest of the users keep what they have. With
    --canary, --shadow or --rollout a version of a model is tried first; it is stopped when it does worse.
    """
    services = open_services(project, profile)
    if name.startswith("prompt/"):
        return _promote_prompt(services, name.removeprefix("prompt/"), version, alias or PROD, share, as_json)
    name = name.removeprefix("model/")
    who = getpass.getuser()
    if alias is not None:
        labelled = label_version(services.catalog, name, version, alias, who)
        return _told(labelled, f"{name}: {alias} is version {version}", as_json)
    if canary is not None or shadow or rollout:
        steps = _declared_steps(services, name) if rollout else _steps(canary, length, shadow=shadow)
        tried = try_version(services.catalog, name, version, steps, who, force=force)
        return _told(tried, f"{name}: {tried.told()}", as_json)
    if not services.catalog.entities(KIND, name):  # the app is asked only then: a champion is set without it
        _is_declared(name, plan_of(load_app(services.settings)))
    done = promote_whole(services.catalog, name, version, who, force=force)
    return _told(done, f"{done.name}: version {done.version} is the champion", as_json)


def _told(done: msgspec.Struct, line: str, as_json: bool) -> int:
    if as_json:
        emit(msgspec.to_builtins(done))
    else:
        lines([line])
    return 0


def _steps(canary: str | None, length: str | None, *, shadow: bool) -> tuple[RolloutStep, ...]:
    """The one step that the options ask for."""
    for_us = 0 if length is None else microseconds(length, what="--for")
    if shadow == (canary is not None):
        raise UsageError(
            "a version is tried by --canary or as a --shadow, not both",
            code="MS-2722",
            fix="--canary 10%, or --shadow",
        )
    if canary is None:
        return (RolloutStep(0.0, for_us, shadow=True),)
    try:
        return (RolloutStep(read_share(canary), for_us),)
    except ValueError:
        raise UsageError(
            f"--canary {canary!r} is no share of the callers",
            code="MS-2723",
            why="it lies above 0 and below 100 %",
            fix="--canary 10%",
        ) from None


def _declared_steps(services: Services, name: str) -> tuple[RolloutStep, ...]:
    for node in plan_of(load_app(services.settings)).of_kind("promotion"):
        spec = spec_of(cast(Promotion, node.declaration))
        if name_of(spec.model) == name and spec.rollout:
            return spec.rollout
    raise UsageError(
        f"the app declares no rollout of model {name!r}",
        code="MS-2724",
        fix=f'app.promote({name}, rollout=["5% for 10m", "25% for 30m"]), or --canary 10%',
    )


def _promote_prompt(services: Services, name: str, version: int, alias: str, share: float, as_json: bool) -> int:
    keep_prompts(services.catalog, prompts_of(plan_of(load_app(services.settings))))
    shares = promote_prompt(services.catalog, name, version, getpass.getuser(), alias=alias, share=share)
    tell_shares(name, alias, shares, as_json)
    return 0


def tell_shares(name: str, alias: str, shares: Mapping[int, float], as_json: bool) -> None:
    """Say which versions of a prompt an alias stands for."""
    if as_json:
        emit({"prompt": name, "alias": alias, "shares": {str(version): share for version, share in shares.items()}})
    else:
        told = ", ".join(f"version {version} for {share:.0%} of users" for version, share in sorted(shares.items()))
        lines([f"{name}@{alias}: {told}"])


def _is_declared(name: str, plan: Plan) -> None:
    known = [node.name for node in plan.of_kind("model")]
    if name not in known:
        raise UsageError(f"no model is called {name!r}", code="MS-2602", fix=did_you_mean(name, known))
