"""What each page shows, as plain data: the template and the JSON twin get the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mainspring.choose.backends import latest, told
from mainspring.choose.report import conditions_report
from mainspring.console.distributions import columns_of, distribution
from mainspring.console.graph import layout
from mainspring.console.health import builder, health_of
from mainspring.console.previews import preview
from mainspring.console.rollouts import rollout_rows
from mainspring.console.state import ConsoleState
from mainspring.errors import StoreError
from mainspring.features.logs.log import TableVersion, newest
from mainspring.features.logs.quarantine import set_aside
from mainspring.features.quality.gate import PUSHED, REPLAYED, last_results
from mainspring.features.steps import sources_of, views_of
from mainspring.features.wal.commit import count_waiting
from mainspring.plan.graph import Node
from mainspring.ports.catalog import Alert, Entity, Run, StepRow
from mainspring.server.features.vector_indexes import described_named

__all__ = [
    "MUTES",
    "PAGES",
    "Page",
    "alarm_row",
    "conditions",
    "data",
    "data_detail",
    "model",
    "models",
    "object_page",
    "overview",
    "run",
    "runs",
    "serving",
]

_DATA = ("source", "feature_view", "vector_index")
MUTES = ("1h", "4h", "1d", "7d")
"""The lengths of time that the forms of alarms offer for a mute."""
_ASIDE = 20
"""How many rows of a source's quarantine its page shows."""

PAGES = (
    ("/", "Overview"),
    ("/runs", "Runs"),
    ("/data", "Data"),
    ("/models", "Models"),
    ("/serving", "Serving"),
    ("/assistants", "Assistants"),
    ("/monitors", "Monitors"),
    ("/conditions", "Conditions"),
)
"""The pages of the navigation, in order."""

Page = dict[str, Any]
_DRAWN = frozenset(
    (
        *("source", "feature_view", "vector_index", "model", "endpoint", "monitor", "pipeline"),
        *("documents", "index", "llm", "route", "prompt", "tool", "mcp", "assistant", "evaluation"),
    )
)


def overview(state: ConsoleState) -> Page:
    """Is anything wrong, what is this app, what happened last."""
    alerts = state.services.catalog.alerts(open_only=True)
    plan = state.plan()
    nodes = [node for node in plan.nodes if node.kind in _DRAWN]
    drawn = {node.url for node in nodes}
    states = health_of(state, nodes, alerts)
    drawing = layout(
        [(node.url, node.kind.replace("_", " "), states[node.url][0]) for node in nodes],
        [(url, node.url) for node in nodes for url in node.inputs if url in drawn],
    )
    return {
        "alarms": [alarm_row(alert) for alert in alerts],
        "graph": drawing,
        "nodes": [{"url": url, "state": word, "why": why} for url, (word, why) in states.items()],
        "runs": [_run_row(item) for item in state.services.catalog.runs(limit=8)],
    }


def runs(state: ConsoleState) -> Page:
    """All runs, the newest first."""
    return {"runs": [_run_row(item) for item in state.services.catalog.runs(limit=100)]}


def run(state: ConsoleState, run_id: str) -> Page | None:
    """One run: its timeline, and of each step inputs, outputs and log."""
    found = state.services.catalog.run(run_id)
    if found is None:
        return None
    steps = state.services.catalog.steps(run_id)
    end = max([step.ended or found.started for step in steps] + [found.ended or found.started + 1])
    span = max(end - found.started, 1)
    return {
        "run": _run_row(found),
        "reason": found.reason,
        "environment": found.environment,
        "metrics": [{"name": m.key, "value": m.value, "step": m.step} for m in state.services.catalog.metrics(run_id)],
        "steps": [_step(step, found.started, span) for step in steps],
    }


def step_log(state: ConsoleState, run_id: str, idx: int, map_idx: int, attempt: int) -> str | None:
    """What one attempt printed, or None when nothing was kept."""
    for step in state.services.catalog.steps(run_id):
        if (step.idx, step.map_idx, step.attempt) == (idx, map_idx, attempt) and step.log_digest:
            return state.services.objects.get(step.log_digest).decode("utf-8", "replace")
    return None


def models(state: ConsoleState) -> Page:
    """Every model with its champion and challenger."""
    return {"models": [_model_row(state, node.name) for node in state.plan().of_kind("model")]}


def model(state: ConsoleState, name: str) -> Page | None:
    """One model: versions, metrics with intervals, gates, aliases and their history."""
    versions = state.services.catalog.entities("model", name)
    if not versions and state.plan().node(f"/model/{name}") is None:
        return None
    aliases = {a.entity_id: a.alias for a in state.services.catalog.aliases("model", name)}
    events = state.services.catalog.last_events(subject=f"/model/{name}", limit=30)
    return {
        "name": name,
        "versions": [_version(item, aliases.get(item.id, "")) for item in versions],
        "events": [{"at": e.at, "actor": e.actor, "what": e.what, "data": e.data} for e in events],
    }


def data(state: ConsoleState) -> Page:
    """Sources, feature views and vector indexes with their last build."""
    nodes = [node for node in state.plan().nodes if node.kind in _DATA]
    return {"items": [_data_row(state, node) for node in nodes]}


def data_detail(state: ConsoleState, kind: str, name: str, asked: Mapping[str, str]) -> Page | None:
    """One source, feature view or vector index: schema, lineage, checks; of a view, its answer to the query."""
    plan = state.plan()
    node = plan.node(f"/{kind}/{name}")
    if node is None or kind not in _DATA:
        return None
    indexed = kind == "vector_index"
    return {
        "index": described_named(state.services, plan, name) if indexed else None,
        **object_page(state, node),
        **_data_row(state, node),
        "columns": [
            {"name": f.name, "type": str(f.type), "unit": f.rules.unit, "doc": f.rules.doc} for f in node.fields
        ],
        "quarantine": _quarantine(state, node),
        "quality": _quality(state, node),
        "looked_at": [] if indexed else columns_of(state, node),
        "distribution": distribution(state, node, asked["column"]) if "column" in asked and not indexed else None,
        "preview": preview(state, node, asked) if kind == "feature_view" else None,
        "alarms": [alarm_row(alert) for alert in state.services.catalog.alerts(open_only=True, monitor=node.url[1:])],
        "mutes": MUTES,
    }


def object_page(state: ConsoleState, node: Node) -> Page:
    """What the page of any declared thing has: how it is declared, its lineage and its builds."""
    plan, name = state.plan(), f"{node.kind}/{node.name}"
    return {
        "name": node.name,
        "kind": node.kind,
        "url": node.url,
        "spec": node.spec,
        "origin": str(node.origin),
        "upstream": [n.url for n in plan.upstream([node.url]) if n.url != node.url],
        "downstream": [n.url for n in plan.downstream([node.url]) if n.url != node.url],
        "history": [_step(step, step.started, 1) for step in state.services.catalog.step_history(name)],
    }


def serving(state: ConsoleState) -> Page:
    """Endpoints with their rates, and the inputs of the try-it form."""
    plan = state.plan()
    rows = [dict(row) for row in state.endpoints()]
    for row in rows:
        node = plan.node(f"/endpoint/{row['name']}")
        row["fields"] = [] if node is None else _request_fields(state, node)
        row |= rollout_rows(state, str(row["model"]))
        measured = latest(state.services.catalog, str(row["model"]))
        row["served"] = [] if measured is None else told(measured)
    nodes = [node for node in plan.of_kind("endpoint") if not node.inputs[0].startswith(("/model/", "/composition/"))]
    states = health_of(state, plan.upstream([node.url for node in nodes]), ())
    in_words = [
        {
            "name": node.name,
            "over": node.inputs[0],
            "state": states[node.url][0],
            "why": states[node.url][1],
            "talk": f"/assistants/{node.inputs[0].rpartition('/')[2]}",
        }
        for node in nodes
    ]
    return {"endpoints": rows, "in_words": in_words}


def conditions(state: ConsoleState) -> Page:
    """Every choice and setting with its origin."""
    return dict(conditions_report(state.services.settings))


def _request_fields(state: ConsoleState, endpoint: Node) -> list[dict[str, str]]:
    plan = state.plan()
    model_node = plan.node(endpoint.inputs[0])
    if model_node is None:
        return []
    wanted = set(_names(model_node.spec["inputs"]))
    for watching in plan.of_kind("monitor", over="model"):
        if model_node.url in watching.inputs:
            wanted |= set(_names(watching.spec["segments"]))
    spine = plan.node(model_node.inputs[0])
    views = [plan.node(url) for url in model_node.inputs[1:]]
    keys = {key for view in views if view is not None for key in _names(view.spec["entity"])}
    fields = [] if spine is None else spine.fields
    return [{"name": f.name, "type": f.type.kind.value} for f in fields if f.name in wanted | keys]


def _names(value: object) -> Sequence[str]:
    return value if isinstance(value, (list, tuple)) else []


def alarm_row(alert: Alert) -> dict[str, object]:
    """An alarm as pages show it."""
    return {
        "id": alert.id,
        "monitor": alert.monitor,
        "kind": alert.kind,
        "state": alert.state,
        "since": alert.since,
        "features": list(alert.features),
        "score": alert.score,
        "threshold": alert.threshold,
        "effect": alert.effect,
        "segment": alert.segment,
        "acked_by": alert.acked_by,
        "muted_until": alert.muted_until,
        "resolved": alert.resolved,
        "detail": alert.detail,
    }


def _run_row(item: Run) -> dict[str, object]:
    return {
        "id": item.id,
        "url": f"/runs/{item.id}",
        "pipeline": item.pipeline,
        "status": item.status,
        "started": item.started,
        "seconds": None if item.ended is None else (item.ended - item.started) / 1e6,
        "reason": item.reason,
    }


def _step(step: StepRow, started: int, span: int) -> dict[str, object]:
    ended = step.ended if step.ended is not None else step.started
    return {
        "idx": step.idx,
        "map_idx": step.map_idx,
        "attempt": step.attempt,
        "name": step.name,
        "status": step.status,
        "run_id": step.run_id,
        "started": step.started,
        "seconds": (ended - step.started) / 1e6,
        "left": 100 * (step.started - started) / span,
        "width": max(100 * (ended - step.started) / span, 0.4),
        "key": step.cache_key,
        "note": step.note,
        "error": step.error,
        "log": bool(step.log_digest),
        "outputs": [{"name": o.name, "digest": o.digest, "kind": o.kind, "size": o.size} for o in step.outputs],
        "inputs": step.detail.get("inputs", []),
    }


def _model_row(state: ConsoleState, name: str) -> dict[str, object]:
    versions = {item.id: item for item in state.services.catalog.entities("model", name)}
    row: dict[str, object] = {"name": name, "versions": len(versions), "champion": None, "challenger": None}
    for alias in state.services.catalog.aliases("model", name):
        if alias.alias in ("champion", "challenger") and alias.entity_id in versions:
            row[alias.alias] = _version(versions[alias.entity_id], alias.alias)
    return row


def _version(item: Entity, alias: str) -> dict[str, object]:
    return {
        "version": item.version,
        "id": item.id,
        "alias": alias,
        "created": item.created,
        "metrics": item.spec.get("metrics", {}),
        "spec": item.spec,
    }


def _data_row(state: ConsoleState, node: Node) -> dict[str, object]:
    steps = state.services.catalog.step_history(f"{node.kind}/{node.name}")
    last = steps[0] if steps else None
    # While it is built anew, and when that has failed, what was built before is what there is.
    built = next((made for step in steps if (made := builder(state, step)) is not None), None)
    # In this order a row that goes into the table meanwhile is counted twice rather than not at all.
    waiting = count_waiting(state.services.tables, sources_of(state.plan())[node.name]) if node.kind == "source" else 0
    held = None if built is None else _held(state, built)
    return {
        "name": node.name,
        "kind": node.kind,
        "url": f"/data{node.url}",
        "columns": len(node.fields),
        "status": "none" if last is None else last.status,
        "built": None if built is None else built.started,
        "looked": None if last is None else last.started,
        "note": "" if last is None else last.note,
        "held": None
        if held is None
        else {
            "rows": held.rows,
            "waiting": waiting,
            "quarantined": held.quarantined,
            "newest": held.max_event_us,
        },
    }


def _quarantine(state: ConsoleState, node: Node) -> dict[str, object] | None:
    """The rows of a source or view that were set aside, with their reasons; None where there are none."""
    plan = state.plan()
    if node.kind == "vector_index":
        return None
    of = sources_of(plan)[node.name] if node.kind == "source" else views_of(plan)[node.name]
    found = set_aside(state.services.tables, of, _ASIDE)
    return None if found is None else msgspec.structs.asdict(found)


def _quality(state: ConsoleState, node: Node) -> dict[str, object]:
    """What checks found last in a batch and in pushed rows, and answers that were others when computed again."""
    catalog = state.services.catalog
    return {
        "batch": last_results(catalog, node.url),
        "pushed": last_results(catalog, node.url, PUSHED),
        "replay": last_results(catalog, node.url, REPLAYED),
    }


_GONE = ("MS-4103", "MS-4131")
"""Codes of a blob and of a table that is not there; any other fault is not hidden."""


def _held(state: ConsoleState, built: StepRow) -> TableVersion | None:
    """What the log of a source or view holds now, with what was pushed after it was built; None where it is gone."""
    for output in built.outputs:
        if output.kind.endswith(":TableVersion"):
            try:
                log = msgspec.json.decode(state.services.objects.get(output.digest), type=TableVersion).table
                return newest(state.services.tables, log)
            except StoreError as error:
                if error.code not in _GONE:
                    raise
                return None
    return None
