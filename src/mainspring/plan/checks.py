"""What can only be checked on the whole: names, joins, and labels that are known too late."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

from mainspring.declare.check import CLASSIFICATION, METRICS
from mainspring.declare.data import Column, Feature, FeatureView, did_you_mean
from mainspring.declare.declaration import Declaration, kind_of, name_of, origin_of, spec_of
from mainspring.declare.model import Input, ModelSpec, MonitorSpec, PromotionSpec, ScheduleSpec, Score
from mainspring.declare.on_demand import OnDemand, OnDemandFeature
from mainspring.declare.record import FieldSpec, Kind
from mainspring.declare.step import Pipeline, Step
from mainspring.errors import DeclarationError
from mainspring.plan.graph import Node

__all__ = [
    "check_model",
    "check_monitor",
    "check_promotion",
    "check_schedule",
    "feature_exists",
    "features_beneath",
    "unique_names",
]

_NUMBERS = frozenset({Kind.INTEGER, Kind.FLOAT, Kind.BOOLEAN, Kind.DECIMAL, Kind.TIMESTAMP, Kind.DATE})


def unique_names(declarations: Sequence[Declaration[object]]) -> None:
    """No two things of one kind share a name (MS-1101)."""
    seen: dict[tuple[str, str], Declaration[object]] = {}
    for declaration in declarations:
        key = (kind_of(declaration).value, name_of(declaration))
        if (first := seen.get(key)) is not None:
            raise DeclarationError(
                f"two {key[0].replace('_', ' ')}s are called {key[1]!r}",
                code="MS-1101",
                why=f"the first is at {origin_of(first)}",
                origin=str(origin_of(declaration)),
                fix='rename one, or pass called="..."',
            )
        seen[key] = declaration


def check_model(
    node: Node,
    spec: ModelSpec,
    names: Sequence[tuple[str, Input]],
    views: Mapping[str, Sequence[FieldSpec]],
) -> None:
    """A model's inputs exist, join, are known in time and are numbers (MS-1104, MS-1106 to MS-1108, MS-1111).

    Args:
        node: the model's node.
        spec: what was declared.
        names: every model column with the input it comes from.
        views: the columns of each view it uses, by URL.
    """
    seen: set[str] = set()
    for name, item in names:
        if name in seen:
            raise DeclarationError(
                f"model {node.name!r} has two inputs called {name!r}",
                code="MS-1106",
                why="a model column has one meaning",
                origin=str(node.origin),
                fix="rename one of the features, or list single features: inputs=[view.feature, ...]",
            )
        seen.add(name)
        if isinstance(item, Feature):
            feature_exists(item, views)
        _is_number(node, name, item, views)
    for item in spec.inputs:
        for used in features_beneath(item):
            _joins(node, spec, used.view if isinstance(used, Feature) else used)
            _known_in_time(node, spec, used)


def features_beneath(item: object) -> list[Feature | FeatureView]:
    """The features of views that an input is, or is made from through on-demand functions."""
    if isinstance(item, Feature | FeatureView):
        return [item]
    function = item.view if isinstance(item, OnDemandFeature) else item
    if isinstance(function, OnDemand):
        return [found for _, above in spec_of(function).inputs for found in features_beneath(above)]
    return []


def feature_exists(item: Feature, views: Mapping[str, Sequence[FieldSpec]]) -> None:
    """The view of a feature has it (MS-1107); `views` are the columns of each view, by URL."""
    keys = spec_of(item.view).keys
    known = [
        field.name for field in views[f"/{kind_of(item.view).value}/{name_of(item.view)}"] if field.name not in keys
    ]
    if known and item.name not in known:
        raise DeclarationError(
            f"feature view {name_of(item.view)!r} has no feature {item.name!r}",
            code="MS-1107",
            origin=str(item.origin),
            fix=did_you_mean(item.name, known),
        )


def _is_number(node: Node, name: str, item: Input, views: Mapping[str, Sequence[FieldSpec]]) -> None:
    if isinstance(item, Column):
        field: FieldSpec | None = item.field
    else:
        view = item.view if isinstance(item, Feature | OnDemandFeature) else item
        columns = views[f"/{kind_of(view).value}/{name_of(view)}"]
        field = next((column for column in columns if column.name == name), None)
    if field is not None and field.type.kind not in _NUMBERS:
        raise DeclarationError(
            f"input {name!r} of model {node.name!r} is {field.type}, not a number",
            code="MS-1111",
            why="models take numbers; encoding text inside the trainer would not be served",
            origin=str(node.origin if isinstance(item, FeatureView | OnDemand) else item.origin),
            fix="make a number of it in a feature view, or leave it out",
        )


def _joins(node: Node, spec: ModelSpec, view: FeatureView) -> None:
    spine = spec_of(spec.spine)
    for key in spec_of(view).keys:
        if spine.field(key) is None:
            raise DeclarationError(
                f"model {node.name!r} uses features of entity {key!r}, which its rows do not name",
                code="MS-1108",
                why=f"the label's source {name_of(spec.spine)!r} has no column {key!r} to join {name_of(view)!r} on",
                origin=str(node.origin),
                fix=f"add {key} to {spine.record.__name__}, or leave {name_of(view)} out",
            )


def _known_in_time(node: Node, spec: ModelSpec, item: Feature | FeatureView) -> None:
    """A view over the label's own rows may not show the label before it is known."""
    view = item.view if isinstance(item, Feature) else item
    wanted = {item.name} if isinstance(item, Feature) else None
    late = {spec.label.name} | ({spec.known_at.name} if spec.known_at is not None else set())
    for name, aggregate in spec_of(view).features:
        taken = wanted is None or name in wanted
        if taken and spec.spine in spec_of(view).sources and aggregate.column in late:
            known = spec.known_at.name if spec.known_at is not None else ""
            raise DeclarationError(
                f"feature {name_of(view)}.{name} shows {aggregate.column!r} before it is known",
                code="MS-1104",
                why=f"{spec.label.name} is known at {known}, and the feature dates it at {spec_of(spec.spine).time}"
                if known
                else f"a window ends with the row that is asked about, whose {spec.label.name} is to be predicted",
                origin=str(origin_of(view)),
                fix=f'declare a source of outcomes with time="{known or "..."}" and aggregate that',
            )


def check_promotion(node: Node, spec: PromotionSpec) -> None:
    """A promotion rule asks for metrics that the model has (MS-1112): it is tried on two equal scores."""
    if spec.when is None:
        return
    model = spec_of(spec.model)
    boolean = model.label.field.type.kind is Kind.BOOLEAN
    score = Score("0", dict.fromkeys([name for name in METRICS if (name in CLASSIFICATION) is boolean], 0.5))
    try:
        spec.when(score, score)
    except AttributeError as error:
        if error.obj is score:
            raise DeclarationError(
                f"promotion {node.name!r} asks for the metric {error.name!r}, which the model does not have",
                code="MS-1112",
                origin=str(node.origin),
                fix=did_you_mean(str(error.name), score.metrics),
            ) from error
    except Exception:
        return  # what the rule does with real scores is seen when they are there


def check_monitor(node: Node, spec: MonitorSpec, columns: Sequence[str]) -> None:
    """What is watched exists (MS-1109); a segment has no name that a feature has in the prediction log (MS-1113)."""
    own = {item.name for item in spec_of(spec.model).inputs if isinstance(item, Column)}
    for column in spec.segments:
        if column.name in set(columns) - own:
            raise DeclarationError(
                f"monitor {node.name!r} tells rows apart by {column.name!r}, which is also a feature of the model",
                code="MS-1113",
                why="the prediction log could not tell them from each other",
                origin=str(node.origin),
                fix="rename the feature in its view",
            )
    known = [*columns, *METRICS, "score"]
    for name in spec.watch:
        if name not in known:
            raise DeclarationError(
                f"monitor {node.name!r} watches {name!r}, which is no input and no metric",
                code="MS-1109",
                origin=str(node.origin),
                fix=did_you_mean(name, known),
            )


def check_schedule(node: Node, spec: ScheduleSpec) -> None:
    """A schedule gives its target the arguments that it takes (MS-1105)."""
    what = f"{kind_of(spec.target).value.replace('_', ' ')} {name_of(spec.target)!r}"
    signature = inspect.Signature()
    if isinstance(spec.target, Pipeline):
        signature = inspect.signature(spec_of(spec.target).function)
    elif isinstance(spec.target, Step):  # its declared inputs fill the first parameters that are not given
        step = spec_of(spec.target)
        signature = inspect.signature(step.function)
        filled = set(list(signature.parameters)[: len(step.inputs)]) - spec.arguments.keys()
        signature = signature.replace(parameters=[p for name, p in signature.parameters.items() if name not in filled])
    try:
        signature.bind(**spec.arguments)
    except TypeError as error:
        raise DeclarationError(
            f"schedule {node.name!r} does not give {what} the arguments that it takes",
            code="MS-1105",
            why=str(error),
            origin=str(node.origin),
            fix=f"app.schedule(..., NAME=VALUE); it takes {', '.join(signature.parameters) or 'no arguments'}",
        ) from error
