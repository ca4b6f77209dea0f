"""Declared pipelines and steps as graphs of tasks."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from mainspring.declare.data import FeatureView, Source
from mainspring.declare.declaration import name_of, origin_of, spec_of
from mainspring.declare.origin import Origin
from mainspring.declare.step import Call, Pipeline, Ref, Step, Unknown, trace
from mainspring.engine.fitting import feeds, fits, spell_type
from mainspring.engine.reference import annotations_of
from mainspring.engine.runs.maps import gather
from mainspring.engine.task import Output, Task, TaskGraph
from mainspring.engine.wire import StoredResult
from mainspring.errors import DeclarationError

__all__ = ["Given", "Resolve", "graph_of"]

Given = StoredResult | Sequence[StoredResult]
"""A result that another machine has computed, or several as a list."""

Resolve = Callable[[Source | FeatureView], Task | Sequence[Task]]
"""Makes the task that reads a source or computes a feature view; the last of several is the one that is wanted."""


def graph_of(
    target: Pipeline[..., object] | Step[..., object],
    arguments: Mapping[str, object],
    resolve: Resolve,
    *,
    given: Mapping[str, Given] = MappingProxyType({}),
    over: str | None = None,
) -> TaskGraph:
    """The graph of a pipeline with these arguments, or of a single step with what it needs.

    Args:
        target: what is to run.
        arguments: the parameters of the pipeline or of the step.
        resolve: makes tasks of the sources and feature views that steps take.
        given: of a step: results of other machines for parameters, or lists of them.
        over: of a step: the parameter to go over as a map.

    Raises:
        DeclarationError: MS-1020 to MS-1023 as the pipeline's body raises; MS-2040, an argument is missing;
            MS-2041, a value or a result does not fit; MS-2039, a result inside a mapping.
    """
    if isinstance(target, Step):
        builder = _Builder(resolve)
        builder.step(target, dict(arguments), over, origin_of(target), given)
        return TaskGraph(f"step/{name_of(target)}", builder.tasks())
    builder = _Builder(resolve)
    for call in trace(target, arguments).calls:
        builder.call(call)
    return TaskGraph(f"pipeline/{name_of(target)}", builder.tasks())


class _Builder:
    def __init__(self, resolve: Resolve) -> None:
        self._resolve = resolve
        self._tasks: dict[str, Task] = {}
        self._calls: dict[int, str] = {}
        self._inputs: dict[int, str] = {}
        self._returns: dict[str, object] = {}

    def tasks(self) -> tuple[Task, ...]:
        return tuple(self._tasks.values())

    def call(self, call: Call) -> None:
        """Add a call of the pipeline's body."""
        self._calls[call.index] = self.step(call.step, dict(call.arguments), call.over, call.origin)

    def step(
        self,
        step: Step[..., object],
        arguments: dict[str, object],
        over: str | None,
        origin: Origin,
        given: Mapping[str, Given] = MappingProxyType({}),
    ) -> str:
        """Add a step with its arguments; the name of its task."""
        spec = spec_of(step)
        name = self._free(f"step/{name_of(step)}")
        parameters = list(inspect.signature(spec.function).parameters)
        inputs = {
            parameter: Output(self._input(source))
            for parameter, source in zip(parameters, spec.inputs, strict=False)
            if parameter not in arguments and parameter not in given
        }
        inputs |= {parameter: self._handed(f"{name}.{parameter}", result) for parameter, result in given.items()}
        params = {}
        for parameter, value in arguments.items():
            found = self._refs(value, f"{name}.{parameter}", origin)
            if found is None:
                params[parameter] = value
            else:
                inputs[parameter] = found
        self._complete(step, {*inputs, *params}, origin)
        self._check(step, params, inputs, over, origin)
        self._note_returns(name, spec.function)
        if over is not None:
            self._returns[name] = list
        self._tasks[name] = Task(
            name, spec.function, params, inputs, (), spec.options, over, name_of(step), origin=str(origin_of(step))
        )
        return name

    def _handed(self, name: str, result: Given) -> Output:
        """A result that is there already, as a task."""
        if isinstance(result, StoredResult):
            self._tasks[f"{name}.given"] = Task(f"{name}.given", gather, given=result)
            return Output(f"{name}.given")
        parts = {str(number): self._handed(f"{name}.{number}", part) for number, part in enumerate(result)}
        self._tasks[name] = Task(name, gather, inputs=parts)
        return Output(name)

    def _note_returns(self, name: str, function: Callable[..., object]) -> None:
        annotations = annotations_of(function)
        if "return" in annotations:
            self._returns[name] = annotations["return"]

    def _free(self, name: str) -> str:
        found, number = name, 1
        while found in self._tasks:
            number += 1
            found = f"{name}-{number}"
        return found

    def _input(self, source: Step[..., object] | Source | FeatureView) -> str:
        """The task of a declared input, added once; a step that is an input runs with its defaults."""
        known = self._inputs.get(id(source))
        if known is None:
            if isinstance(source, Step):
                known = self.step(source, {}, None, origin_of(source))
            else:
                known = self._resolved(source)
            self._inputs[id(source)] = known
        return known

    def _resolved(self, source: Source | FeatureView) -> str:
        made = self._resolve(source)
        tasks = [made] if isinstance(made, Task) else list(made)
        for task in tasks:
            self._tasks.setdefault(task.name, task)
            self._note_returns(task.name, task.function)
        return tasks[-1].name

    def _refs(self, value: object, name: str, origin: Origin) -> Output | None:
        """The task whose result an argument is; None for a plain value."""
        if isinstance(value, Ref):
            return Output(self._calls[value.index])
        if isinstance(value, list | tuple) and any(isinstance(part, Ref) for part in value):
            return self._gathered(value, name, origin)
        if isinstance(value, Mapping) and any(isinstance(part, Ref) for part in value.values()):
            raise DeclarationError(
                f"{name} is a mapping with results of steps in it",
                code="MS-2039",
                why="a result is handed to a step as an argument, or in a list",
                origin=str(origin),
                fix="pass a list, or one argument for each",
            )
        return None

    def _gathered(self, parts: Sequence[object], name: str, origin: Origin) -> Output:
        if not all(isinstance(part, Ref) for part in parts):
            raise DeclarationError(
                f"{name} mixes results of steps with plain values",
                code="MS-2039",
                why="a list that a step is handed holds results only, or values only",
                origin=str(origin),
                fix="pass the values as another argument",
            )
        inputs = {str(n): Output(self._calls[part.index]) for n, part in enumerate(parts) if isinstance(part, Ref)}
        self._tasks[name] = Task(name, gather, inputs=inputs, origin=str(origin))
        self._returns[name] = list
        return Output(name)

    # -- checks before anything runs ------------------------------------------------------------------------------

    def _complete(self, step: Step[..., object], given: set[str], origin: Origin) -> None:
        plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(spec_of(step).function).parameters.items():
            if parameter.default is inspect.Parameter.empty and parameter.kind in plain and name not in given:
                raise DeclarationError(
                    f"step {name_of(step)!r} needs {name!r}",
                    code="MS-2040",
                    why="the parameter has no default, and nothing was given for it",
                    origin=str(origin),
                    fix=f"pass {name}=...",
                )

    def _check(
        self,
        step: Step[..., object],
        params: Mapping[str, object],
        inputs: Mapping[str, Output],
        over: str | None,
        origin: Origin,
    ) -> None:
        """What is given fits the annotations, items of a map one by one."""
        wanted = annotations_of(spec_of(step).function)
        for name, value in params.items():
            values = value if name == over and isinstance(value, list | tuple) else [value]
            for one in values:
                if not isinstance(one, Unknown) and not fits(one, wanted.get(name, typing.Any)):
                    raise _misfit(step, name, f"{type(one).__name__} {one!r:.60}", wanted[name], origin)
        for name, output in inputs.items():
            returned = self._returns.get(output.task, typing.Any)
            if name != over and not feeds(returned, wanted.get(name, typing.Any)):
                given = f"the result of {output.task}, {spell_type(returned)}"
                raise _misfit(step, name, given, wanted[name], origin)


def _misfit(step: Step[..., object], name: str, given: str, wanted: object, origin: Origin) -> DeclarationError:
    return DeclarationError(
        f"step {name_of(step)!r} takes {spell_type(wanted)} as {name!r}, not {given}",
        code="MS-2041",
        origin=str(origin),
        fix="pass what the annotation says, or change the annotation",
    )
