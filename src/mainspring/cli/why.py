"""``mainspring why``: why a step ran again, or did not; of a model also which of its forms scores, and why."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from mainspring.choose.backends import latest, told
from mainspring.cli.options import open_services, project_options
from mainspring.cli.output import emit, lines
from mainspring.engine.explain import Why, why

__all__ = ["command"]


@click.command(short_help="why a step ran again, or did not")
@click.argument("step")
@click.option("--run", "run_id", help="the run to explain; an id or its start; the latest when left out")
@project_options
def command(project: Path | None, profile: str | None, as_json: bool, step: str, run_id: str | None) -> int:
    """Say why STEP (model/late, or late) ran in its latest run: the code, parameter or input that differs.

    Of a model that was loaded to be served it also says which of its forms scores how many rows.
    """
    services = open_services(project, profile)
    found = why(services, step, run_id=run_id)
    kind, _, name = found.name.partition("/")
    measured = latest(services.catalog, name) if kind == "model" else None
    if as_json:
        emit(
            msgspec.structs.asdict(found)
            | ({} if measured is None else {"served": msgspec.to_builtins(measured, str_keys=True)})
        )
    else:
        lines(_told(found, "") + ([] if measured is None else told(measured)))
    return 0


def _told(found: Why, indent: str) -> list[str]:
    told = [f"{indent}{found.words}"] + [f"{indent}  {reason}" for reason in found.reasons]
    for cause in found.causes:
        told += _told(cause, indent + "  ")
    return told
