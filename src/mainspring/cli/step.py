"""``mainspring step``: one step by itself, for orchestrators."""

from __future__ import annotations

from pathlib import Path

import click

from mainspring.cli.options import open_app, project_options
from mainspring.cli.output import emit, lines
from mainspring.cli.progress import watching
from mainspring.deploy.portable.step import ROWS, handed, run_step, step_named
from mainspring.deploy.portable.told import executor_of, tell
from mainspring.errors import UsageError
from mainspring.server.loop import resolver
from mainspring.server.planning import plan_of

__all__ = ["command"]


@click.command(short_help="one step by itself: values and folders in, a folder out; for orchestrators")
@click.argument("name")
@click.option("--in", "given", multiple=True, metavar="KEY=VALUE", help="a value; @PATH: an artifact, or a file's text")
@click.option("--text", "plain", multiple=True, metavar="KEY=VALUE", help="a value as it stands, also one with an @")
@click.option("--out", "out", multiple=True, metavar="result=PATH", help="the folder to write the result to")
@click.option("--map", "over", metavar="KEY", help="run once for each item of KEY, which is a list")
@click.option("--run", "run", default="", metavar="ID", help="the orchestrator's name for its run, for the record")
@click.option("--executor-input", "executor", metavar="JSON", help="from Kubeflow's launcher, which is told the digest")
@project_options
def command(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    name: str,
    given: tuple[str, ...],
    plain: tuple[str, ...],
    out: tuple[str, ...],
    over: str | None,
    run: str,
    executor: str | None,
) -> int:
    """Carry out the step NAME with what it is handed; rows/NAME gives the rows of a source or feature view.

    The result's digest is the one that `mainspring run` gives. --out writes a folder with artifact.json and the data;
    it is there whole or not at all, and --in KEY=@FOLDER hands it to the next step.
    """
    launcher = None if executor is None else executor_of(executor)
    services, app = open_app(project, profile)
    plan = plan_of(app)
    step = None if name.startswith(ROWS) else step_named(plan, name)
    inputs = handed(_pairs("--in", given), _pairs("--text", plain), step)
    outputs = {key: Path(value) for key, value in _pairs("--out", out)}
    try:
        with watching(quiet=as_json) as watch:
            done = run_step(
                services, plan, name, inputs, outputs, resolver(services, plan), over=over, run=run, watch=watch
            )
    finally:
        services.close()
    if launcher is not None:
        tell(launcher, done)
    if as_json:
        found = {key: {"path": path, "digest": done.digest, "kind": done.kind} for key, path in done.outputs.items()}
        emit({"step": done.step, "run": done.run, "key": done.key, "status": done.status, "outputs": found})
    else:
        lines([done.digest])
    return 0


def _pairs(option: str, texts: tuple[str, ...]) -> list[tuple[str, str]]:
    found = []
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or not key:
            raise UsageError(f"{option} {text!r} is not KEY=VALUE", code="MS-2769", fix=f"{option} n=4")
        found.append((key, value))
    return found
