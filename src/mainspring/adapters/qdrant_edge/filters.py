"""Filters in Qdrant's own terms."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

from mainspring.lazy import lazy
from mainspring.ports.vector_store import And, Any, Eq, Exists, Filter, In, Not, Or, Range

if TYPE_CHECKING:
    import qdrant_edge as edge
else:
    edge = lazy("qdrant_edge")

__all__ = ["having", "key_of", "native", "shadow_of"]


def key_of(field: str) -> str:
    """The path of a payload's key: in quotes, for a dot does not nest."""
    return f'"{field}"'


def shadow_of(field: str) -> str:
    """The key beside a boolean's, where it is a text: the engine's Python binding makes 1 of a true in a filter."""
    return f"_is.{field}"


def having(ids: Sequence[str]) -> edge.Filter:
    """Points by their ids; those that are not there match nothing."""
    return edge.Filter(must=[edge.HasIdCondition(set(ids))])


def native(filter: Filter) -> edge.Filter:
    """The filter in Qdrant's terms; a missing field makes a leaf false there too."""
    match filter:
        case And():
            return edge.Filter(must=list(_conditions(filter)))
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


def _conditions(filter: Filter) -> Iterator[edge.FieldCondition | edge.Filter]:
    """What all must hold, side by side: the engine asks a filter in a filter about each candidate anew."""
    if isinstance(filter, And):
        for part in filter.filters:
            yield from _conditions(part)
    elif isinstance(filter, (Eq, In, Any, Range)):
        yield _condition(filter)
    else:
        yield native(filter)


def _condition(leaf: Eq | In | Any | Range) -> edge.FieldCondition | edge.Filter:
    if isinstance(leaf, Range):
        return edge.FieldCondition(key_of(leaf.field), range=edge.RangeFloat(**dict(leaf.bounds)))
    values = (leaf.value,) if isinstance(leaf, Eq) else leaf.values
    if not values:
        return having(())
    if any(isinstance(value, float) for value in values):  # those have no list of alternatives
        return edge.Filter(should=[_equal(leaf.field, value) for value in values])
    if isinstance(values[0], bool):
        return edge.FieldCondition(key_of(shadow_of(leaf.field)), match=edge.MatchAny([str(value) for value in values]))
    match = edge.MatchAny(cast("list[str]", list(values))) if len(values) > 1 else edge.MatchValue(cast(str, values[0]))
    return edge.FieldCondition(key_of(leaf.field), match=match)


def _equal(field: str, value: object) -> edge.FieldCondition:
    number = float(cast(float, value))
    return edge.FieldCondition(key_of(field), range=edge.RangeFloat(gte=number, lte=number))
