"""The gate: builds what is stale, then judges the challenger beside the champion."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from mainspring.choose.services import Services
from mainspring.declare.app import App
from mainspring.declare.artifact import File
from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.frame import Frame
from mainspring.declare.model import ModelDeclaration, Promotion, PromotionSpec
from mainspring.deploy.ci.verdict import Check, Row, Verdict
from mainspring.engine.driver import load, run_graph
from mainspring.engine.environment import commit_of
from mainspring.engine.runs.progress import Watch, silent
from mainspring.engine.runs.report import RunReport
from mainspring.engine.task import TaskGraph
from mainspring.errors import UsageError
from mainspring.features.logs.log import TableVersion
from mainspring.lazy import lazy
from mainspring.plan.graph import Node, Plan
from mainspring.ports.catalog import Entity
from mainspring.ports.runtime import read_card
from mainspring.server.gating import checks
from mainspring.server.gating.speed import race
from mainspring.server.loop import graph_for, named_node
from mainspring.training.gate import Comparison
from mainspring.training.promotion import Judge, Registered
from mainspring.training.sets import LABEL, TrainingShape, matrix
from mainspring.training.split import Split, parts
from mainspring.training.versions import CHAMPION, KIND, ModelVersion, told

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["judged"]

_TIMED_ROWS = 1000


class _Case(msgspec.Struct, frozen=True):
    """What is judged: the version that was just made, and the one that it would replace."""

    shape: TrainingShape
    frame: Frame
    new: Entity
    live: Entity | None
    found: ModelVersion
    split: Split
    place: Path
    read: Mapping[str, TableVersion]


def judged(services: Services, app: App, plan: Plan, name: str, *, watch: Watch = silent) -> Verdict:
    """Judge the newest version of a model as CI does, on whatever machine.

    Args:
        services: the project's ports.
        app: the loaded app.
        plan: its graph.
        name: the model's name.
        watch: told what is built.

    Raises:
        UsageError: MS-2781, it is no model.
        MainspringError: it cannot be built.
    """
    node = named_node(plan, name if "/" in name else f"model/{name}")
    if not isinstance(node.declaration, ModelDeclaration):
        raise UsageError(f"{name!r} is no model", code="MS-2781", fix="mainspring show model")
    graph = graph_for(services, plan, f"model/{node.name}", node)
    report = run_graph(graph, services, watch=watch, reason="gate").check()
    with _case(services, graph, report, node) as case:
        judge = _judge(services, plan, node, case)
        comparison = None if case.live is None else judge.compare(case.new, case.live)
        found = [*_data(services, case), *_model(services, case, comparison, judge)]
        if case.live is not None:
            found += _beside(services, case, judge)
        metrics = checks.compared(comparison)
        return Verdict(
            1,
            plan.app,
            node.name,
            commit_of(services.project),
            case.new.version,
            None if case.live is None else case.live.version,
            case.found.training_set,
            tuple(found),
            tuple(_row(name, new, live, comparison) for name, new, live in metrics),
            _slices(comparison),
        )


def _row(name: str, new: float | None, live: float | None, found: Comparison | None) -> Row:
    decides = found is not None and found.metric == name
    return Row(name, new, live, found.low, found.high) if decides and found is not None else Row(name, new, live)


def _slices(found: Comparison | None) -> tuple[Row, ...]:
    if found is None:
        return ()
    return tuple(Row(name, one.delta, None, one.low, one.high) for name, one in sorted(found.slices.items())[:200])


@contextmanager
def _case(services: Services, graph: TaskGraph, report: RunReport, node: Node) -> Iterator[_Case]:
    task = next(task for task in graph.tasks if task.name == f"version/{node.name}")
    done = msgspec.convert(load(services, report.step(task.name)), Registered)
    frame = cast(Frame, load(services, report.step(f"training_set/{node.name}"), Frame))
    new = services.catalog.entity_by_id(done.id)
    assert new is not None
    version = msgspec.convert(new.spec, ModelVersion)
    with tempfile.TemporaryDirectory() as place:
        live = _before(services, node.name, new)
        shape = cast(TrainingShape, task.params["shape"])
        yield _Case(shape, frame, new, live, version, version.split, Path(place), _rows_read(services, report))


def _rows_read(services: Services, report: RunReport) -> dict[str, TableVersion]:
    """The logs of the sources that the model is made from."""
    found = {}
    for step in report.steps:
        kind, _, name = step.name.partition("/")
        if kind == "source":
            found[name] = msgspec.convert(load(services, step), TableVersion)
    return found


def _before(services: Services, model: str, new: Entity) -> Entity | None:
    """The champion that the version is measured against: the present one, or the one that it replaced."""
    alias = services.catalog.alias(KIND, model, CHAMPION)
    live = None if alias is None else services.catalog.entity_by_id(alias.entity_id)
    if live is None or live.id != new.id:
        return live
    moves = [event.data for event in told(services.catalog, model, f"{KIND}.{CHAMPION}") if event.data["to"] == new.id]
    before = str(moves[-1].get("before") or "") if moves else ""
    return services.catalog.entity_by_id(before) if before else None


def _judge(services: Services, plan: Plan, node: Node, case: _Case) -> Judge:
    def fetch(digest: str) -> Path:
        return cast(File, load(services, digest, File, case.place / digest)).path

    metric = spec_of(cast(ModelDeclaration, node.declaration)).metric
    return Judge(case.shape, metric, _rule(plan, node.name), case.frame, fetch, services.predictor)


def _rule(plan: Plan, model: str) -> PromotionSpec | None:
    for node in plan.of_kind("promotion"):
        if isinstance(node.declaration, Promotion) and name_of(spec_of(node.declaration).model) == model:
            return spec_of(node.declaration)
    return None


# -- the checks -------------------------------------------------------------------------------------------------------


def _data(services: Services, case: _Case) -> list[Check]:
    settings = services.settings
    table = case.frame.arrow()
    y = np.asarray(table.column(LABEL), dtype=np.float64)
    columns = {name: case.frame[name].numpy() for name in case.shape.columns}
    pinned = services.catalog.entity_by_id(case.found.training_set)
    told_set = f"training set {case.found.training_set[:12]}, {len(case.frame):,} rows"
    return [
        checks.contract(
            {name: one.quarantined for name, one in case.read.items()},
            {name: one.rows for name, one in case.read.items()},
            settings.number("gate.set_aside"),
        ),
        checks.leaking(columns, y, case.shape.task, settings.number("gate.leakage")),
        Check("snapshot", "passed" if pinned is not None else "failed", told_set),
    ]


def _model(services: Services, case: _Case, comparison: Comparison | None, judge: Judge) -> list[Check]:
    settings = services.settings
    calibration = Check("calibration", "skipped", "the label is no yes or no")
    if case.shape.task == "binary":
        _, held_out = parts(case.frame, case.split)
        folder = judge.fetch(case.found.artifact)
        card = read_card(folder)
        scores = services.predictor(folder).scores(matrix(held_out, card.columns, card.dtype))
        y = np.asarray(held_out.arrow().column(LABEL), dtype=np.float64)
        calibration = checks.calibrated(y, np.asarray(scores, dtype=np.float64), settings.number("gate.calibration"))
    metric = comparison.metric if comparison is not None else next(iter(case.found.metrics))
    slices = {name: next(iter(by.values())) for name, by in case.found.slices.items()}
    return [
        checks.stronger(comparison),
        checks.slices_hold(comparison),
        *checks.fair(slices, settings.words("gate.fair"), metric, settings.number("gate.fairness")),
        calibration,
    ]


def _beside(services: Services, case: _Case, judge: Judge) -> list[Check]:
    """What takes both models: their scores, and what an answer costs."""
    assert case.live is not None
    settings = services.settings
    _, held_out = parts(case.frame, case.split)
    folders = [judge.fetch(str(one.spec["artifact"])) for one in (case.new, case.live)]
    rows, scores = [], []
    for folder in folders:
        card = read_card(folder)
        if set(card.columns) - set(held_out.columns):
            return [Check("scores", "skipped", "the champion takes columns that are no inputs now")]
        rows.append(matrix(held_out, card.columns, card.dtype))
        scores.append(services.predictor(folder).scores(rows[-1]))
    for name, values in zip(("new", "live"), rows, strict=True):
        np.save(case.place / f"{name}.npy", values[:_TIMED_ROWS])
    speed = race(services, folders[0], folders[1], case.place, settings.whole("gate.rounds"))
    return [
        checks.drifted(scores[0], scores[1], settings.number("gate.drift")),
        *checks.speedy(speed, settings.number("gate.slower"), settings.number("gate.larger")),
    ]
