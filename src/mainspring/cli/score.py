"""``mainspring score``: a whole table scored with a model, into a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import click
import msgspec

from mainspring.cli.options import ended_like_stopped, open_app, project_options
from mainspring.cli.output import emit, lines, tell
from mainspring.cli.progress import watching
from mainspring.engine.runs.progress import Progress, Watch
from mainspring.server.planning import plan_of
from mainspring.server.scoring.score import ROWS, Asked, score_table
from mainspring.server.scoring.standing import Standing

__all__ = ["command"]

_LINES_S = 5.0
"""Seconds between lines that say how far it is."""


@click.command(short_help="a whole table scored with a model, into a file")
@click.argument("model")
@click.option("--input", "table", required=True, metavar="TABLE", help="a Parquet, CSV or Arrow file, or a source")
@click.option(
    "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="the file that gets the scores"
)
@click.option("--version", default="", metavar="N|ALIAS", help="a version's number, or an alias; else the champion")
@click.option("--time", default="", metavar="COLUMN", help="the column with each row's moment, for its features")
@click.option("--moment", default="", metavar="TIME", help="one moment for all rows: 2025-06-01T00:00:00Z")
@click.option("--keep", multiple=True, metavar="COLUMN", help="a column that the output begins with; else all")
@click.option(
    "--set-aside",
    type=click.Path(dir_okay=False, path_type=Path),
    help="the file that gets the rows that do not fit, each with the reason; else the first one ends it",
)
@click.option("--rows", default=ROWS, show_default=True, metavar="N", help="rows of a part, which is kept as one")
@click.option(
    "--progress",
    type=click.Path(dir_okay=False, path_type=Path),
    help="a file that says about once a second how far it is, in JSON",
)
@project_options
def command(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    model: str,
    table: str,
    output: Path,
    version: str,
    time: str,
    moment: str,
    keep: tuple[str, ...],
    set_aside: Path | None,
    rows: int,
    progress: Path | None,
) -> int:
    """Score the rows of TABLE with MODEL: those that hold all of its columns as they are, others by their keys.

    Features are looked up as they were known at each row's moment. Rows keep their order. What is scored is kept, so
    that the same command goes on after a kill, and the output appears whole or not at all.
    """
    services, app = open_app(project, profile)
    asked = Asked(model, table, output, version, time, moment, keep or None, set_aside, rows)
    try:
        with watching(quiet=as_json) as watch, ended_like_stopped():
            done = score_table(services, app, plan_of(app), asked, watch=watch, told=_telling(watch, progress))
    finally:
        services.close()
    found = done.scores
    if as_json:
        emit(msgspec.to_builtins(done))
        return 0
    aside = f", {found.set_aside:,} set aside" if found.set_aside else ""
    tell(f"{found.scored:,} rows scored by {found.model} version {found.version}{aside}; run {done.run}")
    lines([done.output])
    return 0


def _telling(watch: Watch, progress: Path | None) -> Callable[[Standing], None]:
    """Tells how far it is: a line now and then, and a file that is whole at every moment."""
    due = monotonic() + _LINES_S

    def told(standing: Standing) -> None:
        nonlocal due
        if progress is not None:
            part = progress.with_name(f"{progress.name}.tmp")
            part.write_bytes(msgspec.json.encode(standing))
            os.replace(part, progress)
        if monotonic() >= due:
            due = monotonic() + _LINES_S
            watch(Progress("note", "", text=standing.line()))

    return told
