"""``mainspring logs``: what a step printed."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import msgspec
import orjson

from mainspring.cli.options import open_services, project_options
from mainspring.engine.explain import logs

__all__ = ["command"]


@click.command(short_help="what a step printed")
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="go on until the run ends")
@click.option("--run", "run_id", help="the run; an id or its start; the latest when left out")
@project_options
def command(
    project: Path | None, profile: str | None, as_json: bool, name: str, follow: bool, run_id: str | None
) -> int:
    """Print what step NAME wrote in its latest run; of a run's name or id, what all its steps wrote."""
    for line in logs(open_services(project, profile), name, follow=follow, run_id=run_id):
        if as_json:
            sys.stdout.buffer.write(orjson.dumps(msgspec.structs.asdict(line), option=orjson.OPT_APPEND_NEWLINE))
            sys.stdout.flush()
        else:
            print(line.text, flush=True)
    return 0
