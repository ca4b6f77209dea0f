"""``mainspring apply``: carry the plan out."""

from __future__ import annotations

from pathlib import Path

import click

from mainspring.cli.edits import notice
from mainspring.cli.options import open_app, project_options
from mainspring.cli.output import emit, lines, tell
from mainspring.cli.plan import spelled
from mainspring.cli.progress import report_as_dict, watching
from mainspring.server.loop import apply
from mainspring.server.planning import changes_of, plan_of, sources_have_places

__all__ = ["command"]


@click.command(short_help="carry the plan out")
@click.option("--inline", is_flag=True, help="in this process, for a debugger")
@click.option("--noticed", type=click.Path(path_type=Path), hidden=True, help="leave there what dev has to look at")
@project_options
def command(project: Path | None, profile: str | None, as_json: bool, inline: bool, noticed: Path | None) -> int:
    """Build everything that the app declares and that is not built yet, and remember the plan."""
    services, app = open_app(project, profile)
    plan = plan_of(app)
    if noticed is not None:
        notice(services, plan).write(noticed)
    sources_have_places(plan, services.settings)
    for text in spelled(changes_of(services, plan)):
        tell(text)
    with watching(quiet=as_json) as watch:
        report = apply(services, app, plan, watch=watch, inline=inline)
    if as_json:
        emit(report_as_dict(report))
    else:
        hits = sum(step.status == "hit" for step in report.steps)
        done = f"run {report.run_id} {report.status}: {len(report.steps)} steps, {hits} unchanged"
        lines([f"{done}, {report.wall_seconds:.1f} s"])
    failed = [step.error for step in report.steps if step.error is not None]
    for error in failed[not as_json :]:
        tell(error.lines())
    if not failed:
        return 0
    if not as_json:
        raise failed[0]
    return failed[0].exit_status  # what it is, is in the document, which is the only one
