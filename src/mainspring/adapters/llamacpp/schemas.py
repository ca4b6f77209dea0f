"""JSON schemas that llama.cpp's grammar can enforce; it drops a schema that it does not understand without a word."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import jsonschema_rs
else:
    jsonschema_rs = lazy("jsonschema_rs")

__all__ = ["compact", "misfit_of", "unsupported"]

_ENFORCED = frozenset(
    {
        *("type", "const", "enum", "anyOf", "oneOf", "allOf", "$ref", "$defs", "definitions"),
        *("properties", "required", "additionalProperties", "patternProperties"),
        *("items", "prefixItems", "minItems", "maxItems"),
        *("minLength", "maxLength", "pattern", "format"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    }
)
_WORDS = frozenset(
    {
        *("$schema", "$id", "$anchor", "$comment", "title", "description", "default", "examples"),
        *("deprecated", "readOnly", "writeOnly", "contentMediaType", "contentEncoding"),
    }
)
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "unknown"})
_PATTERNS = ("pattern", "patternProperties")
_ONE = ("additionalProperties", "items")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_BEYOND_REGULAR = re.compile(r"\(\?(?:[=!]|<[=!])|\\[1-9]")
"""Looking ahead or behind, and what was matched before."""

_COMPACT = {"x-guidance": {"whitespace_flexible": False, "coerce_one_of": True}}
"""No needless white space; the first of ``oneOf`` that fits (the whole answer is held to the schema afterwards)."""


def unsupported(schema: Mapping[str, object]) -> str:
    """Why answers cannot be forced into a schema, naming the place; empty when they can."""
    try:
        jsonschema_rs.meta.validate(dict(schema))
    except ValueError as error:
        return f"the schema is no valid JSON schema: {str(error).splitlines()[0]}"
    return next(_faults(schema, "$"), "")


def _faults(schema: object, place: str) -> Iterator[str]:
    if not isinstance(schema, Mapping):
        return  # true or false
    for key, value in schema.items():
        if key not in _ENFORCED and key not in _WORDS:
            yield f"the schema's keyword {key!r} at {place} cannot be enforced by this engine"
        elif key == "format" and value not in _FORMATS:
            yield f"the schema's format {value!r} at {place} cannot be enforced by this engine"
        elif key in _PATTERNS and _BEYOND_REGULAR.search(str(value)):
            yield f"the schema's {key} at {place} looks around or back, which cannot be enforced by this engine"
        elif key == "$ref" and not str(value).startswith("#"):
            yield f"the schema refers to {value!r} at {place}, which is outside of it"
    for key, inner in _inner(schema):
        yield from _faults(inner, f"{place}.{key}")


def _inner(schema: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for key in _ONE:
        if key in schema:
            yield key, schema[key]
    for key in _LISTS:
        found = schema.get(key)
        if isinstance(found, list):
            yield from ((f"{key}[{number}]", inner) for number, inner in enumerate(found))
    for key in _MAPS:
        found = schema.get(key)
        if isinstance(found, Mapping):
            yield from ((f"{key}.{name}", inner) for name, inner in found.items())


def compact(schema: Mapping[str, object]) -> dict[str, object]:
    """The schema, such that the grammar lets no white space through that a model could go on with for ever."""
    return {**_COMPACT, **schema}


def misfit_of(schema: Mapping[str, object], instance: object) -> str:
    """Why a value does not fit a schema; empty when it does."""
    try:
        jsonschema_rs.validate(dict(schema), instance)
    except ValueError as error:
        return str(error).splitlines()[0]
    return ""
