"""From one prediction back to what it came from: model version, training rows, tables, run and code."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from mainspring.choose.services import Services
from mainspring.plan.graph import Plan
from mainspring.ports.catalog import Label, Run
from mainspring.server.rollouts.composing import version_column
from mainspring.serving.predlog.arrow import ROLE
from mainspring.serving.predlog.find import find_prediction

__all__ = ["TracedPrediction", "TracedTable", "trace_prediction"]

_NOT_VALUES = frozenset({"prediction_id", "at", "version", "weight", "slice", "segment", "score", ROLE})


class TracedTable(msgspec.Struct, frozen=True):
    """A table that the model was trained on: its URL, the digest of its definition, the version and its rows."""

    url: str
    definition: str
    version: int
    rows: int
    digest: str


class TracedPrediction(msgspec.Struct, frozen=True):
    """A prediction with all that led to it.

    Attributes:
        id: the prediction's id.
        endpoint: which endpoint answered.
        at: the moment it was asked about.
        score: what was answered.
        values: the model's columns as they were.
        labels: what turned out, as far as it is known.
        model: the model's name.
        version: the model version's number.
        role: what the version was to a rollout then: ``stable`` or ``canary``.
        entity: the model version's id in the catalog.
        artifact: digest of the model's files.
        code: digest of all the code that trained it.
        training_rows: rows of the training set.
        training_set: the training set's id in the catalog.
        tables: what the training set was made from.
        run: the run that trained it, or None when it is not recorded any more.
    """

    id: str
    endpoint: str
    at: datetime
    score: float
    values: Mapping[str, object]
    labels: tuple[Label, ...]
    model: str
    version: int
    entity: str
    artifact: str
    code: str
    training_rows: int
    training_set: str
    tables: tuple[TracedTable, ...]
    run: Run | None
    role: str = "stable"


def trace_prediction(services: Services, plan: Plan, prediction: str) -> TracedPrediction | None:
    """Find a prediction in the logs of all endpoints, and follow it back; None when no log has it.

    Args:
        services: the project's ports.
        plan: the app's graph.
        prediction: the id that the answer gave.
    """
    for node in plan.of_kind("endpoint", over="model"):
        folder = services.state / "predictions" / node.name
        row = find_prediction(folder, node.name, services.tables, prediction)
        if row is not None:
            return _traced(services, node.name, node.inputs[0].rpartition("/")[2], row)
    for node in plan.of_kind("endpoint", over="composition"):
        folder = services.state / "predictions" / node.name
        row = find_prediction(folder, node.name, services.tables, prediction)
        composition = plan.node(node.inputs[0])
        if row is not None and composition is not None:
            # Followed back through its first model; the versions of all of them are among the values.
            first = composition.inputs[0].rpartition("/")[2]
            return _traced(services, node.name, first, {**row, "version": row[version_column(first)]})
    return None


def _traced(services: Services, endpoint: str, model: str, row: dict[str, Any]) -> TracedPrediction:
    catalog = services.catalog
    version = next(item for item in catalog.entities("model", model) if item.version == row["version"])
    training = catalog.entity_by_id(str(version.spec["training_set"]))
    spec: Mapping[str, Any] = {} if training is None else training.spec
    tables = tuple(
        TracedTable(url, str(spec["definitions"].get(url, "")), table["version"], table["rows"], table["digest"])
        for url, table in spec.get("tables", {}).items()
    )
    return TracedPrediction(
        id=row["prediction_id"],
        endpoint=endpoint,
        at=row["at"],
        score=row["score"],
        values={name: value for name, value in row.items() if name not in _NOT_VALUES},
        labels=tuple(catalog.labels([row["prediction_id"]])),
        model=model,
        version=version.version,
        entity=version.id,
        artifact=str(version.spec["artifact"]),
        code=str(version.spec["code"]),
        training_rows=int(spec.get("rows", 0)),
        training_set=str(version.spec["training_set"]),
        tables=tables,
        run=catalog.run(str(version.spec["run"])),
        role=str(row.get(ROLE) or "stable"),
    )
