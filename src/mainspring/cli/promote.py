"""``mainspring promote``: make a version of a model or a prompt the one that answers."""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from pathlib import Path

import click
import msgspec

from mainspring.choose.services import Services
from mainspring.cli.options import open_services, project_options
from mainspring.cli.output import emit, lines
from mainspring.config.project import load_app
from mainspring.declare.data import did_you_mean
from mainspring.errors import UsageError
from mainspring.plan.graph import Plan
from mainspring.server.answering.prompts import PROD, keep_prompts, promote_prompt, prompts_of
from mainspring.server.planning import plan_of
from mainspring.training.versions import KIND, promote_now

__all__ = ["command", "tell_shares"]


@click.command(short_help="make a version of a model or a prompt the one that answers")
@click.argument("name")
@click.argument("version", type=int)
@click.option("--force", is_flag=True, help="also when the gate has refused this version of a model")
@click.option("--as", "alias", default=PROD, show_default=True, help="of a prompt: the alias that stands for it")
@click.option("--share", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="of a prompt: of its users")
@project_options
def command(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    name: str,
    version: int,
    force: bool,
    alias: str,
    share: float,
) -> int:
    """Make VERSION of the model NAME its champion, or of prompt/NAME the one that its alias stands for.

    Running servers take it over without a failed request. With --share the rest of the users keep what they have.
    """
    services = open_services(project, profile)
    if name.startswith("prompt/"):
        return _promote_prompt(services, name.removeprefix("prompt/"), version, alias, share, as_json)
    name = name.removeprefix("model/")
    if not services.catalog.entities(KIND, name):  # the app is asked only then: a champion is set without it
        _is_declared(name, plan_of(load_app(services.settings)))
    done = promote_now(services.catalog, name, version, getpass.getuser(), force=force)
    if as_json:
        emit(msgspec.to_builtins(done))
    else:
        lines([f"{done.name}: version {done.version} is the champion"])
    return 0


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
