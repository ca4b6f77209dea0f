"""How each declared thing is: a word for the colour of its box in the lineage graph, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec

from mainspring.console.state import ConsoleState
from mainspring.declare.documents import Documents
from mainspring.errors import MainspringError, StoreError
from mainspring.plan.graph import Node
from mainspring.ports.catalog import Alert, StepRow
from mainspring.rag.steps import IndexBuilt, folder_of

__all__ = ["Health", "builder", "built_index", "health_of", "last_step"]

Health = tuple[str, str]
"""``ok``, ``warn``, ``bad`` or ``none``, and why."""

_WORDS = {"ready": "ok", "starting": "warn", "failed": "bad"}
_WORSE = ("ok", "none", "warn", "bad")


def health_of(state: ConsoleState, nodes: Sequence[Node], alerts: Sequence[Alert]) -> dict[str, Health]:
    """The health of nodes by their URLs; inputs come before what is made from them.

    Args:
        state: the console's view of the process.
        nodes: of the plan, in its order.
        alerts: the open alarms.
    """
    found: dict[str, Health] = {}
    for node in nodes:
        found[node.url] = _BY_KIND.get(node.kind, _built)(state, node, found, alerts)
    return found


_Known = Mapping[str, Health]


def _built(state: ConsoleState, node: Node, known: _Known, alerts: Sequence[Alert]) -> Health:
    """What is made by a step is as its last attempt."""
    step = last_step(state, node)
    if step is None:
        return "none", "not built yet"
    return _word(step), step.status


def _word(step: StepRow) -> str:
    return "ok" if step.status in ("ok", "hit") else "warn" if step.status in ("running", "stopped") else "bad"


def _monitor(state: ConsoleState, node: Node, known: _Known, alerts: Sequence[Alert]) -> Health:
    mine = sum(alert.monitor == node.name for alert in alerts)
    return ("bad", f"{mine} open alarms") if mine else ("ok", "no alarm")


def _endpoint(state: ConsoleState, node: Node, known: _Known, alerts: Sequence[Alert]) -> Health:
    over = node.inputs[0]
    if over.startswith("/model/"):
        return "ok", "no alarm"
    return _of(over, known)


def _evaluation(state: ConsoleState, node: Node, known: _Known, alerts: Sequence[Alert]) -> Health:
    for event in state.services.catalog.last_events(what="evaluation.done", subject=node.url, limit=1):
        return ("ok", "passed") if event.data["passed"] else ("bad", str(event.data["why"]))
    return "none", "not run yet"


def _declared(state: ConsoleState, node: Node, known: _Known, alerts: Sequence[Alert]) -> Health:
    return "ok", "declared"


def _documents(state: ConsoleState, node: Node, known: _Known, alerts: Sequence[Alert]) -> Health:
    try:
        folder = folder_of(cast(Documents, node.declaration), state.services.settings).folder
    except MainspringError as error:
        return "bad", error.what
    return ("ok", "the folder is there") if folder.is_dir() else ("bad", "the folder is not there")


def _index(state: ConsoleState, node: Node, known: _Known, alerts: Sequence[Alert]) -> Health:
    manifest = state.services.manifest
    live, versions = manifest.live(node.name), manifest.versions(node.name)
    step = last_step(state, node)
    if step is not None and _word(step) == "bad":
        return "bad", f"the last build: {step.error or step.status}"
    filling = [
        f"version {item.version} is being built" for item in versions if item.state in ("building", "evaluating")
    ]
    if live is None:
        return "none", (f"{filling[0]}, and none answers yet" if filling else "never built")
    built = None if step is None else built_index(state, step)
    aside = len(built.quarantined) if built is not None else 0
    told = "; ".join([f"version {live} answers", *filling, *([f"{aside} files put aside"] if aside else [])])
    return ("warn" if aside else "ok"), told


def _llm(state: ConsoleState, node: Node, known: _Known, alerts: Sequence[Alert]) -> Health:
    row = next((row for row in state.answering.models() if row.name == node.name), None)
    if row is None:
        return "none", "not served here"
    told = f"{row.adapter} answers as {row.model}" if row.state == "ready" else row.why or "the engine is starting"
    return _WORDS[row.state], told


def _route(state: ConsoleState, node: Node, known: _Known, alerts: Sequence[Alert]) -> Health:
    """A route answers while one of its models does."""
    states = {url: _of(url, known)[0] for url in node.inputs}
    down = [url for url, word in states.items() if word != "ok"]
    if not down:
        return "ok", "every model answers"
    return ("warn" if len(down) < len(states) else "bad"), f"{', '.join(down)} does not answer"


def _assistant(state: ConsoleState, node: Node, known: _Known, alerts: Sequence[Alert]) -> Health:
    """An assistant is as good as the worst of what it needs; files that are put aside are the index's own matter."""
    needed = [(url, _of(url, known)) for url in node.inputs if not url.startswith("/tool/")]
    lacking = [
        (url, word, why)
        for url, (word, why) in needed
        if word in ("bad", "none") or (word == "warn" and url.startswith(("/llm/", "/route/")))
    ]
    if not lacking:
        return "ok", "its model and its indexes answer"
    url, word, why = max(lacking, key=lambda item: _WORSE.index(item[1]))
    return ("bad" if word == "bad" else "warn"), f"{url}: {why}"


def _of(url: str, known: _Known) -> Health:
    return known.get(url, ("none", "not declared"))


_BY_KIND: Mapping[str, Callable[[ConsoleState, Node, _Known, Sequence[Alert]], Health]] = {
    "monitor": _monitor,
    "endpoint": _endpoint,
    "documents": _documents,
    "index": _index,
    "llm": _llm,
    "route": _route,
    "prompt": _declared,
    "tool": _declared,
    "mcp": _declared,
    "assistant": _assistant,
    "evaluation": _evaluation,
}


def last_step(state: ConsoleState, node: Node) -> StepRow | None:
    """The last attempt at what a node is made by."""
    steps = state.services.catalog.step_history(f"{node.kind}/{node.name}", limit=1)
    return steps[0] if steps else None


def builder(state: ConsoleState, step: StepRow) -> StepRow | None:
    """The step that made what a step has: itself, or the earlier one whose result was taken again."""
    if step.status != "hit":
        return step if step.status == "ok" else None
    kept = state.services.catalog.cached([step.cache_key]).get(step.cache_key)
    if kept is None:
        return None
    made = (kept.run_id, kept.idx, kept.map_idx)
    return next(
        (s for s in state.services.catalog.steps(kept.run_id) if (s.run_id, s.idx, s.map_idx) == made and s.outputs),
        None,
    )


def built_index(state: ConsoleState, step: StepRow) -> IndexBuilt | None:
    """What the build of an index has found, or None where it is not kept any more."""
    made = builder(state, step)
    outputs: Sequence[Any] = () if made is None else made.outputs
    for output in outputs:
        if output.kind.endswith(":IndexBuilt"):
            try:
                return msgspec.json.decode(state.services.objects.get(output.digest), type=IndexBuilt)
            except StoreError:
                return None
    return None
