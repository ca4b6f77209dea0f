"""What the pages of language models and routes show: the engine, whether it answers, and the requests on record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mainspring.console.health import health_of
from mainspring.console.pages import Page, object_page
from mainspring.console.state import ConsoleState
from mainspring.llm.call_log import CallRow
from mainspring.plan.graph import Node, Plan
from mainspring.server.answering.language import ModelRow

__all__ = ["llm", "model_row", "names_of", "route"]

_CALLS = 50
_DAYS = 7


def llm(state: ConsoleState, name: str) -> Page | None:
    """One declared model: its engine, what that can do, whether it answers, and its requests."""
    node = state.plan().node(f"/llm/{name}")
    if node is None:
        return None
    models = [row for row in state.answering.models() if row.name == name]
    return _page(state, node, models, {})


def route(state: ConsoleState, name: str) -> Page | None:
    """One route: its models in order, and its requests."""
    node = state.plan().node(f"/route/{name}")
    if node is None:
        return None
    behind = [url.rpartition("/")[2] for url in node.inputs]
    rows = {row.name: row for row in state.answering.models()}
    shares = node.spec["split"]
    return _page(
        state, node, [rows[one] for one in behind if one in rows], shares if isinstance(shares, Mapping) else {}
    )


def _page(state: ConsoleState, node: Node, models: Sequence[ModelRow], shares: Mapping[str, Any]) -> Page:
    names = names_of(state.plan(), node)
    needed = state.plan().upstream([node.url])
    word, why = health_of(state, needed, ())[node.url]
    return {
        **object_page(state, node),
        "state": word,
        "why": why,
        "answers_as": [name for name in names if name != node.name],
        "models": [model_row(row) | {"share": shares.get(row.name)} for row in models],
        "talk": f"/assistants/{node.name}" if state.answering.partners().get(node.name) == node.kind else None,
        "days": [msgspec.to_builtins(row) for row in state.answering.days(names, _DAYS)],
        "calls": [_call(row) for row in state.answering.calls(names, _CALLS)],
    }


def names_of(plan: Plan, node: Node) -> list[str]:
    """The names that requests for a model or route go by: its own, and its endpoints'."""
    endpoints = (other.name for other in plan.of_kind("endpoint") if other.inputs[0] == node.url)
    return list(dict.fromkeys([node.name, *endpoints]))


def model_row(row: ModelRow) -> dict[str, object]:
    """A model's engine as pages show it."""
    can = row.can
    abilities = {
        "chat": can.chat,
        "completion": can.completion,
        "embeddings": can.embeddings,
        "tools": can.tools,
        "grammar": can.grammar,
        "logprobs": can.logprobs,
        "images": can.images,
        "seeds": can.seeds,
        "several choices": can.choices,
    }
    return {
        "name": row.name,
        "url": f"/llm/{row.name}",
        "adapter": row.adapter,
        "model": row.model,
        "state": row.state,
        "why": row.why,
        "fix": row.fix,
        "seconds": row.seconds,
        "context": can.context,
        "context_from": can.context_from,
        "can": [name for name, able in abilities.items() if able],
        "cannot": [name for name, able in abilities.items() if not able],
    }


def _call(row: CallRow) -> dict[str, object]:
    return {**msgspec.to_builtins(row), "at": row.at_ns // 1000}
