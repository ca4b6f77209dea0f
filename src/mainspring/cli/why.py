"""``mainspring why``: why a step ran again, or did not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import click

from mainspring.cli.options import open_services, project_options
from mainspring.cli.output import emit, lines
from mainspring.engine.explain import Why, why

__all__ = ["command"]


@click.command(short_help="why a step ran again, or did not")
@click.argument("step")
@click.option("--run", "run_id", help="the run to explain; an id or its start; the latest when left out")
@project_options
def command(project: Path | None, profile: str | None, as_json: bool, step: str, run_id: str | None) -> int:
    """Say why STEP (model/late, or late) ran in its latest run: the code, parameter or input that differs."""
    found = why(open_services(project, profile), step, run_id=run_id)
    if as_json:
        emit(dataclasses.asdict(found))
    else:
        lines(_told(found, ""))
    return 0


def _told(found: Why, indent: str) -> list[str]:
    told = [f"{indent}{found.words}"] + [f"{indent}  {reason}" for reason in found.reasons]
    for cause in found.causes:
        told += _told(cause, indent + "  ")
    return told
