"""Declarations into the typed graph, with what can be checked on the whole."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol, cast

import msgspec

from mainspring.declare.app import App
from mainspring.declare.composition import CompositionEndpointSpec, CompositionSpec
from mainspring.declare.data import Column, Entity, Feature, FeatureView, FeatureViewSpec, Source, SourceSpec
from mainspring.declare.declaration import Declaration, DeclaredKind, kind_of, name_of, origin_of, spec_of
from mainspring.declare.duration import spell
from mainspring.declare.model import (
    EndpointSpec,
    Input,
    ModelDeclaration,
    ModelSpec,
    MonitorSpec,
    PromotionSpec,
    ScheduleSpec,
)
from mainspring.declare.on_demand import (
    FeatureServiceSpec,
    OnDemand,
    OnDemandFeature,
    OnDemandSpec,
    RequestField,
)
from mainspring.declare.record import FieldSpec
from mainspring.declare.rollout import spell_step
from mainspring.declare.step import PipelineSpec, StepSpec
from mainspring.declare.vector_index import VectorIndexSpec
from mainspring.errors import DeclarationError
from mainspring.plan.checks import check_model, check_monitor, check_promotion, check_schedule, unique_names
from mainspring.plan.closure import closure_of
from mainspring.plan.composition import check_composition
from mainspring.plan.computing import check_inputs, check_on_demand, check_service, view_of_input
from mainspring.plan.encoding import digest, encode
from mainspring.plan.graph import Node, Plan, in_order
from mainspring.plan.language import check_language, describe_language, uses_of_language
from mainspring.plan.vector_index import check_vector_index

__all__ = ["Infer", "build_plan", "feature_names", "url_of"]


class Infer(Protocol):
    """Finds the columns that a decorated feature view returns, by running it over empty tables."""

    def __call__(self, view: FeatureView, fields: Mapping[str, Sequence[FieldSpec]]) -> tuple[FieldSpec, ...]:
        """The columns besides keys and time; `fields` are the columns of each source, by name."""


def url_of(declaration: Declaration[object]) -> str:
    """Where a declared thing is shown: ``/feature_view/congestion``."""
    return f"/{kind_of(declaration).value}/{name_of(declaration)}"


def build_plan(app: App, infer: Infer | None = None) -> Plan:
    """The typed graph of an app whose declarations have their names.

    Args:
        app: the app, loaded and bound.
        infer: finds the columns of decorated views; without it they must be declared with ``returns=``.

    Raises:
        DeclarationError: MS-1010, MS-1027, MS-1101 to MS-1113, MS-1121 to MS-1123.
    """
    declarations = [item for item in app.declared() if kind_of(item) is not DeclaredKind.ENTITY]
    unique_names(declarations)
    mine = {id(declaration) for declaration in declarations}
    fields: dict[str, tuple[FieldSpec, ...]] = {}
    nodes = []
    for declaration in declarations:
        _belong(declaration, mine)
        node = _node(declaration, fields, infer)
        fields[node.url] = node.fields
        nodes.append(node)
    evaluations: dict[str, list[str]] = {}
    for node in nodes:
        if node.kind == DeclaredKind.EVALUATION.value:
            evaluations.setdefault(node.inputs[0], []).append(node.name)
    for node in nodes:
        _check(node, fields)
        check_language(node, evaluations)
    return Plan(app.name, _with_fingerprints(in_order(nodes)))


def feature_names(item: Input, fields: Mapping[str, Sequence[FieldSpec]]) -> tuple[str, ...]:
    """The model columns that one input stands for; `fields` are the columns of each node, by URL."""
    if isinstance(item, Column):
        return (item.name,)
    if isinstance(item, Feature | OnDemandFeature):
        return (item.name,)
    if isinstance(item, OnDemand):
        return tuple(field.name for field in fields[url_of(item)])
    keys = spec_of(item).keys
    return tuple(field.name for field in fields[url_of(item)] if field.name not in keys)


def _node(declaration: Declaration[object], fields: Mapping[str, tuple[FieldSpec, ...]], infer: Infer | None) -> Node:
    spec = spec_of(declaration)
    described, columns = _describe(spec, declaration, fields, infer)
    return Node(
        kind_of(declaration).value,
        name_of(declaration),
        described,
        tuple(dict.fromkeys(url_of(item) for item in _uses(spec))),
        columns,
        origin_of(declaration),
        declaration,
    )


@functools.singledispatch
def _uses(spec: object) -> Iterable[Declaration[object]]:
    """What a declaration is made from."""
    return uses_of_language(spec)


@_uses.register
def _(spec: SourceSpec) -> Iterable[Declaration[object]]:
    return [check.to for check in spec.checks if check.to is not None]


@_uses.register
def _(spec: FeatureViewSpec) -> Iterable[Declaration[object]]:
    return spec.sources


@_uses.register
def _(spec: ModelSpec) -> Iterable[Declaration[object]]:
    return [spec.spine, *(view for item in spec.inputs if (view := view_of_input(item)) is not None)]


@_uses.register
def _(spec: OnDemandSpec) -> Iterable[Declaration[object]]:
    return [view for _, item in spec.inputs if (view := view_of_input(item)) is not None]


@_uses.register
def _(spec: FeatureServiceSpec) -> Iterable[Declaration[object]]:
    return [view for item in spec.inputs if (view := view_of_input(item)) is not None]


@_uses.register
def _(spec: CompositionSpec) -> Iterable[Declaration[object]]:
    return spec.models


@_uses.register(PromotionSpec)
@_uses.register(EndpointSpec)
@_uses.register(CompositionEndpointSpec)
@_uses.register(MonitorSpec)
def _(spec: PromotionSpec | EndpointSpec | CompositionEndpointSpec | MonitorSpec) -> Iterable[Declaration[object]]:
    return (spec.model,)


@_uses.register
def _(spec: StepSpec) -> Iterable[Declaration[object]]:
    return spec.inputs


@_uses.register
def _(spec: ScheduleSpec) -> Iterable[Declaration[object]]:
    return (spec.target,)


@_uses.register
def _(spec: VectorIndexSpec) -> Iterable[Declaration[object]]:
    return (spec.feature.view,)


_Description = tuple[Mapping[str, object], tuple[FieldSpec, ...]]


@functools.singledispatch
def _describe(
    spec: object, declaration: Declaration[object], fields: Mapping[str, tuple[FieldSpec, ...]], infer: Infer | None
) -> _Description:
    return describe_language(spec), ()


@_describe.register
def _(spec: SourceSpec, declaration: Source, *_: object) -> _Description:
    roles = {
        role: value
        for role in ("time", "ingested", "valid_to", "id", "deleted", "zone")
        if (value := getattr(spec, role)) is not None
    }
    columns = {field.name: str(field.type) for field in spec.fields}
    rules = {field.name: text for field in spec.fields if (text := _rules(field))}
    described: dict[str, object] = {**roles, "columns": columns, **({"rules": rules} if rules else {})}
    return {**described, **_checks(spec)}, spec.fields


@_describe.register
def _(spec: FeatureViewSpec, declaration: FeatureView, *rest: object) -> _Description:
    fields, infer = cast("tuple[Mapping[str, tuple[FieldSpec, ...]], Infer | None]", rest)
    described: dict[str, object] = {
        "entity": list(spec.keys),
        "ttl": None if spec.ttl_us is None else spell(spec.ttl_us),
        "every": None if spec.every_us is None else spell(spec.every_us),
        "online": spec.online,
    }
    columns = _view_fields(spec, declaration, fields, infer)
    if spec.function is None:
        described["features"] = {name: str(aggregate) for name, aggregate in spec.features}
    else:
        described |= {"rows": spec.rows, "code": _code(spec.function)}
        described["features"] = {field.name: str(field.type) for field in columns if field.name not in spec.keys}
    return {**described, **_checks(spec)}, columns


@_describe.register
def _(spec: ModelSpec, declaration: ModelDeclaration, *rest: object) -> _Description:
    fields = cast("Mapping[str, tuple[FieldSpec, ...]]", rest[0])
    described = {
        "inputs": [name for item in spec.inputs for name in feature_names(item, fields)],
        "label": f"{name_of(spec.label.source)}.{spec.label.name}",
        "known_at": None if spec.known_at is None else spec.known_at.name,
        "metric": spec.metric,
        "slices": [column.name for column in spec.slices],
        "holdout": spec.holdout,
        "gap": spell(spec.gap_us),
        "tolerance": spec.tolerance,
        "seed": spec.seed,
        "code": _code(spec.function),
    }
    return described, ()


@_describe.register
def _(spec: OnDemandSpec, declaration: OnDemand, *rest: object) -> _Description:
    described = {
        "inputs": {name: _named(item) for name, item in spec.inputs},
        "returns": {field.name: str(field.type) for field in spec.returns},
        "called": spec.written,
        "code": _code(spec.function),
    }
    (first, *_) = spec.returns
    return described, (FieldSpec(name_of(declaration), first.type),) if spec.single else spec.returns


@_describe.register
def _(spec: FeatureServiceSpec, declaration: Declaration[object], *rest: object) -> _Description:
    fields = cast("Mapping[str, tuple[FieldSpec, ...]]", rest[0])
    described = {"features": [f"{_owner(item)}:{name}" for item in spec.inputs for name in feature_names(item, fields)]}
    return described, ()


def _owner(item: Input) -> str:
    return name_of(item.view if isinstance(item, Feature | OnDemandFeature) else cast("Declaration[object]", item))


def _named(item: object) -> str:
    if isinstance(item, RequestField):
        return f"request {item.type}"
    if isinstance(item, Feature | OnDemandFeature):
        return f"{name_of(item.view)}.{item.name}"
    return name_of(cast("Declaration[object]", item))


@_describe.register
def _(spec: PromotionSpec, declaration: Declaration[object], *_: object) -> _Description:
    steps = {"rollout": [spell_step(step) for step in spec.rollout]} if spec.rollout else {}
    return {"margin": spec.margin, "when": None if spec.when is None else _code(spec.when), **steps}, ()


@_describe.register
def _(spec: CompositionSpec, declaration: Declaration[object], *_: object) -> _Description:
    return {"models": [name_of(model) for model in spec.models], "code": _code(spec.function)}, ()


@_describe.register
def _(spec: CompositionEndpointSpec, declaration: Declaration[object], *_: object) -> _Description:
    return {"latency": None if spec.latency_us is None else spell(spec.latency_us), "log": spec.log}, ()


@_describe.register
def _(spec: EndpointSpec, declaration: Declaration[object], *_: object) -> _Description:
    latency = None if spec.latency_us is None else spell(spec.latency_us)
    together = spec.batching
    batching = {"rows": together.rows, "queue_rows": together.queue_rows, "queue_bytes": together.queue_bytes}
    delay = spell(together.delay_us) if together.delay_us else None
    versions = {} if spec.versions == 1 else {"versions": spec.versions}
    warm = {"warm": [dict(row) for row in spec.warm]} if spec.warm else {}
    return {"latency": latency, "log": spec.log, "batching": batching | {"delay": delay}, **versions, **warm}, ()


@_describe.register
def _(spec: MonitorSpec, declaration: Declaration[object], *_: object) -> _Description:
    described = {
        "false_alarms": spec.false_alarms,
        "on_alarm": spec.on_alarm,
        "block": spec.block,
        "watch": list(spec.watch),
        "segments": [column.name for column in spec.segments],
        "cooldown": spell(spec.cooldown_us),
    }
    return described, ()


@_describe.register
def _(spec: StepSpec, declaration: Declaration[object], *_: object) -> _Description:
    return {"options": str(spec.options), "code": _code(spec.function)}, ()


@_describe.register
def _(spec: PipelineSpec, declaration: Declaration[object], *_: object) -> _Description:
    return {"code": _code(spec.function)}, ()


@_describe.register
def _(spec: ScheduleSpec, declaration: Declaration[object], *_: object) -> _Description:
    described = {
        "cron": spec.cron,
        "zone": spec.zone,
        "missed": spec.missed,
        "arguments": {name: repr(value) for name, value in spec.arguments.items()},
    }
    return described, ()


@_describe.register
def _(spec: VectorIndexSpec, declaration: Declaration[object], *_: object) -> _Description:
    return {"feature": spec.feature.name, "filters": list(spec.filters), "metric": spec.metric}, ()


def _view_fields(
    spec: FeatureViewSpec,
    declaration: FeatureView,
    fields: Mapping[str, tuple[FieldSpec, ...]],
    infer: Infer | None,
) -> tuple[FieldSpec, ...]:
    sources = {name_of(source): fields[url_of(source)] for source in spec.sources if url_of(source) in fields}
    keys = _key_fields(spec.entities, sources, declaration)
    if spec.function is None:
        (columns,) = sources.values()
        types = {field.name: field.type for field in columns}
        return keys + tuple(
            FieldSpec(name, aggregate.result_type(None if aggregate.column is None else types[aggregate.column]))
            for name, aggregate in spec.features
        )
    if spec.returns:
        return keys + tuple(field for field in spec.returns if field.name not in spec.keys)
    if infer is None:
        return keys
    return keys + tuple(field for field in infer(declaration, sources) if field.name not in spec.keys)


def _key_fields(
    entities: Sequence[Entity], sources: Mapping[str, Sequence[FieldSpec]], view: FeatureView
) -> tuple[FieldSpec, ...]:
    keys = []
    for entity in entities:
        key = spec_of(entity).key
        found = next((field for columns in sources.values() for field in columns if field.name == key), None)
        if found is None:
            raise DeclarationError(
                f"feature view {name_of(view)!r} joins on {key!r}, which none of its sources has",
                code="MS-1103",
                origin=str(origin_of(view)),
                fix=f"add the column {key} to a source, or use another entity",
            )
        keys.append(FieldSpec(key, msgspec.structs.replace(found.type, nullable=False)))
    return tuple(keys)


def _checks(spec: SourceSpec | FeatureViewSpec) -> Mapping[str, object]:
    return {"checks": {str(check): check.on_fail for check in spec.checks}} if spec.checks else {}


def _rules(field: FieldSpec) -> str:
    rules = field.rules
    parts = [f"{name}={value!r}" for name in ("ge", "le", "matches") if (value := getattr(rules, name)) is not None]
    parts += [f"one_of={list(rules.one_of)!r}"] if rules.one_of else []
    return ", ".join(parts + (["unique"] if rules.unique else []))


def _code(function: Callable[..., object]) -> Mapping[str, str]:
    return dict(closure_of(function).labels)


def _belong(declaration: Declaration[object], mine: set[int]) -> None:
    for used in _uses(spec_of(declaration)):
        if id(used) not in mine:
            raise DeclarationError(
                f"{_words(declaration)} {name_of(declaration)!r} uses a {_words(used)} of another app",
                code="MS-1027",
                why=f"it was declared at {origin_of(used)}",
                origin=str(origin_of(declaration)),
                fix="declare it on this app",
            )


def _words(declaration: Declaration[object]) -> str:
    return kind_of(declaration).value.replace("_", " ")


def _check(node: Node, fields: Mapping[str, tuple[FieldSpec, ...]]) -> None:
    spec = spec_of(node.declaration) if node.declaration is not None else None
    if isinstance(spec, ModelSpec):
        names = [(name, item) for item in spec.inputs for name in feature_names(item, fields)]
        views = {url_of(v): fields[url_of(v)] for item in spec.inputs if (v := view_of_input(item)) is not None}
        check_model(node, spec, names, views)
        check_on_demand(node, spec)
    elif isinstance(spec, CompositionSpec):
        read = [item for model in spec.models for item in spec_of(model).inputs]
        check_composition(
            node,
            spec,
            fields,
            [(name, _origin_of_input(item)) for item in read for name in feature_names(item, fields)],
        )
    elif isinstance(spec, OnDemandSpec):
        check_inputs(node, spec, fields)
    elif isinstance(spec, FeatureServiceSpec):
        check_service(
            node, spec, [(name, item) for item in spec.inputs for name in feature_names(item, fields)], fields
        )
    elif isinstance(spec, PromotionSpec):
        check_promotion(node, spec)
    elif isinstance(spec, ScheduleSpec):
        check_schedule(node, spec)
    elif isinstance(spec, MonitorSpec):
        model = spec_of(spec.model)
        check_monitor(node, spec, [name for item in model.inputs for name in feature_names(item, fields)])
    elif isinstance(spec, VectorIndexSpec):
        check_vector_index(node, spec, fields[node.inputs[0]])


def _origin_of_input(item: Input) -> str:
    view = view_of_input(item)
    return "the request" if view is None else url_of(view)


def _with_fingerprints(nodes: Sequence[Node]) -> tuple[Node, ...]:
    prints: dict[str, str] = {}
    done = []
    for node in nodes:
        above = [prints.get(url, "") for url in node.inputs]
        prints[node.url] = digest(encode((node.kind, node.name, _plain(node.spec), above)))
        done.append(dataclasses.replace(node, fingerprint=prints[node.url]))
    return tuple(done)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
