"""The record of assistants' runs of a project: where it is, what a run costs, whose traces are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from mainspring.assistants.run_log import RunLog
from mainspring.assistants.trace import RunRecord
from mainspring.choose.services import Services
from mainspring.declare.assistant import Assistant, AssistantEndpoint
from mainspring.declare.declaration import name_of, spec_of
from mainspring.plan.graph import Plan
from mainspring.ports.llm import Usage
from mainspring.server.answering.language import Language

__all__ = ["run_log_of", "run_log_path"]


def run_log_path(services: Services) -> Path:
    """The file with the numbers and traces of assistants' runs."""
    return services.state / "log" / "runs.db"


def run_log_of(services: Services, plan: Plan, language: Language, told: Callable[[str], None]) -> RunLog:
    """The record of a project's runs; whoever opens it closes it.

    Args:
        services: the project's ports.
        plan: the app's graph.
        language: its models, whose prices say what a run costs.
        told: told of faults.
    """
    models = {node.name: name_of(spec_of(cast(Assistant, node.declaration)).llm) for node in plan.of_kind("assistant")}

    def price(record: RunRecord) -> int | None:
        usage = record.answer.usage
        if usage is None:
            return None
        tokens = Usage(usage.prompt, usage.completion, cached=usage.cached)
        return language.cost_micro(models.get(record.assistant, record.assistant), tokens, record.at_us * 1000)

    settings = services.settings
    return RunLog(
        run_log_path(services),
        price=price,
        shares=_shares(plan),
        told=told,
        trace_days=settings.number("traces.days"),
        most_traces=settings.whole("traces.most"),
    )


def _shares(plan: Plan) -> Mapping[str, float]:
    """The share of each assistant's runs whose traces are kept: ``log=`` of its endpoint."""
    nodes = plan.of_kind("endpoint", over="assistant")
    return {node.inputs[0].rpartition("/")[2]: spec_of(cast(AssistantEndpoint, node.declaration)).log for node in nodes}
