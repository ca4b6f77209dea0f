"""``mainspring rollback``: give an endpoint, an index or a prompt back what answered before."""

from __future__ import annotations

import getpass
from pathlib import Path

import click
import msgspec

from mainspring.catalog.ids import now_us
from mainspring.catalog.rollouts import Rollout
from mainspring.cli.options import open_app, project_options
from mainspring.cli.output import emit, lines
from mainspring.cli.promote import tell_shares
from mainspring.declare.data import did_you_mean
from mainspring.errors import UsageError
from mainspring.plan.graph import Node
from mainspring.rag import versions
from mainspring.server.answering.prompts import PROD, roll_back_prompt
from mainspring.server.planning import plan_of
from mainspring.server.rollouts.deciding import roll_back_model

__all__ = ["command"]


@click.command(short_help="give an endpoint, an index or a prompt back what answered before")
@click.argument("name")
@click.option("--as", "alias", default=PROD, show_default=True, help="of a prompt: the alias")
@project_options
def command(project: Path | None, profile: str | None, as_json: bool, name: str, alias: str) -> int:
    """Give the model behind the endpoint NAME the champion, or the index NAME the version, that it had before.

    While a version of the model is tried, that ends, and its champion answers everybody.
    prompt/NAME gives the prompt's alias what it stood for before.
    """
    services, app = open_app(project, profile)
    plan = plan_of(app)
    if name.startswith("prompt/"):
        name = name.removeprefix("prompt/")
        tell_shares(name, alias, roll_back_prompt(services.catalog, name, getpass.getuser(), alias=alias), as_json)
        return 0
    kind, _, own = name.strip("/").rpartition("/")
    found = [plan.node(f"/{one}/{own}") for one in ((kind,) if kind else ("endpoint", "index"))]
    node = next((one for one in found if one is not None), None)
    if node is None or node.kind not in ("endpoint", "index"):
        known = [other.name for one in ("endpoint", "index") for other in plan.of_kind(one)]
        raise UsageError(f"no endpoint or index is called {name!r}", code="MS-2602", fix=did_you_mean(own, known))
    if (index := _index_behind(node)) is not None:
        store = services.decision("vectors").chosen.name
        version = versions.roll_back(index, services.manifest, store, by=getpass.getuser(), at_us=now_us())
        told = f"{index}: version {version} answers again"
        if as_json:
            emit({"index": index, "version": version})
        else:
            lines([told])
        return 0
    done = roll_back_model(services.catalog, node.inputs[0].rpartition("/")[2], getpass.getuser())
    if as_json:
        emit(msgspec.to_builtins(done))
    elif isinstance(done, Rollout):
        lines([f"{done.model}: {done.told()}"])
    else:
        lines([f"{done.name}: version {done.version} is the champion again"])
    return 0


def _index_behind(node: Node) -> str | None:
    """The index that a node is, or is the endpoint of."""
    url = node.url if node.kind == "index" else node.inputs[0]
    return url.removeprefix("/index/") if url.startswith("/index/") else None
