"""``mainspring promote``: make a model version the champion."""

from __future__ import annotations

import getpass
from pathlib import Path

import click
import msgspec

from mainspring.cli.options import open_services, project_options
from mainspring.cli.output import emit, lines
from mainspring.config.project import load_app
from mainspring.declare.data import did_you_mean
from mainspring.errors import UsageError
from mainspring.plan.graph import Plan
from mainspring.server.planning import plan_of
from mainspring.training.versions import KIND, promote_now

__all__ = ["command"]


@click.command(short_help="make a model version the champion")
@click.argument("model")
@click.argument("version", type=int)
@click.option("--force", is_flag=True, help="also when the gate has refused this version")
@project_options
def command(project: Path | None, profile: str | None, as_json: bool, model: str, version: int, force: bool) -> int:
    """Make VERSION of MODEL the champion; running servers take it over without a failed request."""
    services = open_services(project, profile)
    name = model.removeprefix("model/")
    if not services.catalog.entities(KIND, name):  # the app is asked only then: a champion is set without it
        _is_declared(name, plan_of(load_app(services.settings)))
    done = promote_now(services.catalog, name, version, getpass.getuser(), force=force)
    if as_json:
        emit(msgspec.to_builtins(done))
    else:
        lines([f"{done.name}: version {done.version} is the champion"])
    return 0


def _is_declared(name: str, plan: Plan) -> None:
    known = [node.name for node in plan.of_kind("model")]
    if name not in known:
        raise UsageError(f"no model is called {name!r}", code="MS-2602", fix=did_you_mean(name, known))
