"""``mainspring diff``: what differs between two runs."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from mainspring.cli.options import open_services, project_options
from mainspring.cli.output import emit, lines, table
from mainspring.engine.explain import RunDiff, diff

__all__ = ["command"]


@click.command(short_help="what differs between two runs")
@click.argument("before")
@click.argument("after")
@project_options
def command(project: Path | None, profile: str | None, as_json: bool, before: str, after: str) -> int:
    """Compare run BEFORE with run AFTER: steps, results, metrics, environment; each is an id, its start, or latest."""
    found = diff(open_services(project, profile), before, after)
    if as_json:
        emit(_plain(found))
        return 0
    rows = [
        (
            s.name,
            s.before,
            s.after,
            "same" if s.same_result else "other",
            "; ".join(str(reason) for reason in s.reasons),
        )
        for s in found.steps
    ]
    table(("step", "before", "after", "result", "because"), rows)
    lines(f"{key}: {_spelled(old)} -> {_spelled(new)}" for key, old, new in found.metrics if old != new)
    lines(str(item) for item in found.environment)
    return 0


def _spelled(value: float | None) -> str:
    return "not measured" if value is None else str(value)


def _plain(found: RunDiff) -> dict[str, object]:
    return {
        "before": msgspec.to_builtins(found.before),
        "after": msgspec.to_builtins(found.after),
        "steps": found.steps,
        "metrics": [{"name": key, "before": old, "after": new} for key, old, new in found.metrics],
        "environment": found.environment,
    }
