"""``mainspring rollback``: give an endpoint its previous champion back."""

from __future__ import annotations

import getpass
from pathlib import Path

import click
import msgspec

from mainspring.cli.options import open_app, project_options
from mainspring.cli.output import emit, lines
from mainspring.declare.data import did_you_mean
from mainspring.errors import UsageError
from mainspring.server.planning import plan_of
from mainspring.training.versions import roll_back

__all__ = ["command"]


@click.command(short_help="give an endpoint its previous champion back")
@click.argument("endpoint")
@project_options
def command(project: Path | None, profile: str | None, as_json: bool, endpoint: str) -> int:
    """Give the model behind ENDPOINT the champion that it had before."""
    services, app = open_app(project, profile)
    plan = plan_of(app)
    node = plan.node(f"/endpoint/{endpoint.removeprefix('endpoint/')}")
    if node is None:
        known = [other.name for other in plan.of_kind("endpoint")]
        raise UsageError(f"no endpoint is called {endpoint!r}", code="MS-2602", fix=did_you_mean(endpoint, known))
    done = roll_back(services.catalog, node.inputs[0].rpartition("/")[2], getpass.getuser())
    if as_json:
        emit(msgspec.to_builtins(done))
    else:
        lines([f"{done.name}: version {done.version} is the champion again"])
    return 0
