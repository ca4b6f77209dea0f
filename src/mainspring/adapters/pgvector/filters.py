"""Filters in SQL, every value as a parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

from mainspring.lazy import lazy
from mainspring.ports.vector_filter import LISTS
from mainspring.ports.vector_store import And, Any, Eq, Exists, FieldType, Filter, In, Not, Or, Range, Schema

if TYPE_CHECKING:
    from psycopg import sql
else:
    sql = lazy("psycopg.sql")

__all__ = ["TYPES", "Condition", "columns_of", "native", "values_of"]

Condition: TypeAlias = "tuple[sql.Composable, list[object]]"
"""SQL with places for its parameters."""

TYPES: Mapping[FieldType, str] = {
    "string": "text",
    "integer": "bigint",
    "number": "double precision",
    "boolean": "boolean",
    "strings": "text[]",
    "integers": "bigint[]",
}
_COMPARED = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def columns_of(schema: Schema) -> dict[str, str]:
    """The column of each field: names of fields may be longer than Postgres' and differ in case alone."""
    return {field.name: f"f{number}" for number, field in enumerate(schema.fields)}


def values_of(payload: Mapping[str, object], schema: Schema) -> list[object]:
    """What the columns of a payload hold, in their order: None where a field is missing, or an empty list."""
    return [_stored(payload.get(field.name), field.type) for field in schema.fields]


def _stored(value: object, kind: FieldType) -> object:
    if value is None or value == []:
        return None
    return float(value) if kind == "number" and isinstance(value, int) else value


def native(filter: Filter | None, schema: Schema) -> Condition:
    """The filter as a condition that is never null."""
    return (sql.SQL("TRUE"), []) if filter is None else _said(filter, schema, columns_of(schema))


def _said(filter: Filter, schema: Schema, columns: Mapping[str, str]) -> Condition:
    match filter:
        case And(parts):
            return _joined([_said(part, schema, columns) for part in parts], "AND", "TRUE")
        case Or(parts):
            return _joined([_said(part, schema, columns) for part in parts], "OR", "FALSE")
        case Not(part):
            inner, values = _said(part, schema, columns)
            return sql.SQL("(({}) IS NOT TRUE)").format(inner), values
        case _:
            return _leaf(filter, sql.Identifier(columns[filter.field]), schema.types[filter.field])


def _joined(parts: list[Condition], word: str, none: str) -> Condition:
    if not parts:
        return sql.SQL(none), []
    text = sql.SQL(f" {word} ").join([part for part, _ in parts])
    return sql.SQL("({})").format(text), [value for _, values in parts for value in values]


def _leaf(leaf: Eq | In | Range | Any | Exists, column: sql.Identifier, kind: FieldType) -> Condition:
    if isinstance(leaf, Exists):
        return sql.SQL("({} IS NOT NULL)").format(column), []
    if isinstance(leaf, Range):
        bounds = [sql.SQL(f"{{}} {_COMPARED[name]} %s::{TYPES[kind]}").format(column) for name, _ in leaf.bounds]
        return sql.SQL("({})").format(sql.SQL(" AND ").join(bounds)), [bound for _, bound in leaf.bounds]
    values = [leaf.value] if isinstance(leaf, Eq) else list(leaf.values)
    if isinstance(leaf, Any):
        return sql.SQL(f"({{}} && %s::{TYPES[kind]})").format(column), [values]
    if len(values) == 1:
        return sql.SQL(f"({{}} = %s::{TYPES[kind]})").format(column), values  # type: ignore[return-value]
    member = TYPES[LISTS.get(kind, kind)]
    return sql.SQL(f"({{}} = ANY(%s::{member}[]))").format(column), [values]
