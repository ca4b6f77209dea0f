"""Filters in Qdrant's own terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from mainspring.lazy import lazy
from mainspring.ports.vector_store import And, Any, Eq, Exists, Filter, In, Not, Or, Range

if TYPE_CHECKING:
    import qdrant_edge as edge
else:
    edge = lazy("qdrant_edge")

__all__ = ["having", "key_of", "native"]


def key_of(field: str) -> str:
    """The path of a payload's key: in quotes, for a dot does not nest."""
    return f'"{field}"'


def having(ids: Sequence[str]) -> edge.Filter:
    """Points by their ids; those that are not there match nothing."""
    return edge.Filter(must=[edge.HasIdCondition(set(ids))])


def native(filter: Filter) -> edge.Filter:
    """The filter in Qdrant's terms; a missing field makes a leaf false there too."""
    match filter:
        case And(parts):
            return edge.Filter(must=[native(part) for part in parts])
        case Or(()):
            return having(())
        case Or(parts):
            return edge.Filter(should=[native(part) for part in parts])
        case Not(part):
            return edge.Filter(must_not=[native(part)])
        case Exists(field):
            return edge.Filter(must_not=[edge.IsEmptyCondition(key_of(field))])
        case _:
            return edge.Filter(must=[_condition(filter)])


def _condition(leaf: Eq | In | Any | Range) -> edge.FieldCondition | edge.Filter:
    key = key_of(leaf.field)
    if isinstance(leaf, Range):
        return edge.FieldCondition(key, range=edge.RangeFloat(**dict(leaf.bounds)))
    values = (leaf.value,) if isinstance(leaf, Eq) else leaf.values
    if not values:
        return having(())
    if any(isinstance(value, (bool, float)) for value in values):  # those have no list of alternatives
        return edge.Filter(should=[_equal(key, value) for value in values])
    if len(values) == 1:
        return _equal(key, values[0])
    return edge.FieldCondition(key, match=edge.MatchAny(cast("list[str]", list(values))))


def _equal(key: str, value: str | int | float | bool) -> edge.FieldCondition:
    if isinstance(value, float):
        return edge.FieldCondition(key, range=edge.RangeFloat(gte=value, lte=value))
    return edge.FieldCondition(key, match=edge.MatchValue(value))
