"""What a run of a graph would do, and how long that took the last time; nothing is run, claimed or recorded."""

from __future__ import annotations

import os
from typing import Literal

import msgspec

from mainspring.engine.context import EngineServices
from mainspring.engine.explain import Difference, since
from mainspring.engine.files import FileDigests
from mainspring.engine.order import laid_out
from mainspring.engine.runs.kept import KeptResults
from mainspring.engine.runs.keys import Keys
from mainspring.engine.runs.maps import gather
from mainspring.engine.task import Task, TaskGraph
from mainspring.engine.values import load as load_value
from mainspring.engine.wire import StoredResult
from mainspring.errors import MainspringError
from mainspring.ports.catalog import Catalog

__all__ = ["Forecast", "forecast"]

_RECENT = 20


class Forecast(msgspec.Struct, frozen=True):
    """What would become of one task.

    Attributes:
        name: the task's name.
        would: ``keep`` its result; ``run``; or ``follow``: what it takes would be made anew, and only if that comes
            out differently does it run.
        seconds: what its last finished attempt took; None when there was none.
        reasons: for ``run``, in what its key differs from its last attempt; empty when it never ran, or when its kept
            result does not hold any more.
    """

    name: str
    would: Literal["keep", "run", "follow"]
    seconds: float | None = None
    reasons: tuple[Difference, ...] = ()


def forecast(graph: TaskGraph, services: EngineServices) -> tuple[Forecast, ...]:
    """What a run of the graph would do with each task, inputs before what takes them.

    Raises:
        DeclarationError: MS-2030, the graph makes no sense; MS-1110, code that must be cached has no key.
        UserCodeError: MS-2038, a file that is a param cannot be read.
    """
    keys = Keys(FileDigests(services.state), dict(os.environ))
    kept = KeptResults(services.catalog, services.objects)
    results: dict[str, StoredResult] = {}
    found = []
    for task in laid_out(graph).tasks:
        inputs = {name: results[output.task] for name, output in task.inputs.items() if output.task in results}
        seconds = _last_seconds(services.catalog, task.name)
        if len(inputs) < len(task.inputs) or task.function is gather:
            found.append(Forecast(task.name, "follow", seconds))
            continue
        keyed = keys.of(task, inputs)
        result = kept.there(keyed.key) if task.options.cache or task.options.once else None
        if result is not None and _holds(task, services, result):
            results[task.name] = result
            found.append(Forecast(task.name, "keep", seconds))
            continue
        keyed.detail["from"] = {name: output.task for name, output in task.inputs.items()}
        reasons = since(services.catalog, task.name, keyed.detail) if keyed.key else ()
        found.append(Forecast(task.name, "run", seconds, reasons))
    return tuple(found)


def _holds(task: Task, services: EngineServices, result: StoredResult) -> bool:
    try:
        return task.holds is None or task.holds(services, task.params, load_value(result, services.objects))
    except MainspringError:
        return False  # a store that is gone or down: the run will say so


def _last_seconds(catalog: Catalog, name: str) -> float | None:
    for row in catalog.step_history(name, limit=_RECENT):
        if row.status == "ok" and row.ended is not None and row.map_idx < 0:
            return (row.ended - row.started) / 1e6
    return None
