"""``mainspring check``: everything that can be known without running anything."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

from mainspring.cli.options import open_app, project_options
from mainspring.cli.output import emit, lines
from mainspring.declare.declaration import DeclaredKind, origin_of, spec_of
from mainspring.declare.step import StepSpec
from mainspring.engine.secrets import declared_secret
from mainspring.server.planning import needed_ports, plan_of, sources_have_places

__all__ = ["command"]


@click.command(short_help="types, schemas, cycles, settings, secrets; reads only")
@project_options
def command(project: Path | None, profile: str | None, as_json: bool) -> int:
    """Check the app, its settings and the choice of adapters; nothing is written and no service is called."""
    services, app = open_app(project, profile)
    plan = plan_of(app)
    sources_have_places(plan, services.settings)
    chosen = {port: services.decision(port).chosen.name for port in needed_ports(plan)}
    for step in app.of_kind(DeclaredKind.STEP):
        for name in cast("StepSpec", spec_of(step)).options.secrets:
            declared_secret(name, services, str(origin_of(step)))
    for setting in services.settings.values.values():
        if setting.secret:
            services.settings.secret(setting.key)
    if as_json:
        emit({"app": plan.app, "nodes": [node.url for node in plan.nodes], "adapters": chosen})
    else:
        counts: dict[str, int] = {}
        for node in plan.nodes:
            counts[node.kind] = counts.get(node.kind, 0) + 1
        found = ", ".join(f"{n} {kind.replace('_', ' ')}{'s' if n > 1 else ''}" for kind, n in counts.items())
        lines(
            [f"{plan.app}: {found}", "adapters: " + ", ".join(f"{p} {a}" for p, a in chosen.items()), "no fault found"]
        )
    return 0
