"""What the engine is asked to do: tasks and the graph they form."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from mainspring.declare.step import StepOptions
from mainspring.engine.wire import StoredResult

__all__ = ["Holds", "Output", "Task", "TaskGraph", "on_tables"]

_TABLES = ("numpy", "pandas", "pyarrow", "pyarrow.compute", "pyarrow.dataset")
"""`Task.imports` of functions that work on tables. Arrow imports pandas where it can, with its first scalar."""

Holds = Callable[[Any, Mapping[str, object], Any], bool]
"""Services, params and a kept result to whether it still holds."""


class Output(msgspec.Struct, frozen=True):
    """The result of another task of the graph, by the task's name."""

    task: str


class Task(msgspec.Struct, frozen=True):
    """One unit of work that is cached, retried and recorded.

    Attributes:
        name: unique in its graph: ``feature_view/congestion``.
        function: a module-level function, called by keyword with `params` and the loaded `inputs`. What it returns
            is stored by content: a `Frame`, a `File`, bytes, or what msgspec writes as JSON (a struct, a mapping,
            numbers, text); anything else is pickled and marked opaque. A parameter annotated with a
            `msgspec.Struct` receives a JSON result as that struct.
        params: values that enter the key by canonical encoding; a `File` enters by content.
        inputs: parameter name to the result it receives; a result enters the key by its content digest.
        reaches: other functions and classes whose code the task runs (a trainer, a feature function): their
            closures enter the key.
        options: retries, timeout, seed, environment and resources.
        over: the parameter that a map goes over, or None; its value or input is a list, and the task's result is
            the list of results in item order.
        title: what a person reads; the name when empty.
        holds: for a task that changes what lies outside the kept results (an alias, the online store): given the
            services, the params and a kept result, whether all is still as that result says. The result stands for
            another run only then. It is called in the driver and must be quick. None when nothing can have changed.
        origin: where the user declared what the task is for: ``flights.py:31``; errors that know no line of their own
            name it. The line of `function` when empty.
        imports: libraries that the function imports when it is called, as other tasks of the run do: the process that
            workers are forked from does it once for all. Importing them must leave no thread that a forked process
            would miss. What cannot be imported is left to the function.
        given: the result, for a task that another machine has carried out; it is not run, and has no row.
    """

    name: str
    function: Callable[..., object]
    params: Mapping[str, object] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    inputs: Mapping[str, Output] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    reaches: tuple[Callable[..., object] | type, ...] = ()
    options: StepOptions = msgspec.field(default_factory=StepOptions)
    over: str | None = None
    title: str = ""
    holds: Holds | None = None
    origin: str = ""
    imports: tuple[str, ...] = ()
    given: StoredResult | None = None


def on_tables(tasks: Iterable[Task]) -> list[Task]:
    """The same tasks, whose functions work on tables."""
    return [msgspec.structs.replace(task, imports=_TABLES) for task in tasks]


class TaskGraph(msgspec.Struct, frozen=True):
    """Tasks to carry out together; inputs refer to tasks of the same graph, and there is no cycle.

    Attributes:
        name: what is run, as the catalog records it: ``app/flights`` or ``pipeline/nightly``.
        tasks: in any order.
    """

    name: str
    tasks: tuple[Task, ...]
