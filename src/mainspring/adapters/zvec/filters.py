"""Filters in zvec's own text, over columns whose names and values are ours: nothing of a caller's is parsed."""

from __future__ import annotations

from collections.abc import Mapping

from mainspring.ports.vector_filter import LISTS
from mainspring.ports.vector_store import And, Any, Eq, Exists, FieldType, Filter, In, Not, Or, Range, Scalar, Schema

__all__ = ["ALWAYS", "NEVER", "columns_of", "native", "values_of"]

ALWAYS, NEVER = "", "-"
"""What is true of every row, and of none: zvec has no words for those."""

_FEW = 3
"""Below so many values they are compared one by one: truth values have no lists."""

_OPPOSITE = {"gt": "<=", "gte": "<", "lt": ">=", "lte": ">"}
_SAME = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def columns_of(schema: Schema) -> dict[str, str]:
    """The column of each field: a name of its own may hold what zvec would read as something else."""
    return {field.name: f"f{number}" for number, field in enumerate(schema.fields)}


def values_of(payload: Mapping[str, object], schema: Schema) -> dict[str, object]:
    """What the columns of a payload hold: None where a field is missing, or an empty list."""
    columns = columns_of(schema)
    return {columns[name]: _stored(payload.get(name), kind) for name, kind in schema.types.items()}


def _stored(value: object, kind: FieldType) -> object:
    if value is None or value == []:
        return None
    if kind == "number":
        assert isinstance(value, (int, float))
        return float(value)
    if kind == "string":
        return _hex(value)
    if kind == "strings":
        assert isinstance(value, (list, tuple))
        return [_hex(item) for item in value]
    return list(value) if kind in LISTS else value  # type: ignore[call-overload]


def _hex(value: object) -> str:
    """A text as letters and digits alone: zvec's quotes know no way to hold a quote of each kind."""
    return "x" + str(value).encode().hex()


def native(filter: Filter, columns: Mapping[str, str]) -> str:
    """The filter as zvec's text, `ALWAYS` or `NEVER`; a `not` goes down to the leaves, where null is told apart."""
    return _said(filter, columns, True)


def _said(filter: Filter, columns: Mapping[str, str], wanted: bool) -> str:
    match filter:
        case And(parts):
            return _joined([_said(part, columns, wanted) for part in parts], "and" if wanted else "or")
        case Or(parts):
            return _joined([_said(part, columns, wanted) for part in parts], "or" if wanted else "and")
        case Not(part):
            return _said(part, columns, not wanted)
        case _:
            return _leaf(filter, columns[filter.field], wanted)


def _joined(parts: list[str], word: str) -> str:
    decides, passes = (NEVER, ALWAYS) if word == "and" else (ALWAYS, NEVER)
    if decides in parts:
        return decides
    kept = [part for part in parts if part != passes]
    return f"({f' {word} '.join(kept)})" if kept else passes


def _leaf(leaf: Eq | In | Range | Any | Exists, column: str, wanted: bool) -> str:
    if isinstance(leaf, Exists):
        return f"{column} is not null" if wanted else f"{column} is null"
    if isinstance(leaf, Range):
        if wanted:
            return "(" + " and ".join(f"{column} {_SAME[name]} {_literal(bound)}" for name, bound in leaf.bounds) + ")"
        outside = [f"{column} {_OPPOSITE[name]} {_literal(bound)}" for name, bound in leaf.bounds]
        return "(" + " or ".join([*outside, f"{column} is null"]) + ")"
    values = (leaf.value,) if isinstance(leaf, Eq) else leaf.values
    if not values:
        return NEVER if wanted else ALWAYS
    given = [_literal(value) for value in dict.fromkeys(values)]
    if isinstance(leaf, Any):
        held = f"contain_any ({', '.join(given)})"
        return f"{column} {held}" if wanted else f"({column} not {held} or {column} is null)"
    if wanted:
        return _joined([f"{column} = {value}" for value in given], "or") if len(given) < _FEW else _in(column, given)
    different = [f"{column} != {value}" for value in given]
    some = _joined(different, "and") if len(given) < _FEW else f"{column} not in ({', '.join(given)})"
    return f"({some} or {column} is null)"


def _in(column: str, given: list[str]) -> str:
    return f"{column} in ({', '.join(given)})"


def _literal(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"'{_hex(value)}'" if isinstance(value, str) else repr(value)
