"""``mainspring tables``: what is kept and who reads it, removing what nobody does, and who writes an object store's."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from mainspring.choose.services import Services
from mainspring.cli.options import open_app, open_services, project_options
from mainspring.cli.output import emit, lines, table, tell
from mainspring.features.logs.log import SourceTable
from mainspring.features.steps import sources_of
from mainspring.features.view import View
from mainspring.plan.graph import Plan
from mainspring.ports.tables import Owner
from mainspring.server.features.tables import KeptTable, drop_tables, tables_kept
from mainspring.server.loop import online_views
from mainspring.server.planning import plan_of

__all__ = ["command"]


@click.group(invoke_without_command=True, short_help="what is kept, and removing it; who writes an object store's")
@project_options
@click.pass_context
def command(ctx: click.Context, project: Path | None, profile: str | None, as_json: bool) -> int:
    """List the tables and who reads each, when no word follows; each word has its own help.

    What was made from an old definition stays: a training set may have been made from it, or rows pushed to it.
    """
    if ctx.invoked_subcommand is not None:
        given = {"project": project, "profile": profile, "as_json": as_json}
        ctx.default_map = {ctx.invoked_subcommand: {name: value for name, value in given.items() if value}}
        return 0
    found = tables_kept(*_opened(project, profile))
    if as_json:
        emit([_plain(one) for one in found])
        return 0
    shown = [
        [one.name, one.rows, one.files, _size(one.bytes), ", ".join(one.read_by) or "nobody", _note(one)]
        for one in found
    ]
    table(("table", "rows", "files", "size", "read by", ""), shown)
    if any(one.unread for one in found):
        tell("mainspring tables drop removes what nobody reads")
    return 0


@command.command(short_help="remove tables that nobody reads")
@click.argument("names", metavar="[TABLE]...", nargs=-1)
@click.option(
    "--force", is_flag=True, help="also what training sets were made from, and pushed rows that are nowhere else"
)
@project_options
def drop(project: Path | None, profile: str | None, as_json: bool, names: tuple[str, ...], force: bool) -> int:
    """Remove TABLEs that nobody reads, with their history.

    Without a name: all that nobody reads and that can be made again. One from which a training set was made, or with
    pushed rows that are nowhere else, is removed only by its name and with --force. Rows online and collections of
    vectors need no word: they are swept a day after nothing reads them.
    """
    gone = drop_tables(*_opened(project, profile), names, force=force)
    if as_json:
        emit({"dropped": [_plain(one) for one in gone]})
    else:
        lines([f"dropped {one.name}, {one.rows:,} rows" for one in gone] or ["nothing to drop"])
    return 0


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


def _opened(
    project: Path | None, profile: str | None
) -> tuple[Services, Plan, dict[str, View], dict[str, SourceTable]]:
    services, app = open_app(project, profile)
    plan = plan_of(app)
    return services, plan, online_views(services, plan), sources_of(plan)


def _plain(one: KeptTable) -> dict[str, object]:
    return {**msgspec.to_builtins(one), "unread": one.unread}


def _size(count: int | None) -> str:
    return "" if count is None else f"{count / (1 << 20):,.1f} MiB"


def _note(one: KeptTable) -> str:
    """Why a table that nobody reads is not removed without being named."""
    if not one.unread:
        return ""
    notes = [f"training sets of {one.training_sets:,} versions"] if one.training_sets else []
    return ", ".join([*notes, *(["pushed rows that are nowhere else"] if one.pushed else [])])


def _told(found: Owner) -> str:
    return f"{found.id[:12]} writes, number {found.epoch}: {found.place}"
