"""``mainspring plan``: what would change, as a diff, what that costs, and what the named GPUs carry of each model."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from mainspring.choose.services import Services
from mainspring.cli.options import open_app, project_options
from mainspring.cli.output import emit, lines, tell
from mainspring.errors import ConfigError, DataError
from mainspring.features.logs.unused import Unused
from mainspring.features.steps import sources_of
from mainspring.llm.capacity import GIB
from mainspring.llm.sizing import Sizing, sizings
from mainspring.plan.diff import Change
from mainspring.plan.graph import Plan
from mainspring.server.features.sweeping import unused_in
from mainspring.server.features.tables import unread_tables
from mainspring.server.forecasting import Cost, costs_of
from mainspring.server.loop import online_views
from mainspring.server.planning import changes_of, plan_of

__all__ = ["carried", "command", "priced", "spelled", "told", "unread"]

_SIGNS = {"add": "+", "change": "~", "remove": "-", "rebuild": "^"}


@click.command(short_help="what would change, as a diff; exits 2 if anything would")
@project_options
def command(project: Path | None, profile: str | None, as_json: bool) -> int:
    """Show how the app differs from what was applied last; exit 2 when it does.

    Below are the steps that an apply would run, for which reason, and how long each took the last time. For each
    language model with a [capacity.NAME] it shows what those GPUs carry.
    """
    services, app = open_app(project, profile)
    graph = plan_of(app)
    changes = changes_of(services, graph)
    costs = _costs(services, graph)
    views, sources = online_views(services, graph), sources_of(graph)
    unused = unused_in(services, graph, views, sources)
    tables = unread_tables(services, graph, views, sources)
    found = sizings(services.settings, [node.name for node in graph.of_kind("llm")])
    if as_json:
        emit(
            {
                "changes": changes,
                "steps": costs,
                "unused": unused,
                "unread_tables": tables,
                "capacity": found,
            }
        )
    else:
        lines([*spelled(changes), *priced(costs), *unread(unused, tables)])
        for one in found:
            lines(["", *carried(one)])
    return 2 if changes else 0


def _costs(services: Services, graph: Plan) -> Sequence[Cost]:
    """What the steps would cost; a change is worth seeing also when its data is not there yet."""
    try:
        return costs_of(services, graph)
    except (DataError, ConfigError) as error:
        tell(f"what this would cost is not known: {error.what}")
        return ()


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


def priced(costs: Sequence[Cost]) -> list[str]:
    """What an apply would run, as lines; none when everything is kept."""
    run = [cost for cost in costs if cost.would != "keep"]
    if not run:
        return []
    known = [cost.seconds for cost in run if cost.seconds is not None]
    took = f", {sum(known):,.1f} s the last time" if known else ""
    found = ["", f"{len(run)} of {len(costs)} steps would run{took}"]
    for cost in run:
        if cost.would == "run":
            found.append(f"  {cost.step}{_seconds(cost)}{_rows(cost)}")
            found += [f"    {reason}" for reason in cost.reasons]
    if after := [f"{cost.step}{_seconds(cost)}" for cost in run if cost.would == "follow"]:
        found.append(f"  and what takes their results, if those change: {', '.join(after)}")
    return found


def unread(unused: Sequence[Unused], tables: Sequence[str]) -> list[str]:
    """What is kept and nothing reads, as lines."""
    kept = [*told(unused), *(f"table {name}, until mainspring tables drop" for name in tables)]
    return ["", "kept, and nothing reads it:", *(f"  {text}" for text in kept)] if kept else []


def told(unused: Sequence[Unused]) -> list[str]:
    """What is kept and nothing reads, and when it goes."""
    return [
        f"{one.what}, swept a day after an apply or a server sees it"
        if one.sweep_us is None
        else f"{one.what}, swept after {datetime.fromtimestamp(one.sweep_us / 1e6, UTC):%Y-%m-%d %H:%M} UTC"
        for one in unused
    ]


def _seconds(cost: Cost) -> str:
    return "" if cost.seconds is None else f" ({cost.seconds:,.1f} s)"


def _rows(cost: Cost) -> str:
    if not cost.rows:
        return ""
    return f", anew from {cost.rows:,} rows" if cost.anew else f", with {cost.rows:,} new rows"


def carried(sizing: Sizing) -> list[str]:
    """What GPUs carry of a language model, as lines."""
    found, gpus = sizing.found, f"{sizing.gpus} x {sizing.gpu}"
    each = " on each GPU" if sizing.gpus > 1 else ""
    told = [
        f"capacity of llm/{sizing.llm} on {gpus}, sequences of {sizing.length:,} tokens",
        f"  stored     weights as {sizing.weights}, cache as {sizing.cache}",
        f"  weights    {_gib(found.weights)}{each}, of {_gib(sizing.memory)} that the engine may take",
        f"  cache      {found.kv_per_token:,.0f} bytes a token{each}; {_gib(sizing.runtime)} are for the engine itself",
    ]
    if found.fits:
        told += [
            f"  pool       {_gib(found.pool)}: {found.tokens:,} tokens, {found.sequences:,.1f} sequences at once",
            f"  one        {found.single:,.1f} tokens/s expected, {found.ceiling:,.1f} at most",
            f"  all        {found.saturated:,.0f} tokens/s expected when full, each waits {found.step * 1000:.1f} ms",
            f"  prompts    {found.prefill:,.0f} tokens/s expected, {sizing.prefill_ceiling:,.0f} at most",
            f"  memory decides up to {found.crossover:,.0f} streams, arithmetic beyond",
        ]
    else:
        told.append(f"  does not fit: {_gib(found.pool)} are left for the cache, {found.sequences:.2f} of a sequence")
    told += [f"  with weights in {kind}: {held:,.1f} sequences" for kind, held in sizing.sequences.items()]
    return told + [f"  note: {note}" for note in sizing.notes]


def _gib(size: float) -> str:
    return f"{size / GIB:,.2f} GiB"


def _shown(value: str | None) -> str:
    if value is None:
        return "none"
    return value[:12] if len(value) == 40 and all(c in "0123456789abcdef" for c in value) else value
