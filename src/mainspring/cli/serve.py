"""``mainspring serve``: the production server only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from mainspring.choose.services import Services
from mainspring.cli.console import console_of
from mainspring.cli.options import open_services, project_options
from mainspring.cli.output import tell, tell_json
from mainspring.config.project import load_app
from mainspring.declare.data import did_you_mean
from mainspring.deploy.release import plant
from mainspring.errors import MainspringError, UsageError
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
    services = open_services(project, profile, {"server.host": host, "server.port": port})
    if services.settings.text("server.logs") == "text":
        _serve(services, names, tell)
        return 0
    try:
        _serve(services, names, tell_json)
    except MainspringError as error:  # it is told on stderr too, as every verb's is
        tell_json(error.lines(), "error")
        raise
    return 0


def _serve(services: Services, names: Sequence[str], told: Callable[[str], None]) -> None:
    plan = plan_of(load_app(services.settings))
    known = [node.name for node in plan.of_kind("endpoint")]
    only = [name.removeprefix("endpoint/") for name in names]
    for name in only:
        if name not in known:
            raise UsageError(f"no endpoint is called {name!r}", code="MS-2602", fix=did_you_mean(name, known))
    plant(services, told)
    ServerProcess(services, plan, console=console_of(services), told=told, only=only).run()
