"""What pages show of evaluations: the last runs with their measures, and whether the gate let them through."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from mainspring.console.state import ConsoleState
from mainspring.plan.graph import Node
from mainspring.ports.catalog import Event
from mainspring.server.answering.evaluations import Evaluated

__all__ = ["of_target", "runs_of"]

_RUNS = 20


def of_target(state: ConsoleState, url: str) -> list[dict[str, object]]:
    """The evaluations of an assistant or an index, each with its last run, or None where there was none."""
    return [
        {"name": node.name, "url": node.url, "last": next(iter(runs_of(state, node, 1)), None)}
        for node in state.plan().of_kind("evaluation")
        if url in node.inputs[:1]
    ]


def runs_of(state: ConsoleState, node: Node, limit: int = _RUNS) -> list[dict[str, object]]:
    """The last runs of an evaluation, the newest first."""
    found = state.services.catalog.last_events(what="evaluation.done", subject=node.url, limit=limit)
    least = node.spec["least"]
    return [_run(event, least if isinstance(least, Mapping) else {}) for event in found if event.subject == node.url]


def _run(event: Event, least: Mapping[str, Any]) -> dict[str, object]:
    done = msgspec.convert(event.data, Evaluated)
    gated = sorted(done.scores, key=lambda name: (name not in least, name != done.name, name))
    return {
        "at": event.at,
        "by": event.actor,
        "cases": done.cases,
        "passed": done.passed,
        "why": done.why,
        "scores": [{"measure": name, "value": done.scores[name], "least": least.get(name)} for name in gated],
        "cost_micro": done.scores.get("cost_micro"),
        "worst": [dict(one) for one in done.worst],
    }
