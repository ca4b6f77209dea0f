"""``mainspring run``: one source, feature view, model, step or pipeline, now."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from mainspring.cli.options import open_app, project_options
from mainspring.cli.output import emit, lines
from mainspring.cli.progress import report_as_dict, watching
from mainspring.errors import UsageError
from mainspring.server.loop import run_named
from mainspring.server.planning import plan_of

__all__ = ["command"]


@click.command(short_help="one source, feature view, model, step or pipeline, now")
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--inline", is_flag=True, help="in this process, for a debugger")
@click.option("--force", is_flag=True, help="do not use the kept result of NAME itself")
@click.option("--reason", default="", help="why, for the record")
@project_options
def command(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    name: str,
    arguments: tuple[str, ...],
    inline: bool,
    force: bool,
    reason: str,
) -> int:
    """Build NAME (or KIND/NAME) and what it is made from; a pipeline takes its arguments as KEY=VALUE, in JSON."""
    services, app = open_app(project, profile)
    plan = plan_of(app)
    with watching(quiet=as_json) as watch:
        done = run_named(
            services, app, plan, name, _parsed(arguments), watch=watch, inline=inline, force=force, reason=reason
        )
    report = done.report
    if as_json:
        emit({**report_as_dict(report), "result": done.result})
    else:
        lines([f"run {report.run_id} {report.status}: {len(report.steps)} steps, {report.wall_seconds:.1f} s"])
        if done.result is not None:
            lines([str(done.result)])
    if report.error is not None:
        raise report.error
    return 0


def _parsed(arguments: tuple[str, ...]) -> dict[str, object]:
    found: dict[str, object] = {}
    for text in arguments:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise UsageError(f"argument {text!r} is not KEY=VALUE", code="MS-2603", fix="write n=4 or day=2013-07-01")
        try:
            found[key] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            found[key] = value
    return found
