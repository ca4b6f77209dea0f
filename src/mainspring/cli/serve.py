"""``mainspring serve``: the production server only."""

from __future__ import annotations

from pathlib import Path

import click

from mainspring.cli.options import open_app, project_options
from mainspring.cli.output import tell
from mainspring.server.planning import plan_of
from mainspring.server.process import ServerProcess

__all__ = ["command"]


@click.command(short_help="the production server only")
@click.option("--host", help="address to listen on")
@click.option("--port", type=int, help="port to listen on; 0 takes a free one")
@project_options
def command(project: Path | None, profile: str | None, as_json: bool, host: str | None, port: int | None) -> int:
    """Serve the endpoints until SIGTERM, which drains and exits 0; nothing is built."""
    services, app = open_app(project, profile, {"server.host": host, "server.port": port})
    ServerProcess(services, plan_of(app), told=tell).run()
    return 0
