"""One step of an app, by itself: the contract that Kubeflow, Vertex AI, SageMaker, Azure ML and shell scripts share."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, cast

import msgspec

from mainspring.choose.services import Services
from mainspring.declare.data import FeatureView, Source, did_you_mean
from mainspring.declare.declaration import spec_of
from mainspring.declare.step import Step
from mainspring.deploy.portable.artifact import Producer, is_artifact, take_in, write_out
from mainspring.engine.arguments import converted
from mainspring.engine.driver import run_graph
from mainspring.engine.pipeline import Given, Resolve, graph_of
from mainspring.engine.reference import annotations_of
from mainspring.engine.runs.progress import Watch, silent
from mainspring.engine.runs.report import StepReport
from mainspring.engine.task import Task, TaskGraph
from mainspring.errors import UsageError
from mainspring.plan.graph import Plan

__all__ = ["RESULT", "ROWS", "Handed", "Stepped", "handed", "run_step", "step_named"]

RESULT = "result"
ROWS = "rows/"
"""Before the name of a source or a feature view: the step that gives its rows."""
_PORTS = (Source, FeatureView)


class Handed(msgspec.Struct, frozen=True):
    """What a step is handed.

    Attributes:
        texts: plain values, as text, by parameter.
        artifacts: folders by parameter; several are a list.
    """

    texts: Mapping[str, str]
    artifacts: Mapping[str, Sequence[Path]]


class Stepped(msgspec.Struct, frozen=True):
    """What came of it.

    Attributes:
        step: its name.
        run: the run's id.
        key: its cache key.
        status: ``ok`` it ran, ``hit`` a kept result was used.
        digest: of the result.
        kind: of the result.
        outputs: where it was written, by name.
    """

    step: str
    run: str
    key: str
    status: Literal["ok", "hit"]
    digest: str
    kind: str
    outputs: dict[str, str]


def handed(
    pairs: Iterable[tuple[str, str]], plain: Iterable[tuple[str, str]], step: Step[..., object] | None
) -> Handed:
    """What ``--in`` and ``--text`` say, told apart.

    ``k=@path`` is an artifact, or the text of a file; ``k=path`` of an artifact's folder is an artifact, unless the
    parameter is text; all else is a value.

    Raises:
        UsageError: MS-2764, the file cannot be read; MS-2765, a parameter is given twice.
    """
    wanted = {} if step is None else annotations_of(spec_of(step).function)
    texts: dict[str, str] = {}
    artifacts: dict[str, list[Path]] = {}
    for key, text in pairs:
        path = Path(text.removeprefix("@"))
        if is_artifact(path) and (text.startswith("@") or wanted.get(key) is not str):
            artifacts.setdefault(key, []).append(path)
        else:
            _once(key, texts)
            texts[key] = _content(path, key) if text.startswith("@") else text
    for key, text in plain:
        _once(key, texts)
        texts[key] = text
    for key in texts.keys() & artifacts.keys():
        _once(key, texts)
    return Handed(texts, artifacts)


def _once(key: str, texts: Mapping[str, str]) -> None:
    if key in texts:
        raise UsageError(
            f"parameter {key!r} is given twice",
            code="MS-2765",
            why="only artifacts may be given several times, as a list",
            fix="give it once",
        )


def _content(path: Path, key: str) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{key}=@{path} cannot be read",
            code="MS-2764",
            why=getattr(error, "strerror", None) or str(error),
            fix="@ names a file with the value, or an artifact's folder; write --text for a value that begins with @",
        ) from error


def run_step(
    services: Services,
    plan: Plan,
    name: str,
    given: Handed,
    outputs: Mapping[str, Path],
    resolve: Resolve,
    *,
    over: str | None = None,
    run: str = "",
    watch: Watch = silent,
) -> Stepped:
    """Carry out one step with what it is handed, and write its result.

    Attempts are the orchestrator's: a step fails at its first failure, whatever its ``retries`` say; the items of a map
    are tried again here, as nobody else sees them. Its timeout holds.

    Args:
        services: the project's ports; what they keep is used.
        plan: the app's graph.
        name: of a step; or ``rows/NAME``, the rows of a source or feature view.
        given: what it is handed.
        outputs: where to write its result: ``{"result": path}``.
        resolve: makes tasks of the sources and feature views that are not handed.
        over: the parameter to go over as a map.
        run: the orchestrator's name for its run, for the record.
        watch: told what happens.

    Raises:
        UsageError: MS-2766, no step has that name; MS-2762, there is no such output; MS-2767, no such parameter.
        MainspringError: the step's own failure, or that of an artifact or a store.
    """
    for output in outputs:
        if output != RESULT:
            raise UsageError(
                f"step {name!r} has no output {output!r}",
                code="MS-2762",
                why="a step has one result",
                fix=f"--out {RESULT}=PATH",
            )
    graph = _graph(services, plan, name, given, resolve, over)
    report = run_graph(graph, services, watch=watch, reason=f"step of {run}" if run else "step").check()
    done = report.step(graph.tasks[-1].name)
    assert done.result is not None
    producer = Producer(done.name, done.key, report.run_id)
    for path in outputs.values():
        write_out(done.result, producer, services.objects, path)
    return Stepped(
        name, report.run_id, done.key, _status(done), done.result.digest, done.result.kind, _spelled(outputs)
    )


def _status(done: StepReport) -> Literal["ok", "hit"]:
    return "hit" if done.status == "hit" else "ok"


def _spelled(outputs: Mapping[str, Path]) -> dict[str, str]:
    return {name: os.fspath(path) for name, path in outputs.items()}


def _graph(services: Services, plan: Plan, name: str, given: Handed, resolve: Resolve, over: str | None) -> TaskGraph:
    if name.startswith(ROWS):
        return TaskGraph(name, _rows(plan, name.removeprefix(ROWS), given, resolve))
    step = step_named(plan, name)
    function, inputs = spec_of(step).function, spec_of(step).inputs
    taken = list(inspect.signature(function).parameters)
    for key in [*given.artifacts, *([over] if over else [])]:
        if key not in taken:
            raise UsageError(
                f"step {name!r} has no parameter {key!r}",
                code="MS-2767",
                why="its parameters are " + (", ".join(taken) or "none"),
                fix=did_you_mean(key, taken),
            )
    results: dict[str, Given] = {}
    for key, paths in given.artifacts.items():
        found = [take_in(path, services.objects, lambda digest: _is_ours(services, digest)) for path in paths]
        results[key] = found[0] if len(found) == 1 else found
    values = converted(function, given.texts, filled=len(inputs), handed=results, over=over)
    graph = graph_of(step, values, resolve, given=results, over=over)
    return TaskGraph(graph.name, (*graph.tasks[:-1], _tried_once(graph.tasks[-1])))


def step_named(plan: Plan, name: str) -> Step[..., object]:
    """The step of that name.

    Raises:
        UsageError: MS-2766.
    """
    node = plan.node(f"/step/{name.removeprefix('step/')}")
    if node is None or not isinstance(node.declaration, Step):
        known = [one.name for one in plan.of_kind("step")]
        raise UsageError(
            f"no step is called {name!r}",
            code="MS-2766",
            why="the app declares " + (", ".join(known) or "no step"),
            fix=did_you_mean(name, known) if known else "declare one with @app.step()",
        )
    return cast("Step[..., object]", node.declaration)


def _tried_once(task: Task) -> Task:
    if task.over is not None:
        return task
    return msgspec.structs.replace(task, options=msgspec.structs.replace(task.options, retries=0))


def _rows(plan: Plan, name: str, given: Handed, resolve: Resolve) -> tuple[Task, ...]:
    if given.texts or given.artifacts:
        raise UsageError(f"{ROWS}{name} takes no arguments", code="MS-2768", fix=f"mainspring step {ROWS}{name}")
    for kind in ("source", "feature_view"):
        node = plan.node(f"/{kind}/{name}")
        if node is not None and isinstance(node.declaration, _PORTS):
            made = resolve(node.declaration)
            return (made,) if isinstance(made, Task) else tuple(made)
    known = [node.name for kind in ("source", "feature_view") for node in plan.of_kind(kind)]
    raise UsageError(
        f"no source or feature view is called {name!r}", code="MS-2766", fix=did_you_mean(name, known) if known else ""
    )


def _is_ours(services: Services, digest: str) -> bool:
    return digest in services.catalog.artifacts([digest])
