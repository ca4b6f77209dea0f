"""``mainspring promote``: make a model version the champion."""

from __future__ import annotations

import getpass
from pathlib import Path

import click
import msgspec

from mainspring.cli.options import open_services, project_options
from mainspring.cli.output import emit, lines
from mainspring.training.versions import promote_now

__all__ = ["command"]


@click.command(short_help="make a model version the champion")
@click.argument("model")
@click.argument("version", type=int)
@click.option("--force", is_flag=True, help="also when the gate has refused this version")
@project_options
def command(project: Path | None, profile: str | None, as_json: bool, model: str, version: int, force: bool) -> int:
    """Make VERSION of MODEL the champion; running servers take it over without a failed request."""
    catalog = open_services(project, profile).catalog
    done = promote_now(catalog, model.removeprefix("model/"), version, getpass.getuser(), force=force)
    if as_json:
        emit(msgspec.to_builtins(done))
    else:
        lines([f"{done.name}: version {done.version} is the champion"])
    return 0
