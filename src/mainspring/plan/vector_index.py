"""What an index over a vector needs of its view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mainspring.declare.aggregate import Function
from mainspring.declare.data import did_you_mean
from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.record import ColumnType, FieldSpec, Kind
from mainspring.declare.vector_index import VectorIndexSpec
from mainspring.errors import DeclarationError
from mainspring.plan.graph import Node

__all__ = ["FILTERED", "check_vector_index"]

FILTERED: Mapping[Kind, str] = {
    Kind.STRING: "string",
    Kind.INTEGER: "integer",
    Kind.FLOAT: "number",
    Kind.BOOLEAN: "boolean",
    Kind.TIMESTAMP: "integer",
}
"""The kinds of column that can be filtered by, and what a filter compares: of a timestamp, its UTC microseconds."""


def check_vector_index(node: Node, spec: VectorIndexSpec, fields: Sequence[FieldSpec]) -> None:
    """Refuse what cannot be indexed; `fields` are the keys and features of the view.

    Raises:
        DeclarationError: MS-1107, the view has no such feature; MS-1121, it is no vector that the newest row answers;
            MS-1122, a filter cannot be one; MS-1123, the view is not kept online.
    """
    view, types = spec.feature.view, {field.name: field.type for field in fields}
    declared, origin = spec_of(view), str(node.origin)
    if spec.feature.name not in types:
        raise DeclarationError(
            f"feature view {name_of(view)!r} has no feature {spec.feature.name!r}",
            code="MS-1107",
            origin=str(spec.feature.origin),
            fix=did_you_mean(spec.feature.name, types),
        )
    passing = {name for name, aggregate in declared.features if aggregate.window_us is not None}
    kind = types[spec.feature.name]
    if kind.kind is not Kind.VECTOR or spec.feature.name in passing or _counts(spec):
        raise DeclarationError(
            f"vector index {node.name!r} is over {spec.feature.name!r}, which is no vector of the newest row",
            code="MS-1121",
            why=f"it is {kind}, over a window" if spec.feature.name in passing else f"it is {kind}",
            origin=origin,
            fix='index a feature like image=last("image"), whose column is image: list[float] = Field(length=384)',
        )
    for name in spec.filters:
        if why := _no_filter(name, types, passing, spec):
            good = [other for other in types if not _no_filter(other, types, passing, spec)]
            raise DeclarationError(
                f"vector index {node.name!r} cannot filter by {name!r}",
                code="MS-1122",
                why=why,
                origin=origin,
                fix=did_you_mean(name, good) if good else "leave it out",
            )
    if not declared.online:
        raise DeclarationError(
            f"vector index {node.name!r} is over view {name_of(view)!r}, which is not kept online",
            code="MS-1123",
            why="what is found comes with the features that it has now, and they are read online",
            origin=origin,
            fix="leave online=False out of the view",
        )


def _counts(spec: VectorIndexSpec) -> bool:
    declared = dict(spec_of(spec.feature.view).features)
    found = declared.get(spec.feature.name)
    return found is not None and found.function is not Function.LAST


def _no_filter(name: str, types: Mapping[str, ColumnType], passing: set[str], spec: VectorIndexSpec) -> str:
    """Why searches cannot filter by a feature; empty when they can."""
    if name not in types:
        return f"view {name_of(spec.feature.view)!r} has no such feature"
    if name in passing:
        return "it is over a window, and changes as time passes"
    if types[name].kind not in FILTERED:
        return f"it is {types[name]}: texts, numbers, truths and moments can be compared"
    return "a filter is named once" if spec.filters.count(name) > 1 else ""
