"""The plainest instance of a JSON schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

__all__ = ["example_of"]

_PLAIN: dict[str, object] = {"string": "", "integer": 0, "number": 0, "boolean": False, "null": None}


def example_of(schema: Mapping[str, object]) -> object:
    """An instance: constants and first choices as they are, required members only, least lengths and numbers.

    Patterns, formats and references are not followed.
    """
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    if choices := cast("Sequence[object]", schema.get("enum") or schema.get("examples")):
        return choices[0]
    if options := cast("Sequence[Mapping[str, object]]", schema.get("anyOf") or schema.get("oneOf")):
        return example_of(options[0])
    kind = schema.get("type", "object" if "properties" in schema else "string")
    return _of_type(str(kind[0] if isinstance(kind, list) else kind), schema)


def _of_type(kind: str, schema: Mapping[str, object]) -> object:
    if kind == "object":
        members = cast("Mapping[str, Mapping[str, object]]", schema.get("properties", {}))
        return {name: example_of(members.get(name, {})) for name in cast("Sequence[str]", schema.get("required", ()))}
    if kind == "array":
        item = cast("Mapping[str, object]", schema.get("items", {}))
        return [example_of(item)] * int(cast(int, schema.get("minItems", 0)))
    if kind == "string":
        return "a" * int(cast(int, schema.get("minLength", 0)))
    if kind in ("integer", "number"):
        least = schema.get("minimum", schema.get("exclusiveMinimum"))
        if least is not None:
            return cast(float, least) + (0 if "minimum" in schema else 1)
        return min(0, cast(float, schema.get("maximum", 0)))
    return _PLAIN.get(kind)
