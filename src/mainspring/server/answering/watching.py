"""The monitors of assistants at work: their runs on record and their evaluations, judged as the app declares."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from mainspring.assistants.run_log import RunLog, RunRow
from mainspring.choose.services import Services
from mainspring.config.settings import Settings
from mainspring.declare.assistant import AssistantMonitor, Evaluation
from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.options import yearly_budget
from mainspring.monitoring.answers import AMOUNTS, RATES, Answered, AnswerWatch, Read, Scored, Watching
from mainspring.monitoring.stats.decide import Finding
from mainspring.plan.graph import Node, Plan
from mainspring.server.answering.runs import run_log_path

__all__ = ["AnswerMonitors", "answered", "new_reference"]

_OF_KNOWLEDGE = frozenset({"uncited", "dropped", "retrieval"})
"""What is watched only of assistants that know an index."""


def answered(row: RunRow, knows: bool) -> Answered:
    """A run as its monitor counts it; one that its client stopped or that waits for a person says nothing.

    Args:
        row: the run.
        knows: whether the assistant knows an index.
    """
    if row.status in ("stopped", "waiting"):
        return Answered(row.done_us)
    failed = row.status == "failed"
    rates = {"errors": failed, "timeouts": failed and row.error_kind == "timeout"}
    if row.tool_calls:
        rates["tools"] = row.tool_faults > 0
    if not failed:
        rates["refusals"] = row.status == "refused"
        if knows and row.status == "ok":
            rates["uncited"] = row.citations == 0
    if row.citations or row.dropped:
        rates["dropped"] = row.dropped > 0
    amounts = {
        "latency": 0.0 if failed else float(row.took_us),
        "cost": float(row.cost_micro or 0),
        "tokens": float(row.prompt_tokens + row.completion_tokens),
        "retrieval": row.score or 0.0,
    }
    return Answered(row.done_us, rates, {name: value for name, value in amounts.items() if value > 0})


class AnswerMonitors:
    """The monitors of a process's assistants.

    Args:
        services: the project's ports.
        plan: the app's graph.
        log: the runs.
        show: takes a monitor's findings on all rows, for metrics.
    """

    def __init__(
        self, services: Services, plan: Plan, log: RunLog, show: Callable[[str, Sequence[Finding]], None]
    ) -> None:
        self._show = show
        self.watches: Mapping[str, AnswerWatch] = {
            node.name: _watch(services, plan, log, node) for node in plan.of_kind("monitor", over="assistant")
        }

    def once(self) -> int:
        """Judge the blocks that have closed; how many there were.

        Raises:
            StoreError: MS-4306, the runs cannot be read.
        """
        judged = 0
        for name, watch in self.watches.items():
            for _, findings in watch.close_blocks():
                judged += 1
                self._show(name, findings)
        return judged


def new_reference(services: Services, plan: Plan, node: Node) -> None:
    """Let a monitor of an assistant take its next blocks as its reference; a server at work takes that over.

    Args:
        services: the project's ports.
        plan: the app's graph.
        node: the monitor.
    """
    log = RunLog(run_log_path(services))
    try:
        _watch(services, plan, log, node).begin_anew()
    finally:
        log.close()


def _watch(services: Services, plan: Plan, log: RunLog, node: Node) -> AnswerWatch:
    spec = spec_of(cast(AssistantMonitor, node.declaration))
    target = node.inputs[0]
    known = plan.node(target)
    assert known is not None, "a monitor's target is in its plan"
    knows = bool(spec_of(spec.target).knows)
    evaluations = [one for one in plan.of_kind("evaluation") if target in one.inputs]
    watching = _watching(spec.watch, [one.name for one in evaluations], knows, spec.false_alarms, services.settings)
    return AnswerWatch(
        plan.app,
        node.name,
        watching(known.fingerprint),
        services.catalog,
        _reader(log, name_of(spec.target), knows),
        functools.partial(_scored, services, evaluations),
    )


def _watching(
    watch: Sequence[str], evaluations: Sequence[str], knows: bool, false_alarms: str, settings: Settings
) -> Callable[[str], Watching]:
    def of(names: Sequence[str]) -> tuple[str, ...]:
        if watch:
            return tuple(name for name in names if name in watch)
        return tuple(name for name in names if knows or name not in _OF_KNOWLEDGE)

    return lambda subject: Watching(
        of(tuple(RATES)),
        of(tuple(AMOUNTS)),
        of(evaluations),
        yearly_budget(false_alarms),
        int(settings.number("monitoring.block") * 1e6),
        settings.whole("monitoring.block_runs"),
        subject,
    )


def _reader(log: RunLog, assistant: str, knows: bool) -> Read:
    def read(since: int, until: int) -> Sequence[Answered]:
        return [answered(row, knows) for row in log.rows(assistant, since, until)]

    return read


def _scored(services: Services, evaluations: Sequence[Node]) -> Sequence[Scored]:
    """The last result of each evaluation that has been run."""
    found = []
    for node in evaluations:
        for event in services.catalog.last_events(what="evaluation.done", subject=node.url, limit=1):
            data: Mapping[str, Any] = event.data
            least = dict(spec_of(cast(Evaluation, node.declaration)).least)
            score = data["scores"].get(node.name, math.nan)
            limit = least.get(node.name, math.nan)
            found.append(Scored(node.name, event.at, data["passed"], score, limit, data["why"]))
    return found
