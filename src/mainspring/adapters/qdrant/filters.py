"""Filters in the server's terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from mainspring.lazy import lazy
from mainspring.ports.vector_store import And, Any, Eq, Exists, Filter, In, Not, Or, Range

if TYPE_CHECKING:
    from qdrant_client import models
else:
    models = lazy("qdrant_client.models")

__all__ = ["having", "key_of", "native"]


def key_of(field: str) -> str:
    """The path of a payload's key: in quotes, for a dot does not nest."""
    return f'"{field}"'


def having(ids: Sequence[str]) -> models.Filter:
    """Points by their ids; those that are not there match nothing."""
    return models.Filter(must=[models.HasIdCondition(has_id=list(ids))])


def native(filter: Filter) -> models.Filter:
    """The filter in the server's terms; a missing field makes a leaf false there too."""
    match filter:
        case And(parts):
            return models.Filter(must=[native(part) for part in parts])
        case Or(()):
            return having(())
        case Or(parts):
            return models.Filter(should=[native(part) for part in parts])
        case Not(part):
            return models.Filter(must_not=[native(part)])
        case Exists(field):
            empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=key_of(field)))
            return models.Filter(must_not=[empty])
        case _:
            return _leaf(filter)


def _leaf(leaf: Eq | In | Any | Range) -> models.Filter:
    key = key_of(leaf.field)
    if isinstance(leaf, Range):
        bounds = {name: float(bound) for name, bound in leaf.bounds}
        return models.Filter(must=[models.FieldCondition(key=key, range=models.Range(**bounds))])
    values = (leaf.value,) if isinstance(leaf, Eq) else leaf.values
    if not values:
        return having(())
    if any(isinstance(value, (bool, float)) for value in values):  # those have no list of alternatives
        return models.Filter(should=[_equal(key, value) for value in values])
    some = models.MatchAny(any=cast("list[str]", list(values)))
    return models.Filter(must=[models.FieldCondition(key=key, match=some)])


def _equal(key: str, value: str | int | float | bool) -> models.FieldCondition:
    if isinstance(value, float):
        return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))
    return models.FieldCondition(key=key, match=models.MatchValue(value=value))
