"""The steps of a model: training set, fit, evaluation, version."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from mainspring.choose.services import Services
from mainspring.config.project import load_app
from mainspring.declare.app import parameters
from mainspring.declare.artifact import File
from mainspring.declare.declaration import DeclaredKind, name_of, spec_of
from mainspring.declare.frame import Frame
from mainspring.declare.model import ModelDeclaration, ModelSpec, Promotion, PromotionSpec
from mainspring.declare.step import StepOptions
from mainspring.engine.context import current
from mainspring.engine.driver import load
from mainspring.engine.task import Output, Task
from mainspring.engine.values import save
from mainspring.errors import UsageError
from mainspring.features.log import TableVersion
from mainspring.features.view import View
from mainspring.ports.runtime import Predictor, read_card
from mainspring.training.evaluate import Evaluation, evaluate
from mainspring.training.fit import fit
from mainspring.training.sets import TrainingShape, build, matrix, parts, shape_of, split
from mainspring.training.versions import Registered, decide, register

__all__ = ["tasks_of_model"]


def tasks_of_model(model: ModelDeclaration, views: Mapping[str, View], promotion: Promotion | None) -> tuple[Task, ...]:
    """The tasks ``training_set/NAME``, ``model/NAME``, ``evaluation/NAME`` and ``version/NAME`` of a declared model.

    They take the results of ``source/..`` and ``feature_view/..`` tasks (`TableVersion`); the last one gives a
    `Registered` and is never kept: it looks at the catalog.
    """
    name, spec = name_of(model), spec_of(model)
    shape = shape_of(name, spec, views)
    used = sorted({pick.view.name for pick in shape.picks})
    tables = {f"view_{view}": Output(f"feature_view/{view}") for view in used}
    rule = () if promotion is None or spec_of(promotion).when is None else (spec_of(promotion).when,)
    made = {"frame": Output(f"training_set/{name}")}
    judged = {**made, "folder": Output(f"model/{name}")}
    spine = {"spine": Output(f"source/{shape.source.name}")}
    return (
        Task(f"training_set/{name}", training_set, {"shape": shape}, {**spine, **tables}),
        Task(
            f"model/{name}",
            trained,
            {"model": name, "shape": shape, "given": dict(parameters(spec.function)), **_judging(spec)},
            made,
            reaches=(spec.function,),
            options=spec.options,
        ),
        Task(f"evaluation/{name}", evaluated, {"shape": shape, "metric": spec.metric, **_judging(spec)}, judged),
        Task(
            f"version/{name}",
            versioned,
            {"model": name, "shape": shape, "metric": spec.metric, **_judging(spec)},
            {**judged, "evaluation": Output(f"evaluation/{name}"), **spine, **tables},
            reaches=cast("tuple[Callable[..., object], ...]", rule),
            options=StepOptions(cache=False),
        ),
    )


def _judging(spec: ModelSpec) -> dict[str, Any]:
    return {"holdout": spec.holdout, "gap_us": spec.gap_us}


def _services() -> Services:
    return cast(Services, current().services)


def training_set(shape: TrainingShape, spine: TableVersion, **tables: TableVersion) -> Frame:
    """The training set at the versions of its tables."""
    return build(_services(), shape, spine, _by_view(tables))


def _by_view(tables: Mapping[str, object]) -> dict[str, TableVersion]:
    return {name.removeprefix("view_"): msgspec.convert(table, TableVersion) for name, table in tables.items()}


def trained(
    model: str, shape: TrainingShape, given: dict[str, object], holdout: float, gap_us: int, frame: Frame
) -> File:
    """The model's folder."""
    services = _services()
    spec = _declared(services, model)
    folder = Path(current().work_dir) / "model"
    folder.mkdir()
    card = fit(spec, shape, frame, services.converter, services.predictor, folder, given)
    print(f"{model}: {len(frame)} rows, stored as {card.format}; {card.why}")  # noqa: T201 - the step's log
    return File(folder)


def _declared(services: Services, model: str) -> ModelSpec:
    for item in load_app(services.settings).of_kind(DeclaredKind.MODEL):
        if name_of(item) == model and isinstance(item, ModelDeclaration):
            return spec_of(item)
    raise UsageError(f"no model is called {model!r}", code="MS-2602", fix="mainspring show model")


def evaluated(shape: TrainingShape, metric: str, holdout: float, gap_us: int, frame: Frame, folder: File) -> Evaluation:
    """The model on the rows that it was not fitted on."""
    _, judged = parts(frame, split(frame, holdout, gap_us))
    predictor = _services().predictor(folder.path)
    card = read_card(folder.path)
    found = evaluate(shape, judged, predictor.scores(matrix(judged, shape.columns, card.dtype)), metric)
    for name, estimate in found.metrics.items():
        if estimate.value is not None:
            current().log_metric(f"{shape.model}.{name}", estimate.value)
    return found


def versioned(
    model: str,
    shape: TrainingShape,
    metric: str,
    holdout: float,
    gap_us: int,
    frame: Frame,
    folder: File,
    evaluation: Evaluation,
    spine: TableVersion,
    **tables: TableVersion,
) -> Registered:
    """The model version, and whether it is the champion now."""
    services, context = _services(), current()
    how = split(frame, holdout, gap_us)
    pinned = {f"/source/{shape.source.name}": msgspec.to_builtins(spine)} | {
        f"/feature_view/{name}": msgspec.to_builtins(table) for name, table in _by_view(tables).items()
    }
    described: dict[str, object] = {
        "tables": pinned,
        "definitions": {pick.view.name: pick.view.version for pick in shape.picks},
        "columns": list(shape.columns),
        "rows": len(frame),
    }
    artifact = save(folder, services.objects).digest
    version = register(services.catalog, shape, artifact, evaluation, how, described, context.run_id)

    def loaded(digest: str) -> Predictor:
        stored = load(services, digest, File, context.work_dir / digest)
        return services.predictor(cast(File, stored).path)

    return decide(services.catalog, shape, _rule_of(services, model), metric, version, frame, loaded)


def _rule_of(services: Services, model: str) -> PromotionSpec | None:
    for item in load_app(services.settings).of_kind(DeclaredKind.PROMOTION):
        if isinstance(item, Promotion) and name_of(spec_of(item).model) == model:
            return spec_of(item)
    return None
