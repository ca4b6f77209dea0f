"""``mainspring gate``: whether the newest version of a model may take over."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from mainspring.cli.emitting import replace_file
from mainspring.cli.options import open_app, project_options
from mainspring.cli.output import emit, table, tell
from mainspring.cli.progress import watching
from mainspring.errors import RefusedError
from mainspring.server.gating.judge import judged
from mainspring.server.planning import plan_of

__all__ = ["command"]


@click.command(short_help="whether the newest version of a model may take over; exits 5 when not")
@click.argument("model")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="write what was found, for `report`")
@project_options
def command(project: Path | None, profile: str | None, as_json: bool, model: str, out: Path | None) -> int:
    """Build what is stale of MODEL, and judge its newest version beside the champion on the same rows.

    Data contract, leakage, snapshot, the declared rule by paired bootstrap, slices, fairness, calibration, scores,
    latency, throughput, memory. The limits are the settings below gate. CI runs the same command.
    """
    services, app = open_app(project, profile)
    try:
        with watching(quiet=as_json) as watch:
            found = judged(services, app, plan_of(app), model, watch=watch)
    finally:
        services.close()
    if out is not None:
        replace_file(out, msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")
    if as_json:
        emit(msgspec.to_builtins(found) | {"passed": found.passed})
    else:
        table(("check", "", "why"), [(one.name, one.state, one.why) for one in found.checks])
        against = "the first version" if found.champion is None else f"against version {found.champion}"
        tell(f"{found.model} version {found.version}, {against}: {'passed' if found.passed else 'refused'}")
    return 0 if found.passed else RefusedError.exit_status
