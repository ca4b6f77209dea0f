"""What can only be checked on the whole of on-demand functions and feature services."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from mainspring.declare.data import Feature, FeatureView
from mainspring.declare.declaration import name_of, origin_of, spec_of
from mainspring.declare.model import Input, ModelSpec
from mainspring.declare.on_demand import FeatureServiceSpec, OnDemand, OnDemandFeature, OnDemandSpec, RequestField
from mainspring.declare.record import FieldSpec
from mainspring.errors import DeclarationError
from mainspring.plan.checks import feature_exists, features_beneath
from mainspring.plan.graph import Node

__all__ = ["check_inputs", "check_on_demand", "check_service", "view_of_input"]

Columns = Mapping[str, Sequence[FieldSpec]]


def view_of_input(item: object) -> FeatureView | OnDemand | None:
    """The feature view or on-demand function that an input is of; None for a column or a field of the request."""
    if isinstance(item, Feature | OnDemandFeature):
        return item.view
    return item if isinstance(item, FeatureView | OnDemand) else None


def check_inputs(node: Node, spec: OnDemandSpec, fields: Columns) -> None:
    """An on-demand function's name is no view's (MS-1122), and the features that it is given exist (MS-1107)."""
    if f"/feature_view/{node.name}" in fields:
        raise DeclarationError(
            f"on-demand function {node.name!r} has the name of a feature view",
            code="MS-1122",
            why="clients name both as NAME:FEATURE",
            origin=str(node.origin),
            fix='rename one, or pass called="..."',
        )
    for _, item in spec.inputs:
        if isinstance(item, Feature):
            feature_exists(item, fields)


def check_service(node: Node, spec: FeatureServiceSpec, names: Sequence[tuple[str, Input]], fields: Columns) -> None:
    """A feature service's features exist, are kept online and have one name each (MS-1106, MS-1107, MS-1121).

    Args:
        node: the service's node.
        spec: what was declared.
        names: every feature with the input it comes from.
        fields: the columns of each node, by URL.
    """
    seen: set[str] = set()
    for name, item in names:
        if name in seen:
            raise DeclarationError(
                f"feature service {node.name!r} has two features called {name!r}",
                code="MS-1106",
                why="an answer names its columns",
                origin=str(node.origin),
                fix="rename one of the features, or list single features: [view.feature, ...]",
            )
        seen.add(name)
        if isinstance(item, Feature):
            feature_exists(item, fields)
    for used in (found for item in spec.inputs for found in features_beneath(item)):
        view = used.view if isinstance(used, Feature) else used
        if not spec_of(view).online:
            raise DeclarationError(
                f"feature service {node.name!r} reads view {name_of(view)!r}, which is not kept online",
                code="MS-1121",
                why=f"it was declared with online=False at {origin_of(view)}",
                origin=str(node.origin),
                fix="leave online=False away",
            )


def check_on_demand(node: Node, spec: ModelSpec) -> None:
    """The request's fields of a model's on-demand inputs are columns of the label's source, known in time (MS-1120)."""
    late = {spec.label.name} | ({spec.known_at.name} if spec.known_at is not None else set())
    source = spec_of(spec.spine)
    for function, name, item in _requested(spec.inputs):
        column = source.field(name)
        problem = ""
        if column is None:
            problem = f"{source.record.__name__} has no column {name!r}"
        elif name in late:
            problem = "it is the label, or tells when the label is known"
        elif (column.type.kind, column.type.precision, column.type.scale, column.type.length) != (
            item.type.kind,
            item.type.precision,
            item.type.scale,
            item.type.length,
        ):
            problem = f"it is {item.type} in the request and {column.type} in {source.record.__name__}"
        elif column.type.nullable and not item.type.nullable:
            problem = f"it may be null in {source.record.__name__}, and the request promises a value"
        if problem:
            raise DeclarationError(
                f"model {node.name!r} learns from {name_of(function)!r}, whose {name!r} its rows do not carry",
                code="MS-1120",
                why=problem,
                origin=str(item.origin),
                fix=f"name a column of {name_of(spec.spine)} as it is declared there: {name}=app.request(...)",
            )


def _requested(inputs: Sequence[object]) -> Iterator[tuple[OnDemand, str, RequestField]]:
    for item in inputs:
        function = item.view if isinstance(item, OnDemandFeature) else item
        if isinstance(function, OnDemand):
            for name, above in spec_of(function).inputs:
                if isinstance(above, RequestField):
                    yield function, name, above
            yield from _requested([above for _, above in spec_of(function).inputs])
