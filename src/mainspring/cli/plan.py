"""``mainspring plan``: what would change, as a diff."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import click

from mainspring.cli.options import open_app, project_options
from mainspring.cli.output import emit, lines
from mainspring.plan.diff import Change
from mainspring.server.planning import changes_of, plan_of

__all__ = ["command", "spelled"]

_SIGNS = {"add": "+", "change": "~", "remove": "-", "rebuild": "^"}


@click.command(short_help="what would change, as a diff; exits 2 if anything would")
@project_options
def command(project: Path | None, profile: str | None, as_json: bool) -> int:
    """Show how the app differs from what was applied last; exit 2 when it does."""
    services, app = open_app(project, profile)
    changes = changes_of(services, plan_of(app))
    if as_json:
        emit({"changes": [dataclasses.asdict(change) for change in changes]})
    else:
        lines(spelled(changes))
    return 2 if changes else 0


def spelled(changes: Sequence[Change]) -> list[str]:
    """The changes as lines; ``+`` new, ``~`` changed, ``^`` rebuilt because of another, ``-`` gone."""
    if not changes:
        return ["nothing would change"]
    found = []
    for change in changes:
        because = f"  because of {', '.join(change.because)}" if change.because else ""
        found.append(f"{_SIGNS[change.what]} {change.url}{because}")
        found += [f"    {field}: {_shown(old)} -> {_shown(new)}" for field, old, new in change.fields]
    counts = {what: sum(change.what == what for change in changes) for what in _SIGNS}
    found.append(", ".join(f"{count} to {what}" for what, count in counts.items() if count))
    return found


def _shown(value: str | None) -> str:
    if value is None:
        return "none"
    return value[:12] if len(value) == 40 and all(c in "0123456789abcdef" for c in value) else value
