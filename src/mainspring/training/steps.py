"""The steps of a model: training set, fit with conversion, evaluation, version."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import msgspec

from mainspring.catalog.ids import now_us
from mainspring.choose.backends import load_measured, record
from mainspring.choose.services import Services
from mainspring.config.project import load_app
from mainspring.declare.app import parameters
from mainspring.declare.artifact import File
from mainspring.declare.declaration import DeclaredKind, name_of, origin_of, spec_of
from mainspring.declare.frame import Frame
from mainspring.declare.model import ModelDeclaration, ModelSpec, Promotion, PromotionSpec
from mainspring.engine.context import current
from mainspring.engine.driver import load
from mainspring.engine.task import Output, Task
from mainspring.engine.values import save
from mainspring.errors import MainspringError, UsageError
from mainspring.features.definitions import keep_reads, reads_of
from mainspring.features.logs.log import TableVersion
from mainspring.features.offline.history import ARITHMETIC
from mainspring.features.selection import functions_of
from mainspring.features.view import View
from mainspring.plan.closure import closure_of
from mainspring.ports.runtime import Card, forms, read_card
from mainspring.training.evaluate import Evaluation, evaluate
from mainspring.training.fit import fit
from mainspring.training.folder import Workshop, read_report
from mainspring.training.gate import rule_digest
from mainspring.training.pins import identity_of, pin, pinned
from mainspring.training.promotion import Judge, Registered, decide, stands
from mainspring.training.sets import TrainingShape, beside, build, matrix, shape_of
from mainspring.training.split import parts, split
from mainspring.training.versions import ModelVersion, register

__all__ = ["tasks_of_model"]

_VIEW = "view_"


def tasks_of_model(
    model: ModelDeclaration, views: Mapping[str, View], promotion: Promotion | None, segments: Sequence[str] = ()
) -> tuple[Task, ...]:
    """The tasks ``training_set/NAME``, ``model/NAME``, ``evaluation/NAME`` and ``version/NAME`` of a declared model.

    They take the results of ``source/..`` and ``feature_view/..`` tasks (`TableVersion`); the last one gives a
    `Registered`, which is kept for as long as the aliases are as it left them. ``segments/NAME`` stands beside the
    training set, so that a column that is only watched does not make another model.

    Args:
        model: the declaration.
        views: the runtime views by name.
        promotion: its declared promotion rule, or None.
        segments: columns of the label's source that monitors tell rows apart by.

    Raises:
        DataError: MS-2201, an input or the label is no number; MS-2206, two inputs have one name.
    """
    name, spec = name_of(model), spec_of(model)
    shape = shape_of(name, spec, views)
    used = sorted({pick.view.name for pick in shape.picks})
    tables = {f"{_VIEW}{view}": Output(f"feature_view/{view}") for view in used}
    functions = functions_of(spec.inputs)
    declared = None if promotion is None else spec_of(promotion)
    made = {"frame": Output(f"training_set/{name}")}
    judged = {**made, "folder": Output(f"model/{name}")}
    spine = {"spine": Output(f"source/{shape.source.name}")}
    dividing: dict[str, Any] = {"holdout": spec.holdout, "gap_us": spec.gap_us}
    declared_at = str(origin_of(model))
    further = Task(
        f"segments/{name}",
        segment_columns,
        {"shape": shape, "columns": list(segments)},
        spine,
        title=f"segments of {name}",
        origin=declared_at,
    )
    return (
        *((further,) if segments else ()),
        Task(
            f"training_set/{name}",
            training_set,
            {"shape": shape, "functions": functions, "arithmetic": ARITHMETIC},
            {**spine, **tables},
            reaches=tuple(functions.values()),
            title=f"training set of {name}",
            origin=declared_at,
        ),
        Task(
            f"model/{name}",
            trained,
            {"shape": shape, "given": dict(parameters(spec.function)), "tolerance": spec.tolerance, **dividing},
            made,
            reaches=(spec.function,),
            options=spec.options,
            title=f"model {name}",
            origin=declared_at,
        ),
        Task(
            f"evaluation/{name}",
            evaluated,
            {"shape": shape, "metric": spec.metric, **dividing},
            judged,
            title=f"evaluation of {name}",
            origin=declared_at,
        ),
        Task(
            f"version/{name}",
            versioned,
            {"shape": shape, "metric": spec.metric, "rule": rule_digest(declared), **dividing},
            {**judged, "evaluation": Output(f"evaluation/{name}"), **spine, **tables},
            title=f"version of {name}",
            origin=declared_at,
            holds=still_stands,
        ),
    )


def _services() -> Services:
    return cast(Services, current().services)


def _wait_quietly() -> None:
    """Let OpenMP's threads sleep while they wait, unless the user has said otherwise.

    They spin by default, and steps run side by side: on two busy cores a fit of one second took forty.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def _by_view(tables: Mapping[str, object]) -> dict[str, TableVersion]:
    return {name.removeprefix(_VIEW): msgspec.convert(table, TableVersion) for name, table in tables.items()}


def training_set(
    shape: TrainingShape,
    functions: dict[str, Callable[..., object]],
    arithmetic: int,
    spine: TableVersion,
    **tables: TableVersion,
) -> Frame:
    """The training set at the versions of its tables, pinned in the catalog.

    A set that was kept under another `arithmetic` is made anew: its bytes may be others.
    """
    assert arithmetic == ARITHMETIC, "a step is carried out by whoever planned it"
    services, views = _services(), _by_view(tables)
    built = build(services, shape, spine, views, functions, services.compute)
    pin(services.catalog, shape, spine, views, built)
    return built.frame


def segment_columns(shape: TrainingShape, columns: list[str], spine: TableVersion) -> Frame:
    """The columns that rows are told apart by, row by row beside the training set."""
    return beside(_services(), shape, spine, columns)


def trained(
    shape: TrainingShape, given: dict[str, object], tolerance: float, holdout: float, gap_us: int, frame: Frame
) -> File:
    """The model's folder."""
    _wait_quietly()
    services = _services()
    folder = Path(current().work_dir) / "model"
    folder.mkdir()
    spec = _declared(services, shape.model)
    card, report = fit(spec, shape, frame, given, Workshop(services.converter, services.own_predictor, folder))
    for name, value in report.metrics.items():
        current().log_metric(f"{shape.model}.training.{name}", value)
    for text in report.warnings:
        sys.stderr.write(f"warning: {text}\n")
    sys.stderr.write(f"{report.estimator} on {report.rows} rows, kept as {card.format}: {card.why}\n")
    if len(forms(card)) > 1:
        _measure(services, shape.model, folder, card)
    return File(folder)


def _measure(services: Services, model: str, folder: Path, card: Card) -> None:
    """Measure the forms where the library of each is loaded: a server on such a machine loads the chosen ones alone.

    What cannot be loaded or written down here is measured by the server.
    """
    load_form = partial(services.predictor, vouched=card.digest)
    with contextlib.suppress(MainspringError):
        artifact = save(File(folder), services.objects).digest
        _, measured = load_measured(folder, card, load_form, artifact, None)
        record(services.catalog, model, measured, now_us())


def _declared(services: Services, model: str) -> ModelSpec:
    for item in load_app(services.settings).of_kind(DeclaredKind.MODEL):
        if name_of(item) == model and isinstance(item, ModelDeclaration):
            return spec_of(item)
    raise UsageError(f"no model is called {model!r}", code="MS-2602", fix="mainspring show model")


def evaluated(shape: TrainingShape, metric: str, holdout: float, gap_us: int, frame: Frame, folder: File) -> Evaluation:
    """The model on the rows that it was not fitted on, as it is served."""
    _wait_quietly()
    _, judged = parts(frame, split(frame, holdout, gap_us))
    predictor = _services().own_predictor(folder.path)
    card = read_card(folder.path)
    found = evaluate(shape, judged, predictor.scores(matrix(judged, shape.columns, card.dtype)), metric)
    for name, estimate in found.metrics.items():
        if estimate.value is not None:
            current().log_metric(f"{shape.model}.{name}", estimate.value)
    return found


def versioned(
    shape: TrainingShape,
    metric: str,
    rule: str,
    holdout: float,
    gap_us: int,
    frame: Frame,
    folder: File,
    evaluation: Evaluation,
    spine: TableVersion,
    **tables: TableVersion,
) -> Registered:
    """The model version, and whether it is the champion now."""
    _wait_quietly()
    services, context = _services(), current()
    model = shape.model
    data = pinned(services.catalog, model, identity_of(shape, spine, _by_view(tables)))
    declared = _declared(services, model)
    reads = reads_of(declared.inputs, {pick.view.name: pick.view for pick in shape.picks})
    version = register(
        services.catalog,
        model,
        ModelVersion(
            artifact=save(folder, services.objects).digest,
            training_set=data.id,
            run=context.run_id,
            code=closure_of(declared.function).digest,
            task=shape.task,
            columns=shape.columns,
            card=read_card(folder.path),
            training=read_report(folder.path),
            split=split(frame, holdout, gap_us),
            metrics=evaluation.metrics,
            calibration=evaluation.calibration,
            slices=evaluation.slices,
            reads=keep_reads(services.catalog, model, reads),
        ),
    )

    def fetch(digest: str) -> Path:
        return cast(File, load(services, digest, File, context.work_dir / digest)).path

    judge = Judge(shape, metric, _rule_of(services, model), frame, fetch, services.own_predictor)
    done = decide(services.catalog, version, judge)
    sys.stderr.write(f"version {done.version}: {'champion' if done.champion else 'challenger'}, {done.why}\n")
    return done


def still_stands(services: Services, params: Mapping[str, object], kept: object) -> bool:
    """Whether the champion and the challenger are the ones that a `Registered` speaks of."""
    return stands(services.catalog, cast(TrainingShape, params["shape"]).model, msgspec.convert(kept, Registered))


def _rule_of(services: Services, model: str) -> PromotionSpec | None:
    for item in load_app(services.settings).of_kind(DeclaredKind.PROMOTION):
        if isinstance(item, Promotion) and name_of(spec_of(item).model) == model:
            return spec_of(item)
    return None
