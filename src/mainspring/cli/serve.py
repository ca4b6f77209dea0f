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
from mainspring.server.workers.link import ParentLink, WorkerPlace
from mainspring.server.workers.serving import serve_workers

__all__ = ["command"]


@click.command(short_help="the production server only")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--host", help="address to listen on")
@click.option("--port", type=click.IntRange(0, 65_535), help="port to listen on; 0 takes a free one")
@click.option("--worker", type=click.IntRange(0), hidden=True)
@project_options
def command(
    names: tuple[str, ...],
    project: Path | None,
    profile: str | None,
    as_json: bool,
    host: str | None,
    port: int | None,
    worker: int | None,
) -> int:
    """Serve the endpoints called NAME, or all, until SIGTERM, which drains and exits 0; nothing is built."""
    services = open_services(project, profile, {"server.host": host, "server.port": port})
    if services.settings.text("server.logs") == "text":
        return _serve(services, names, tell, worker)
    try:
        return _serve(services, names, tell_json, worker)
    except MainspringError as error:  # it is told on stderr too, as every verb's is
        tell_json(error.lines(), "error")
        raise


def _serve(services: Services, names: Sequence[str], told: Callable[[str], None], worker: int | None) -> int:
    """Serve, as one of several workers, as their parent, or as what most servers are: the only process."""
    workers = services.settings.whole("server.workers")
    if worker is None and workers > 1:
        plant(services, told)
        services.close()
        return serve_workers(services, [name.removeprefix("endpoint/") for name in names], told)
    place = None if worker is None else WorkerPlace(worker, workers, ParentLink())
    plan = plan_of(load_app(services.settings))
    known = [node.name for node in plan.of_kind("endpoint")]
    only = [name.removeprefix("endpoint/") for name in names]
    for name in only:
        if name not in known:
            raise UsageError(f"no endpoint is called {name!r}", code="MS-2602", fix=did_you_mean(name, known))
    if place is None:
        plant(services, told)
    console = console_of(services) if place is None or place.number == 0 else None
    ServerProcess(services, plan, console=console, told=told, only=only, place=place).run()
    return 0
