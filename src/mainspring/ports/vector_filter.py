"""Filters of a vector store: a typed tree, never a string; its JSON form both ways, and what an index allows of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias, cast

import msgspec

from mainspring.errors import UsageError

__all__ = [
    "LISTS",
    "SAFE",
    "And",
    "Any",
    "Eq",
    "Exists",
    "FieldType",
    "Filter",
    "In",
    "Not",
    "Or",
    "Range",
    "Scalar",
    "check_filter",
    "filter_from_json",
    "filter_to_json",
    "fits",
    "misfit",
    "no_json",
]

Scalar: TypeAlias = str | int | float | bool
FieldType = Literal["string", "integer", "number", "boolean", "strings", "integers"]

LISTS: Mapping[FieldType, FieldType] = {"strings": "string", "integers": "integer"}
"""The types that are lists, with the type of their members."""

SAFE = (1 << 53) - 1
"""The greatest integer of a field: beyond it JSON's and the stores' own numbers lose digits."""

_DEPTH, _NODES, _VALUES = 32, 1_000, 10_000
_BOUNDS = ("gt", "gte", "lt", "lte")


class And(msgspec.Struct, frozen=True):
    """All of these hold; an empty one is true."""

    filters: tuple[Filter, ...]


class Or(msgspec.Struct, frozen=True):
    """At least one of these holds; an empty one is false."""

    filters: tuple[Filter, ...]


class Not(msgspec.Struct, frozen=True):
    """This does not hold: also true where the field is missing."""

    filter: Filter


class Eq(msgspec.Struct, frozen=True):
    """A field has this value; false where it is missing."""

    field: str
    value: Scalar


class In(msgspec.Struct, frozen=True):
    """A field has one of these values; false where it is missing, and of no values."""

    field: str
    values: tuple[Scalar, ...]


class Range(msgspec.Struct, frozen=True):
    """A number lies within these bounds, at least one of which is given; false where it is missing."""

    field: str
    gt: int | float | None = None
    gte: int | float | None = None
    lt: int | float | None = None
    lte: int | float | None = None

    @property
    def bounds(self) -> tuple[tuple[str, int | float], ...]:
        """The bounds that are given, by name."""
        given = ((name, getattr(self, name)) for name in _BOUNDS)
        return tuple((name, value) for name, value in given if value is not None)


class Any(msgspec.Struct, frozen=True):
    """A list holds at least one of these values; false where it is missing or empty, and of no values."""

    field: str
    values: tuple[str | int, ...]


class Exists(msgspec.Struct, frozen=True):
    """A field has a value; null and an empty list are none."""

    field: str


Leaf: TypeAlias = Eq | In | Range | Any | Exists
Filter: TypeAlias = And | Or | Not | Leaf


# -- JSON -------------------------------------------------------------------------------------------------------------


def filter_to_json(filter: Filter) -> dict[str, object]:
    """The JSON form: ``{"and": [f]}, {"or": [f]}, {"not": f}, {"eq": [field, v]}, {"in": [field, [v]]},
    {"range": [field, {"gt", "gte", "lt", "lte"}]}, {"any": [field, [v]]}, {"exists": field}``.
    """
    match filter:
        case And(parts):
            return {"and": [filter_to_json(part) for part in parts]}
        case Or(parts):
            return {"or": [filter_to_json(part) for part in parts]}
        case Not(part):
            return {"not": filter_to_json(part)}
        case Eq(field, value):
            return {"eq": [field, value]}
        case In(field, values):
            return {"in": [field, list(values)]}
        case Range(field):
            return {"range": [field, dict(filter.bounds)]}
        case Any(field, members):
            return {"any": [field, list(members)]}
        case Exists(field):
            return {"exists": field}


def filter_from_json(value: object) -> Filter:
    """The filter that JSON says; what the fields may hold is `check_filter`'s to say.

    Raises:
        UsageError: MS-2650, it is no filter, or one without end.
    """
    return _parsed(value, "filter", _DEPTH)


def _parsed(value: object, at: str, depth: int) -> Filter:
    if depth == 0:
        raise _no_filter(at, f"it is nested deeper than {_DEPTH}")
    if not isinstance(value, dict) or len(value) != 1:
        raise _no_filter(at, "a filter is an object with one key: and, or, not, eq, in, range, any, exists")
    ((kind, body),) = value.items()
    here = f"{at}.{kind}"
    if kind in ("and", "or"):
        parts = tuple(_parsed(part, f"{here}[{n}]", depth - 1) for n, part in enumerate(_list(body, here)))
        return And(parts) if kind == "and" else Or(parts)
    if kind == "not":
        return Not(_parsed(body, here, depth - 1))
    return _leaf(kind, body, here)


def _leaf(kind: object, body: object, at: str) -> Filter:
    if kind == "exists":
        return Exists(_text(body, at))
    if kind not in ("eq", "in", "range", "any"):
        raise _no_filter(at, f"{kind!r} is none of and, or, not, eq, in, range, any, exists")
    pair = _list(body, at)
    if len(pair) != 2:
        raise _no_filter(at, "it takes a list of two: the field, and what it is compared with")
    field, given = _text(pair[0], at), pair[1]
    if kind == "eq":
        return Eq(field, _scalar(given, at))
    if kind == "range":
        return _range(field, given, at)
    values = tuple(_scalar(item, at) for item in _list(given, at))
    return In(field, values) if kind == "in" else Any(field, cast("tuple[str | int, ...]", values))


def _range(field: str, given: object, at: str) -> Range:
    if not isinstance(given, dict) or not given or not set(given) <= set(_BOUNDS):
        raise _no_filter(at, "a range has at least one of gt, gte, lt, lte, and no other key")
    for bound in given.values():
        if isinstance(bound, bool) or not isinstance(bound, (int, float)):
            raise _no_filter(at, f"the bound {bound!r} is no number")
    return Range(field, **given)


def _list(value: object, at: str) -> list[object]:
    if not isinstance(value, (list, tuple)):
        raise _no_filter(at, f"{value!r:.40} is no list")
    return list(value)


def _text(value: object, at: str) -> str:
    if not isinstance(value, str):
        raise _no_filter(at, f"{value!r:.40} is no field's name")
    return value


def _scalar(value: object, at: str) -> Scalar:
    if not isinstance(value, (str, int, float, bool)):
        raise _no_filter(at, f"{value!r:.40} is no text, number or truth value")
    return value


def _no_filter(at: str, why: str) -> UsageError:
    return UsageError(
        f"{at} is no filter",
        code="MS-2650",
        why=why,
        fix='write it like {"and": [{"eq": ["tenant", "acme"]}, {"any": ["acl", ["group:staff"]]}]}',
    )


# -- what an index allows ---------------------------------------------------------------------------------------------


def check_filter(filter: Filter, fields: Mapping[str, FieldType]) -> Filter:
    """Refuse a filter that the fields of an index do not allow, before any store sees it.

    Returns:
        The filter, with floats for what a ``number`` is compared with, and one bound a side of a range.

    Raises:
        UsageError: MS-2650, too large; MS-2651, a field that the index does not have; MS-2652, a value of the wrong
            type, or a comparison that the field's type does not have.
    """
    values = 0
    for nodes, (node, depth) in enumerate(_nodes(filter, 1), 1):
        values += len(node.values) if isinstance(node, (In, Any)) else 0
        if nodes > _NODES or values > _VALUES or depth > _DEPTH:
            raise _no_filter("filter", f"it has over {_NODES} parts or {_VALUES} values, or is deeper than {_DEPTH}")
        if not isinstance(node, (And, Or, Not)):
            _check_leaf(node, fields)
    return _exact(filter, fields)


def _exact(filter: Filter, fields: Mapping[str, FieldType]) -> Filter:
    match filter:
        case And(parts):
            return And(tuple(_exact(part, fields) for part in parts))
        case Or(parts):
            return Or(tuple(_exact(part, fields) for part in parts))
        case Not(part):
            return Not(_exact(part, fields))
        case Eq(field, value) if fields[field] == "number":
            return Eq(field, float(value))
        case In(field, values) if fields[field] == "number":
            return In(field, tuple(float(value) for value in values))
        case Range():
            return _tightest(filter)
        case _:
            return filter


def _tightest(leaf: Range) -> Range:
    """The same range with one bound a side: of two, some engines look at one, and not at the narrower."""
    gt, gte, lt, lte = leaf.gt, leaf.gte, leaf.lt, leaf.lte
    if gt is not None and gte is not None:
        gt, gte = (gt, None) if gt >= gte else (None, gte)
    if lt is not None and lte is not None:
        lt, lte = (lt, None) if lt <= lte else (None, lte)
    return Range(leaf.field, gt, gte, lt, lte)


def _nodes(filter: Filter, depth: int) -> Iterator[tuple[Filter, int]]:
    left = [(filter, depth)]
    while left:
        node, depth = left.pop()
        yield node, depth
        if isinstance(node, (And, Or)):
            left.extend((part, depth + 1) for part in node.filters)
        elif isinstance(node, Not):
            left.append((node.filter, depth + 1))


def _check_leaf(leaf: Leaf, fields: Mapping[str, FieldType]) -> None:
    kind = fields.get(leaf.field)
    if kind is None:
        known = ", ".join(sorted(fields)) or "none"
        raise UsageError(
            f"the index has no field {leaf.field!r} to filter on",
            code="MS-2651",
            why=f"its fields are: {known}",
            fix="name one of them, or declare the field and build the index anew",
        )
    if isinstance(leaf, Range):
        _check_range(leaf, kind)
    elif not isinstance(leaf, Exists):
        is_list = kind in LISTS
        if isinstance(leaf, Any) != is_list:
            word = '"any"' if is_list else '"eq" or "in"'
            raise _wrong(leaf.field, kind, "a list is compared otherwise than one value", f"use {word}")
        member = LISTS.get(kind, kind)
        for value in (leaf.value,) if isinstance(leaf, Eq) else leaf.values:
            if why := misfit(value, member):
                raise _wrong(leaf.field, kind, why, f"compare it with a value that is {member}")


def _check_range(leaf: Range, kind: FieldType) -> None:
    if kind not in ("integer", "number"):
        raise _wrong(leaf.field, kind, "only numbers have ranges", 'use "eq", "in" or "any"')
    if not leaf.bounds:
        raise _wrong(leaf.field, kind, "the range has no bound", "give gt, gte, lt or lte")
    for name, bound in leaf.bounds:
        if why := misfit(bound, kind):
            raise _wrong(leaf.field, kind, f"{name}: {why}", f"give {name} a value that is {kind}")


def fits(value: object, kind: FieldType) -> bool:
    """Whether a value may be stored in a field of that type."""
    return not misfit(value, kind)


def misfit(value: object, kind: FieldType) -> str:
    """Why a value may not be in a field of that type; empty when it may."""
    if kind in LISTS:
        if not isinstance(value, (list, tuple)):
            return f"{value!r:.40} is no list"
        return next((why for item in value if (why := misfit(item, LISTS[kind]))), "")
    if kind == "string":
        return _no_string(value)
    if kind == "boolean":
        return "" if isinstance(value, bool) else f"{value!r:.40} is not true or false"
    if isinstance(value, bool) or not isinstance(value, int if kind == "integer" else (int, float)):
        return f"{value!r:.40} is no {kind}"
    if not math.isfinite(value):
        return f"{value!r} is not finite"
    return f"{value} is beyond 2^53" if isinstance(value, int) and abs(value) > SAFE else ""


def _no_string(value: object) -> str:
    if not isinstance(value, str):
        return f"{value!r:.40} is no text"
    return "it holds a NUL character" if "\0" in value else _half(value)


def _half(value: str) -> str:
    if value.isascii():
        return ""
    try:
        value.encode()
    except UnicodeEncodeError:
        return "it holds half a character"
    return ""


def no_json(value: object) -> str:
    """Why a value is no JSON that every store gives back as it was; empty when it is."""
    if value is None or isinstance(value, bool):
        return ""
    if isinstance(value, str):
        return _half(value)
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{value!r} is not finite"
    if isinstance(value, int):
        return "" if abs(value) < 1 << 63 else f"{value} is beyond 2^63"
    return _no_nested(value)


def _no_nested(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return next((why for item in value if (why := no_json(item))), "")
    if isinstance(value, dict):
        strange = [key for key in value if not isinstance(key, str) or _half(key)]
        return f"{strange[0]!r:.40} is no key" if strange else _no_nested(list(value.values()))
    return f"{type(value).__name__} is no JSON"


def _wrong(field: str, kind: FieldType, why: str, fix: str) -> UsageError:
    return UsageError(f"the filter does not fit field {field!r}, which is {kind}", code="MS-2652", why=why, fix=fix)
