"""Columns as JSON schemas (draft 2020-12, as OpenAPI 3.1 has it)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mainspring.declare.record import ColumnType, Field, Kind

__all__ = ["Schema", "array_of", "column_schema", "object_of", "reference"]

Schema = dict[str, Any]

_INT64 = 1 << 63
_NUMBERS = frozenset({Kind.INTEGER, Kind.FLOAT})

_PLAIN: Mapping[Kind, Schema] = {
    Kind.STRING: {"type": "string"},
    Kind.INTEGER: {"type": "integer", "format": "int64", "minimum": -_INT64, "maximum": _INT64 - 1},
    Kind.FLOAT: {"type": "number", "format": "double"},
    Kind.BOOLEAN: {"type": "boolean"},
    Kind.TIMESTAMP: {"type": "string", "format": "date-time"},
    Kind.DATE: {"type": "string", "format": "date"},
    Kind.BYTES: {"type": "string", "contentEncoding": "base64"},
    Kind.DECIMAL: {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?$"},
}


def column_schema(kind: ColumnType, rules: Field | None = None) -> Schema:
    """The values of a column, as clients write and read them.

    Args:
        kind: the column's type.
        rules: what its values satisfy besides; they are described to people, and left to the app's checks, which put
            rows aside that break them and do not refuse a request.
    """
    shape = _SHAPES.get(kind.kind)
    found = dict(_PLAIN[kind.kind]) if shape is None else shape(kind)
    told = [] if rules is None else [part for part in (rules.doc, rules.unit and f"in {rules.unit}") if part]
    if told:
        found["description"] = ", ".join(told)
    return _or_null(found) if kind.nullable else found


def _vector(kind: ColumnType) -> Schema:
    return {**array_of({"type": "number", "format": "float"}), "minItems": kind.length, "maxItems": kind.length}


def _list(kind: ColumnType) -> Schema:
    return {**array_of(column_schema(kind.element)), "maxItems": kind.length}


_SHAPES: Mapping[Kind, Callable[[ColumnType], Schema]] = {Kind.VECTOR: _vector, Kind.LIST: _list}


def _or_null(schema: Schema) -> Schema:
    return {**schema, "type": [schema["type"], "null"]}


def array_of(items: Schema, **more: Any) -> Schema:
    """A list of what a schema says."""
    return {"type": "array", "items": items, **more}


def object_of(
    properties: Mapping[str, Schema], required: tuple[str, ...] | None = None, *, closed: bool = True
) -> Schema:
    """An object of named values.

    Args:
        properties: the schema of each.
        required: those that must be there; None is all.
        closed: whether it has no others.
    """
    found: Schema = {"type": "object", "properties": dict(properties)}
    if needed := list(properties if required is None else required):
        found["required"] = needed
    if closed:
        found["additionalProperties"] = False
    return found


def reference(name: str) -> Schema:
    """A schema of the document's components."""
    return {"$ref": f"#/components/schemas/{name}"}
