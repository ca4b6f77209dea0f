"""What ``mainspring show`` says of a prediction, of a model's versions and of the rows of sources and views."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from typing import Any, cast

import msgspec

from mainspring.choose.services import Services
from mainspring.cli.output import moment
from mainspring.declare.rollout import RolloutStep, spell_step
from mainspring.features.logs.ingest import REASON
from mainspring.features.logs.log import newest
from mainspring.features.logs.quarantine import set_aside
from mainspring.features.quality.gate import PUSHED, REPLAYED, last_results
from mainspring.features.steps import sources_of, views_of
from mainspring.plan.graph import Node, Plan
from mainspring.ports.catalog import Alias, Entity
from mainspring.server.rollouts.drive import described
from mainspring.server.trace import TracedPrediction

__all__ = [
    "index_of",
    "prediction_lines",
    "quality_lines",
    "quality_of",
    "rollout_lines",
    "rollout_of",
    "source_lines",
    "table_of",
    "version_rows",
]

_SHOWN = 5


def prediction_lines(found: TracedPrediction) -> Iterator[str]:
    """A prediction from the answer back to the tables, the run and the code."""
    asked = found.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    yield f"/prediction/{found.id}  endpoint {found.endpoint}, asked about {asked}"
    yield f"  score: {found.score:.6g}"
    yield from (f"  {name}: {value}" for name, value in found.values.items())
    yield from (f"  label: {label.value:g}, known {moment(label.at)}" for label in found.labels)
    made = f"files {found.artifact[:12]}, code {found.code[:12]}"
    role = "" if found.role == "stable" else f" as a {found.role}"
    yield f"  answered by model/{found.model} version {found.version}{role}, {made}"
    yield f"  trained on {found.training_rows:,} rows, training set {found.training_set}"
    for table in found.tables:
        made = f"definition {table.definition[:12]}, content {table.digest[:12]}"
        yield f"    {table.url} version {table.version}, {table.rows:,} rows, {made}"
    if found.run is not None:
        commit = found.run.environment.get("git_sha") or "no commit"
        yield f"  by run {found.run.id}, {moment(found.run.started)}, commit {commit}: {found.run.reason}"


def rollout_of(services: Services, plan: Plan, node: Node) -> dict[str, Any] | None:
    """The newest rollout of a model, or of the one behind an endpoint, with what was seen of it; None without one."""
    url = node.url if node.kind == "model" else node.inputs[0]
    return described(services.catalog, url.removeprefix("/model/")) if url.startswith("/model/") else None


def rollout_lines(found: Mapping[str, Any] | None) -> Iterator[str]:
    """A rollout: what it is at, its steps, both versions' calls, and how far the tried one is from being stopped."""
    if found is None:
        return
    yield f"  rollout: {found['told']}, since {moment(found['started'])}, by {found['by']}"
    for place, step in enumerate(found["steps"]):
        mark = "*" if found["state"] == "running" and place == found["step"] else " "
        yield f"   {mark} {spell_step(msgspec.convert(step, RolloutStep))}"
    for version, calls in found["calls"].items():
        yield f"    version {version}: {calls:,} calls, {found['errors'][version]:,} failed"
    for look in found["looks"]:
        bound = "no look yet" if look["bound"] is None else f"{look['worse']:+.4f}, stopped above {look['bound']:.4f}"
        yield f"    {look['measure']}: {_shown(look['canary'])} beside {_shown(look['stable'])} ({bound})"
    if (shadow := found["shadow"]) is not None:
        mean = shadow["total"] / shadow["rows"] if shadow["rows"] else 0.0
        yield f"    shadow: {shadow['rows']:,} rows compared, {shadow['dropped']:,} calls dropped"
        yield f"    {shadow['flips']:,} other labels, scores {mean:.4g} apart, {shadow['greatest']:.4g} at most"


def _shown(value: float | None) -> str:
    return "nothing" if value is None else f"{value:.4g}"


def version_rows(versions: Sequence[Entity], aliases: Sequence[Alias], metric: str) -> list[tuple[str, ...]]:
    """A row for each model version, the newest first: number, when, the metric with its interval, rows, aliases."""
    names: dict[str, list[str]] = {}
    for alias in aliases:
        names.setdefault(alias.entity_id, []).append(alias.alias)
    return [
        (
            str(version.version),
            moment(version.created),
            _estimate(_part(version, "metrics").get(metric)),
            str(_part(version, "card").get("format", "")),
            ", ".join(sorted(names.get(version.id, []))),
        )
        for version in versions
    ]


def _part(version: Entity, name: str) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", version.spec.get(name, {}))


def _estimate(found: Mapping[str, Any] | None) -> str:
    if not found or found["value"] is None:
        return ""
    return f"{found['value']:.4f} [{found['low']:.4f}, {found['high']:.4f}] on {found['n']:,}"


def table_of(services: Services, plan: Plan, kind: str, name: str) -> dict[str, Any] | None:
    """The table of a source or view and what was set aside so far, with the last rows of it; None before it is made."""
    of = sources_of(plan)[name] if kind == "source" else views_of(plan)[name]
    version = newest(services.tables, of.log)
    if version is None:
        return None
    aside = set_aside(services.tables, of, _SHOWN)
    shown = None if aside is None else msgspec.structs.asdict(aside)
    return {"table": of.log, "version": version.version, "rows": version.rows, "set_aside": shown}


def quality_of(services: Services, kind: str, name: str) -> dict[str, Any]:
    """What checks and the replay of online answers found last of a source or view, and its open alarms."""
    catalog, url = services.catalog, f"{kind}/{name}"
    return {
        "checks": last_results(catalog, f"/{url}"),
        "pushed": last_results(catalog, f"/{url}", PUSHED),
        "replay": last_results(catalog, f"/{url}", REPLAYED),
        "alarms": [msgspec.to_builtins(alert) for alert in catalog.alerts(open_only=True, monitor=url)],
    }


def quality_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The results of checks, with rows that failed, and the alarms."""
    for part, said in (("checks", "checked"), ("pushed", "rows pushed that failed checks")):
        if (told := found[part]) is not None:
            yield f"  {said}, {moment(told['at'])}{': the batch was refused' if told['refused'] else ''}"
            for check in told["checks"]:
                yield f"    {check['state'].replace('_', ' '):<10} {check['check']}  {check['why']}".rstrip()
                for row in check["samples"]:
                    yield "      " + ", ".join(f"{name} {value}" for name, value in row.items())
    if (told := found["replay"]) is not None:
        yield f"  online answers that are others offline, {moment(told['at'])}"
        for answer in told["answers"]:
            keys = ", ".join(f"{name} {value}" for name, value in answer["keys"].items())
            yield f"    {keys} at {moment(answer['at'])}"
            for name in answer["differing"]:
                yield f"      {name}: online {answer['online'][name]}, offline {answer['offline'][name]}"
    for alert in found["alarms"]:
        yield f"  alarm: {alert['kind']}, {alert['state']}: {alert['detail'].get('why', '')}"


def index_of(services: Services, name: str) -> dict[str, Any]:
    """An index's versions, the moves of its alias, and the files that cannot be read, with the reason of each."""
    manifest = services.manifest
    rows = manifest.documents(name)
    return {
        "live": manifest.live(name),
        "documents": sum(bool(row.parsed) for row in rows),
        "quarantined": {f"{row.source}/{row.uri}": row.error for row in rows if row.status == "quarantined"},
        "versions": [msgspec.to_builtins(version) for version in manifest.versions(name)],
        "moves": [msgspec.to_builtins(move) for move in manifest.moves(name)],
    }


def source_lines(found: Mapping[str, Any] | None) -> Iterator[str]:
    """A table of a source or view, and the rows that were set aside with the reason of each."""
    if found is None:
        return
    yield f"  table {found['table']} version {found['version']}: {found['rows']:,} rows"
    aside = found["set_aside"]
    if aside is None:
        return
    yield f"  {aside['rows']:,} rows set aside so far, in table {aside['table']}; the last of them:"
    for row in aside["last"]:
        yield f"    {row[REASON]}: " + ", ".join(f"{name} {value}" for name, value in row.items() if name != REASON)
