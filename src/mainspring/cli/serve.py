"""``mainspring serve``: the production server only."""

from __future__ import annotations

from pathlib import Path

import click

from mainspring.cli.console import console_of
from mainspring.cli.options import open_app, project_options
from mainspring.cli.output import tell
from mainspring.declare.data import did_you_mean
from mainspring.errors import UsageError
from mainspring.server.planning import plan_of
from mainspring.server.process import ServerProcess

__all__ = ["command"]


@click.command(short_help="the production server only")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--host", help="address to listen on")
@click.option("--port", type=click.IntRange(0, 65_535), help="port to listen on; 0 takes a free one")
@project_options
def command(
    names: tuple[str, ...], project: Path | None, profile: str | None, as_json: bool, host: str | None, port: int | None
) -> int:
    """Serve the endpoints called NAME, or all, until SIGTERM, which drains and exits 0; nothing is built."""
    services, app = open_app(project, profile, {"server.host": host, "server.port": port})
    plan = plan_of(app)
    known = [node.name for node in plan.of_kind("endpoint")]
    only = [name.removeprefix("endpoint/") for name in names]
    for name in only:
        if name not in known:
            raise UsageError(f"no endpoint is called {name!r}", code="MS-2602", fix=did_you_mean(name, known))
    ServerProcess(services, plan, console=console_of(services), told=tell, only=only).run()
    return 0
