"""What the pages of assistants show: whom one can talk to, turns with their sources, and traces as trees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mainspring.assistants.events import Folded, Source
from mainspring.assistants.run_log import RunCounts, status_of
from mainspring.assistants.trace import RunRecord, Span
from mainspring.console.asking import identity_of, identity_row
from mainspring.console.engines import model_row, names_of
from mainspring.console.evaluations import of_target, runs_of
from mainspring.console.health import Health, health_of
from mainspring.console.pages import Page, object_page
from mainspring.console.state import ConsoleState
from mainspring.plan.graph import Node

__all__ = ["declared", "overview", "partner", "partner_kind", "trace", "turn"]

_KINDS = ("documents", "index", "llm", "route", "prompt", "tool", "mcp", "assistant", "evaluation")
_OTHERS = ("documents", "tool", "mcp", "prompt", "evaluation")
_RUNS = 20


def overview(state: ConsoleState) -> Page:
    """Assistants, the models and indexes behind them, tools, evaluations, and the last runs."""
    plan = state.plan()
    nodes = [node for node in plan.nodes if node.kind in _KINDS]
    states = health_of(state, plan.upstream([node.url for node in nodes]), ())
    rows = {row.name: row for row in state.answering.models()}
    of = {kind: [node for node in nodes if node.kind == kind] for kind in _KINDS}
    return {
        "assistants": [_assistant(state, node, states) for node in of["assistant"]],
        "models": [
            _row(node, states) | _today(state, node) | _engine(rows, node) for node in (*of["llm"], *of["route"])
        ],
        "indexes": [_row(node, states) for node in of["index"]],
        "others": [_row(node, states) for kind in _OTHERS for node in of[kind]],
        "runs": [_run(record) for record in state.answering.runs(limit=_RUNS)],
    }


def partner_kind(state: ConsoleState, name: str) -> Node | None:
    """The assistant, route or model that answers under a name, or None."""
    kind = state.answering.partners().get(name)
    return None if kind is None else state.plan().node(f"/{kind}/{name}")


def partner(state: ConsoleState, name: str, asked: Mapping[str, str]) -> Page | None:
    """The chat page of an assistant, a route or a model; of an assistant, its declaration and runs too.

    Args:
        state: the console's view of the process.
        name: who is talked to.
        asked: by whose rights: ``user``, ``groups``, ``tenant``.
    """
    node = partner_kind(state, name)
    if node is None:
        return None
    word, why = health_of(state, state.plan().upstream([node.url]), ())[node.url]
    runs = state.answering.runs(name, _RUNS)
    return {
        **object_page(state, node),
        "state": word,
        "why": why,
        "who": identity_row(identity_of(asked)),
        "knows": [url for url in node.inputs if url.startswith("/index/")],
        "may": [url for url in node.inputs if node.kind == "assistant" and not url.startswith(("/index/", "/llm/"))],
        "evaluations": of_target(state, node.url),
        "counts": _counts(state.answering.counts(name)),
        "runs": [_run(record) for record in runs],
        "history": [],
        "turns": [],
    }


def declared(state: ConsoleState, kind: str, name: str) -> Page | None:
    """A prompt, a tool or an evaluation as it is declared, with its lineage and its runs."""
    node = state.plan().node(f"/{kind}/{name}")
    if node is None:
        return None
    word, why = health_of(state, [node], ())[node.url]
    tried = runs_of(state, node) if kind == "evaluation" else []
    return {**object_page(state, node), "state": word, "why": why, "tried": tried}


def trace(state: ConsoleState, run: str) -> Page | None:
    """One run that is kept: question, answer, sources, and its spans."""
    record = state.answering.run(run)
    if record is None:
        return None
    return {
        **_run(record),
        "turn": turn(record.question, record.answer, record),
        "thread": record.thread,
        "who": {"user": record.owner, "tenant": record.tenant},
    }


def turn(question: str, answer: Folded, record: RunRecord | None) -> dict[str, object]:
    """One question with all that came of it.

    Args:
        question: what was asked; empty after a decision.
        answer: the run's events, folded.
        record: of the run, for its spans; None when it is not kept.
    """
    cited = {one.number for one in answer.citations}
    spans = () if record is None else record.spans
    return {
        "run": answer.run,
        "question": question,
        "text": answer.text,
        "sources": [_source(one) | {"cited": one.number in cited} for one in _once(answer.sources)],
        "citations": [msgspec.to_builtins(one) for one in answer.citations],
        "calls": _calls(answer),
        "usage": msgspec.to_builtins(answer.usage),
        "end": msgspec.to_builtins(answer.end),
        "error": msgspec.to_builtins(answer.error),
        "interrupt": msgspec.to_builtins(answer.interrupt),
        "spans": [_span(span, spans[0].took_us) for span in spans],
    }


def _once(sources: Sequence[Source]) -> list[Source]:
    """Each number once: what is found again is shown under the number that it has."""
    return list({source.number: source for source in sources}.values())


def _source(source: Source) -> dict[str, object]:
    return {
        "number": source.number,
        "index": source.index,
        "version": source.index_version,
        "title": source.title,
        "uri": source.uri,
        "path": list(source.path),
        "pages": None if source.pages is None else list(source.pages),
        "score": source.score,
        "text": source.text,
    }


def _calls(answer: Folded) -> list[dict[str, object]]:
    """The calls of tools, each with what came of it."""
    results = {result.id: result for result in answer.tools}
    found: list[dict[str, object]] = []
    for call in answer.calls:
        result = results.get(call.id)
        found.append(
            {
                "name": call.name,
                "arguments": dict(call.arguments),
                "status": "" if result is None else result.status,
                "content": "" if result is None else result.content,
            }
        )
    return found


def _span(span: Span, whole_us: int) -> dict[str, Any]:
    share = 100 / max(whole_us, 1)
    return {
        "id": span.id,
        "parent": span.parent,
        "kind": span.kind,
        "name": span.name,
        "start_us": span.start_us,
        "duration_us": span.took_us,
        "left": min(span.start_us * share, 99.6),
        "width": min(max(span.took_us * share, 0.4), 100.0),
        "failed": span.failed,
        "detail": dict(span.attributes),
    }


def _run(record: RunRecord) -> dict[str, object]:
    answer = record.answer
    usage = answer.usage
    return {
        "run": record.run,
        "url": f"/trace/{record.run}",
        "assistant": record.assistant,
        "at": record.at_us,
        "question": record.question,
        "status": status_of(answer),
        "took_us": record.spans[0].took_us if record.spans else None,
        "prompt_tokens": usage.prompt if usage is not None else None,
        "completion_tokens": usage.completion if usage is not None else None,
        "tool_calls": usage.tool_calls if usage is not None else None,
        "sources": len({source.number for source in answer.sources}),
        "citations": len(answer.citations),
        "dropped": answer.end.dropped if answer.end is not None else 0,
    }


def _counts(found: RunCounts) -> dict[str, int]:
    """What became of the runs that are on record."""
    return {
        "runs": found.runs,
        "answered": found.ok,
        "refused": found.refused,
        "failed": found.failed,
        "with citations": found.cited,
    }


def _assistant(state: ConsoleState, node: Node, states: Mapping[str, Health]) -> dict[str, object]:
    return {
        **_row(node, states),
        "url": f"/assistants/{node.name}",
        "model": node.inputs[0],
        "knows": [url for url in node.inputs if url.startswith("/index/")],
        "may": [url for url in node.inputs[1:] if not url.startswith("/index/")],
        "counts": _counts(state.answering.counts(node.name)),
    }


def _row(node: Node, states: Mapping[str, Health]) -> dict[str, object]:
    word, why = states[node.url]
    told = node.spec.get("description") or node.spec.get("template") or node.spec.get("place") or node.spec.get("cases")
    return {"name": node.name, "kind": node.kind, "url": node.url, "state": word, "why": why, "told": told or ""}


def _engine(rows: Mapping[str, Any], node: Node) -> dict[str, object]:
    row = rows.get(node.name) if node.kind == "llm" else None
    shown = {} if row is None else model_row(row)
    return {"adapter": shown.get("adapter", ""), "model": shown.get("model", "")}


def _today(state: ConsoleState, node: Node) -> dict[str, object]:
    """What a model's requests of today (UTC) came to, or None."""
    days = state.answering.days(names_of(state.plan(), node), 1)
    return {"today": msgspec.to_builtins(days[0]) if days else None}
