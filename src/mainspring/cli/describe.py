"""What ``mainspring show`` says of a prediction and of a model's versions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from typing import Any, cast

from mainspring.cli.output import moment
from mainspring.ports.catalog import Alias, Entity
from mainspring.server.trace import TracedPrediction

__all__ = ["prediction_lines", "version_rows"]


def prediction_lines(found: TracedPrediction) -> Iterator[str]:
    """A prediction from the answer back to the tables, the run and the code."""
    asked = found.at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    yield f"/prediction/{found.id}  endpoint {found.endpoint}, asked about {asked}"
    yield f"  score: {found.score:.6g}"
    yield from (f"  {name}: {value}" for name, value in found.values.items())
    yield from (f"  label: {label.value:g}, known {moment(label.at)}" for label in found.labels)
    made = f"files {found.artifact[:12]}, code {found.code[:12]}"
    yield f"  answered by model/{found.model} version {found.version}, {made}"
    yield f"  trained on {found.training_rows:,} rows, training set {found.training_set}"
    for table in found.tables:
        made = f"definition {table.definition[:12]}, content {table.digest[:12]}"
        yield f"    {table.url} version {table.version}, {table.rows:,} rows, {made}"
    if found.run is not None:
        commit = found.run.environment.get("git_sha") or "no commit"
        yield f"  by run {found.run.id}, {moment(found.run.started)}, commit {commit}: {found.run.reason}"


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
