"""The loop over all rooms: a plan into tasks, tasks into a run, and what was applied remembered."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Literal, cast

import msgspec

from mainspring.catalog.ids import now_us
from mainspring.choose.services import Services
from mainspring.declare.app import App, parameters
from mainspring.declare.data import FeatureView, Source
from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.documents import Index
from mainspring.declare.model import ModelDeclaration, Monitor, Promotion
from mainspring.declare.step import Pipeline, Step
from mainspring.engine.context import current
from mainspring.engine.driver import load, run_graph
from mainspring.engine.pipeline import Resolve, graph_of
from mainspring.engine.runs.progress import Watch, silent
from mainspring.engine.runs.report import RunReport
from mainspring.engine.task import Output, Task, TaskGraph, on_tables
from mainspring.errors import ServiceError, UsageError
from mainspring.features.logs.log import SourceTable, TableVersion, read_log, standing
from mainspring.features.online.materialise import Materialised, materialise, online_id, reaches
from mainspring.features.steps import sources_of, tasks_for, views_of
from mainspring.features.view import View
from mainspring.monitoring.steps import tasks_of_monitor
from mainspring.plan.graph import Node, Plan
from mainspring.server.answering.indexing import task_of_index
from mainspring.server.answering.prompts import keep_prompts, prompts_of
from mainspring.server.features.migrating import followed_by_champions, task_of_followed
from mainspring.server.features.sweeping import sweep_unused
from mainspring.server.features.tables import unread_tables
from mainspring.server.features.vector_indexes import tasks_of_vector_indexes
from mainspring.server.planning import remember
from mainspring.training.steps import tasks_of_model

Mode = Literal["pool", "inline"]

__all__ = [
    "Done",
    "apply",
    "graph_for",
    "named_node",
    "online_views",
    "resolver",
    "run_named",
    "segments_of",
    "workers_of",
]


class Done(msgspec.Struct, frozen=True):
    """A run, and the result of what was asked for, where it is small enough to print."""

    report: RunReport
    result: object


def apply(
    services: Services, app: App, plan: Plan, *, watch: Watch = silent, inline: bool = False, reason: str = "apply"
) -> RunReport:
    """Build all that the app declares and is not built yet; remember the plan when everything is.

    What fails holds up nothing but what is made from it: another model's version is built all the same.

    Args:
        services: the project's ports.
        app: the loaded app.
        plan: its graph.
        watch: told what happens.
        inline: run steps in this process.
        reason: for the record.
    """
    graph = graph_for(services, plan, f"app/{app.name}", None)
    mode: Mode = "inline" if inline else "pool"
    workers = workers_of(services)
    report = run_graph(graph, services, watch=watch, mode=mode, workers=workers, reason=reason, keep_going=True)
    if report.status == "ok":
        if prompts := prompts_of(plan):
            keep_prompts(services.catalog, prompts)
        remember(services, plan, now_us())
        _sweep(services, plan)
    return report


def _sweep(services: Services, plan: Plan) -> None:
    """Remove what nothing has read for a day; that it cannot be done now harms nothing."""
    try:
        views, sources = online_views(services, plan), sources_of(plan)
        for what in sweep_unused(services, plan, views, sources, {}, "apply"):
            sys.stderr.write(f"swept: {what}\n")
        if left := len(unread_tables(services, plan, views, sources)):
            tables = "1 table is" if left == 1 else f"{left} tables are"
            sys.stderr.write(f"{tables} kept that nothing reads: mainspring tables\n")
    except ServiceError as error:
        sys.stderr.write(f"what nothing reads was not swept: {error.what}\n")


def run_named(
    services: Services,
    app: App,
    plan: Plan,
    name: str,
    arguments: Mapping[str, object],
    *,
    watch: Watch = silent,
    inline: bool = False,
    force: bool = False,
    reason: str = "",
) -> Done:
    """Build one thing and what it is made from.

    Args:
        services: the project's ports.
        app: the loaded app.
        plan: its graph.
        name: ``NAME`` or ``KIND/NAME``.
        arguments: of a pipeline or step.
        watch: told what happens.
        inline: run steps in this process.
        force: do not use the kept results of the thing itself.
        reason: for the record.

    Raises:
        UsageError: MS-2602, nothing has that name; MS-2604, several things have it; MS-2605, arguments for what takes
            none.
    """
    node = named_node(plan, name)
    if isinstance(node.declaration, (Pipeline, Step)):
        graph = graph_of(node.declaration, dict(arguments), resolver(services, plan))
        wanted = [task.name for task in graph.tasks][-1:]
    else:
        if arguments:
            raise UsageError(
                f"{node.kind} {node.name!r} takes no arguments", code="MS-2605", fix="only steps and pipelines do"
            )
        graph = graph_for(services, plan, node.url.strip("/"), node)
        wanted = [task.name for task in graph.tasks if task.name.endswith(f"/{node.name}") and _own(node, task)]
    report = run_graph(
        graph,
        services,
        watch=watch,
        mode="inline" if inline else "pool",
        workers=workers_of(services),
        reason=reason or "run",
        force=frozenset(wanted) if force else frozenset(),
    )
    return Done(report, _small_result(services, report, wanted))


def workers_of(services: Services) -> int | None:
    """How many steps run at once; None is one a core."""
    return services.settings.whole("engine.workers") or None


def _own(node: Node, task: Task) -> bool:
    owned = {"model": ("training_set", "model", "evaluation", "version")}
    return task.name.partition("/")[0] in owned.get(node.kind, (node.kind,))


def _small_result(services: Services, report: RunReport, wanted: list[str]) -> object:
    if report.status != "ok" or not wanted:
        return None
    step = report.step(wanted[-1])
    if step.result is None or step.result.kind != "json":
        return None
    return load(services, step)


_RUNNABLE = ("model", "pipeline", "step", "feature_view", "source", "monitor", "index", "vector_index", "evaluation")
"""Kinds that a bare name may mean, the likeliest first."""


def named_node(plan: Plan, name: str) -> Node:
    """The node that a name on the command line means.

    Raises:
        UsageError: MS-2602, MS-2604.
    """
    text = name.strip("/")
    if "/" in text:
        found = [node for node in plan.nodes if node.url == f"/{text}"]
    else:
        order = {kind: place for place, kind in enumerate(_RUNNABLE)}
        found = sorted((n for n in plan.nodes if n.name == text and n.kind in order), key=lambda n: order[n.kind])
        if found and found[0].kind == "model":
            found = found[:1]  # its endpoint, promotion and monitor bear its name
    if not found:
        raise UsageError(f"nothing is called {name!r}", code="MS-2602", fix="mainspring show lists everything")
    if len(found) > 1:
        raise UsageError(
            f"{name!r} means several things",
            code="MS-2604",
            why=", ".join(node.url for node in found),
            fix=f"write {found[0].url.strip('/')}",
        )
    return found[0]


def graph_for(services: Services, plan: Plan, name: str, target: Node | None) -> TaskGraph:
    """The tasks of a plan, or of one node and what it is made from."""
    tasks = {task.name: task for task in _all_tasks(services, plan)}
    if target is None:
        return TaskGraph(name, tuple(tasks.values()))
    wanted: set[str] = {task.name for task in tasks.values() if _belongs(target, task)}
    waiting = list(wanted)
    while waiting:
        for output in tasks[waiting.pop()].inputs.values():
            if output.task not in wanted:
                wanted.add(output.task)
                waiting.append(output.task)
    return TaskGraph(name, tuple(task for task in tasks.values() if task.name in wanted))


def _belongs(target: Node, task: Task) -> bool:
    kind, _, name = task.name.partition("/")
    if target.kind == "model":  # its monitors may bear other names
        made_from = [output.task for output in task.inputs.values()]
        return task.name == f"version/{target.name}" or (kind == "baseline" and f"model/{target.name}" in made_from)
    if target.kind == "feature_view":
        return name == target.name and kind in ("feature_view", "online")
    if target.kind == "monitor":
        return name == target.name and kind == "baseline"
    return (kind, name) == (target.kind, target.name)


def _all_tasks(services: Services, plan: Plan) -> list[Task]:
    views = online_views(services, plan)
    promotions = {
        name_of(spec_of(item).model): item
        for node in plan.of_kind("promotion")
        if isinstance(item := node.declaration, Promotion)
    }
    tasks = list(tasks_for(plan, services))
    origins = {node.name: str(node.origin) for node in plan.of_kind("feature_view")}
    sources = sources_of(plan)
    tasks += [_online_task(name, view, sources, origins[name]) for name, view in views.items() if view.online]
    for name, view in followed_by_champions(services, plan, views, sources).items():
        origin = origins.get(view.name, "")
        tasks += [task_of_followed(name, view, sources[view.sources[0]], origin)]
        tasks += [_online_task(name, view, sources, origin)] if view.online else []
    tasks += tasks_of_vector_indexes(services, plan, views, sources)
    for node in plan.of_kind("model"):
        model = cast(ModelDeclaration, node.declaration)
        tasks += tasks_of_model(model, views, promotions.get(node.name), segments_of(plan, node))
    for node in plan.of_kind("monitor", over="model"):
        tasks += tasks_of_monitor(cast(Monitor, node.declaration), views)
    tasks = on_tables(tasks)
    tasks += [task_of_index(cast(Index, node.declaration), services.settings) for node in plan.of_kind("index")]
    for node in plan.of_kind("step"):
        step = cast("Step[..., object]", node.declaration)
        if not _needs_arguments(step):
            known = {task.name for task in tasks}
            tasks += [t for t in graph_of(step, {}, resolver(services, plan)).tasks if t.name not in known]
    return tasks


def segments_of(plan: Plan, model: Node) -> tuple[str, ...]:
    """The columns that the monitors of a model tell its rows apart by, sorted."""
    found: set[str] = set()
    for node in plan.of_kind("monitor", over="model"):
        if model.url in node.inputs:
            found |= {column.name for column in spec_of(cast(Monitor, node.declaration)).segments}
    return tuple(sorted(found))


def _needs_arguments(step: Step[..., object]) -> bool:
    spec = spec_of(step)
    names = list(parameters(spec.function))
    return spec.function.__code__.co_argcount - len(spec.inputs) > len(names)


def online_views(services: Services, plan: Plan) -> dict[str, View]:
    """The views with the numbers under which they are kept online."""
    plain = views_of(plan)
    return views_of(plan, {name: online_id(services.catalog, view) for name, view in plain.items()})


def _online_task(name: str, view: View, sources: Mapping[str, SourceTable], origin: str) -> Task:
    return Task(
        f"online/{name}",
        published,
        {"view": view, "source": None if view.decorated else sources[view.sources[0]]},
        {"at": Output(f"feature_view/{name}")},
        title=f"{name} online",
        holds=still_online,
        origin=origin,
    )


def published(view: View, source: SourceTable | None, at: TableVersion) -> Materialised:
    """Bring the online store up to a version of a view's log."""
    services = cast(Services, current().services)
    return materialise(view, services.tables, services.online, at.version, now_us=now_us(), source=source)


def still_online(services: Services, params: Mapping[str, object], kept: object) -> bool:
    """Whether the online store has what a `Materialised` says; one that was removed has not."""
    return reaches(
        cast(View, params["view"]), services.tables, services.online, msgspec.convert(kept, Materialised).through
    )


def resolver(services: Services, plan: Plan) -> Resolve:
    """What makes tasks of the sources and feature views that steps take: the last one gives their rows."""
    tasks = {task.name: task for task in tasks_for(plan, services)}

    def resolve(declaration: Source | FeatureView) -> list[Task]:
        kind = "source" if isinstance(declaration, Source) else "feature_view"
        wanted = tasks[f"{kind}/{name_of(declaration)}"]
        above = _above(tasks, wanted)
        frame = Task(
            f"rows/{name_of(declaration)}",
            rows_of,
            {"log": f"{kind}/{name_of(declaration)}"},
            {"at": Output(wanted.name)},
            origin=wanted.origin,
        )
        return on_tables([*above, wanted, frame])

    return resolve


def _above(tasks: Mapping[str, Task], wanted: Task) -> list[Task]:
    """All that a task is made from, inputs before what takes them."""
    found: dict[str, Task] = {}
    for output in wanted.inputs.values():
        above = tasks[output.task]
        found |= {task.name: task for task in (*_above(tasks, above), above)}
    return list(found.values())


def rows_of(log: str, at: TableVersion) -> object:
    """The rows of a source or view at a version, as the frame that a step receives."""
    services = cast(Services, current().services)
    table = standing(read_log(services.tables, at.table, at.version))
    return table.select([name for name in table.column_names if not name.startswith("_")])
