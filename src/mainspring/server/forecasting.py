"""What applying the app would cost: the steps that would run, the rows they would read, what they took last time."""

from __future__ import annotations

from typing import Literal

import msgspec

from mainspring.choose.services import Services
from mainspring.engine.forecast import Forecast, forecast
from mainspring.engine.task import Task
from mainspring.features.logs.log import SourceTable, newest
from mainspring.features.view import View
from mainspring.plan.graph import Plan
from mainspring.server.loop import graph_for

__all__ = ["Cost", "costs_of"]


class Cost(msgspec.Struct, frozen=True):
    """What would become of one step of an ``apply``.

    Attributes:
        step: its name.
        would: ``keep`` its result, ``run``, or ``follow`` when it runs only if what it takes comes out differently.
        seconds: what it took the last time; None when it never ran.
        rows: rows of the source's log that a feature view would read; None for other steps.
        anew: whether a feature view's log would be made from the beginning.
        reasons: what has changed since its last attempt.
    """

    step: str
    would: Literal["keep", "run", "follow"]
    seconds: float | None
    rows: int | None
    anew: bool
    reasons: tuple[str, ...]


def costs_of(services: Services, plan: Plan) -> tuple[Cost, ...]:
    """What each step of an ``apply`` would cost, in the order of the run; nothing is run.

    Raises:
        DeclarationError, UserCodeError, StoreError: as the run would raise before its first step.
    """
    graph = graph_for(services, plan, f"app/{plan.app}", None)
    tasks = {task.name: task for task in graph.tasks}
    return tuple(_cost(services, tasks[one.name], one) for one in forecast(graph, services))


def _cost(services: Services, task: Task, found: Forecast) -> Cost:
    rows, anew = (None, False) if found.would == "keep" else _to_read(services, task)
    return Cost(found.name, found.would, found.seconds, rows, anew, tuple(map(str, found.reasons)))


def _to_read(services: Services, task: Task) -> tuple[int | None, bool]:
    """The rows between a view's log and its source's, and whether the view has no log yet."""
    view, source = task.params.get("view"), task.params.get("source")
    if not isinstance(view, View) or not isinstance(source, SourceTable):
        return None, False
    above, own = newest(services.tables, source.log), newest(services.tables, view.log)
    if own is None:
        return (None if above is None else above.rows), True
    return (None if above is None else max(above.rows - own.rows, 0)), False
