"""The actuator's pages that Spring Boot has none of: models, features, labels, pipelines, rollouts, drift."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

import msgspec

from mainspring.declare.declaration import spec_of
from mainspring.declare.model import ModelDeclaration, Monitor
from mainspring.declare.options import yearly_budget
from mainspring.monitoring.references import reference_of
from mainspring.protocols.actuator.page import Operation, Page, RunBlocking, reading
from mainspring.protocols.http import Request
from mainspring.server.state import WorkerState
from mainspring.serving.inference import ServedModels
from mainspring.serving.telemetry import Series

__all__ = ["own_pages"]

_KINDS = ("score", "threshold", "effect", "floor")


def own_pages(
    state: WorkerState, models: ServedModels, rollouts: Callable[[], Mapping[str, object]], run: RunBlocking
) -> list[Page]:
    """The pages of this process's state."""
    shown: Mapping[str, Callable[[], object]] = {
        "models": lambda: {"models": {name: _model(models, name) for name in models.known()}},
        "features": lambda: _features(state),
        "labels": lambda: _labels(state),
        "pipelines": lambda: _pipelines(state),
        "rollouts": lambda: {"rollouts": rollouts()},
        "drift": lambda: {"monitors": [_drift(state, node.name) for node in state.plan.of_kind("monitor")]},
    }
    return [Page(name, (Operation("GET", reading(_ignoring(make), run)),)) for name, make in shown.items()]


def _ignoring(make: Callable[[], object]) -> Callable[[Request], object]:
    return lambda request: make()


def _model(models: ServedModels, name: str) -> Mapping[str, object]:
    served = models.get(name)
    return {
        "version": None if served is None else served.version,
        "platform": None if served is None else served.platform,
        "versions": [
            {"version": one.version, "state": one.state.value, **({"reason": one.reason} if one.reason else {})}
            for one in models.states(name)
        ],
        "labels": dict(models.labels(name)),
    }


def _features(state: WorkerState) -> Mapping[str, object]:
    ages = _by_labels(state.numbers(), "mainspring_feature_age_seconds")
    return {
        "views": [
            {
                "name": node.name,
                "from": list(node.inputs),
                "columns": {field.name: str(field.type) for field in node.fields},
                "age": [{**labels, "seconds": value} for labels, value in ages if labels.get("view") == node.name],
            }
            for node in state.plan.of_kind("feature_view")
        ],
        "services": sorted(state.feature_services),
    }


def _labels(state: WorkerState) -> Mapping[str, object]:
    received = _by_labels(state.numbers(), "mainspring_labels_total")
    return {
        "labels": [
            {"model": node.name, "name": spec_of(cast(ModelDeclaration, node.declaration)).label.name}
            for node in state.plan.of_kind("model")
        ],
        "received": sum(value for _, value in received),
    }


def _pipelines(state: WorkerState) -> Mapping[str, object]:
    runs = state.services.catalog.runs()
    found = []
    for node in state.plan.of_kind("pipeline"):
        last = next((run for run in runs if run.pipeline in (node.name, f"pipeline/{node.name}")), None)
        found.append(
            {"name": node.name, "from": list(node.inputs), "last": None if last is None else msgspec.to_builtins(last)}
        )
    return {"pipelines": found}


def _drift(state: WorkerState, monitor: str) -> Mapping[str, object]:
    """What a monitor has said last, of its reference and of a block."""
    catalog, subject = state.services.catalog, f"/monitor/{monitor}"
    reference = reference_of(catalog, monitor)
    node = next((one for one in state.plan.of_kind("monitor", over="model") if one.name == monitor), None)
    expected = None if node is None else yearly_budget(spec_of(cast(Monitor, node.declaration)).false_alarms)
    judged = catalog.last_events(what="monitor.evaluated", subject=subject, limit=1)
    facts = {} if reference is None else reference.data
    block = judged[0].data if judged else {}
    features: dict[tuple[str, str], dict[str, object]] = {}
    findings = cast("list[dict[str, object]]", block.get("findings", []))
    for one in findings:
        feature = features.setdefault((str(one.get("feature", "")), str(one.get("segment", ""))), {})
        feature[str(one.get("kind", ""))] = {
            key: one.get(key) for key in (*_KINDS, "mde", "state") if one.get(key) is not None
        }
    return {
        "monitor": monitor,
        "window": block.get("block"),
        "blocks": facts.get("reference_blocks", 0),
        "weak": facts.get("weak", False),
        "alpha": block.get("alpha", facts.get("alpha")),
        "expectedPerYear": expected,
        "features": [
            {"name": name, "segment": segment, "rank": rank, "kinds": kinds}
            for rank, ((name, segment), kinds) in enumerate(features.items(), 1)
        ],
    }


def _by_labels(numbers: Mapping[Series, float], name: str) -> list[tuple[dict[str, str], float]]:
    return [(dict(labels), value) for (known, labels), value in numbers.items() if known == name]
