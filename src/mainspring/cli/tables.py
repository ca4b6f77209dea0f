"""``mainspring tables``: who writes the tables of an object store, and taking that over."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from mainspring.cli.options import open_services, project_options
from mainspring.cli.output import emit, lines
from mainspring.ports.tables import Owner

__all__ = ["command"]


@click.group(short_help="who writes the tables of an object store; taking that over")
def command() -> None:
    """Tables in an object store are written from one state folder, where the log of pushes and the locks are."""


@command.command(short_help="which state folder writes")
@project_options
def owner(project: Path | None, profile: str | None, as_json: bool) -> int:
    """Say which state folder writes the tables, and where it is."""
    found = open_services(project, profile).tables.owner()
    if as_json:
        emit(None if found is None else msgspec.to_builtins(found))
    elif found is None:
        lines(["nobody alone: whoever gets there may write, and in an object store the first that does is the one"])
    else:
        lines([_told(found)])
    return 0


@command.command(short_help="write from here in another's place")
@click.argument("other", metavar="OWNER")
@project_options
def take(project: Path | None, profile: str | None, as_json: bool, other: str) -> int:
    """Write the tables from this project's state folder in the place of OWNER, whose state folder is lost.

    OWNER is the name that `mainspring tables owner` tells, or its first letters. Should it be there after all, whatever
    it tries to commit from now on is refused. What was pushed there and is in no table yet is in its folder alone.
    """
    taken, aside = open_services(project, profile).tables.take(other)
    if as_json:
        emit({**msgspec.to_builtins(taken), "aside": None if aside is None else str(aside)})
        return 0
    told = [_told(taken), "next: mainspring apply, which brings the online store up to the tables"]
    if aside is not None:
        told.append(f"put aside: {aside}, of an earlier time as their writer; push again what no table has of it")
    lines(told)
    return 0


def _told(found: Owner) -> str:
    return f"{found.id[:12]} writes, number {found.epoch}: {found.place}"
