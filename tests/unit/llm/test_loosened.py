"""Schemas of other people's tools: what is left can be forced by every engine, and refuses nothing that was right."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.adapters.llamacpp import schemas as llamacpp
from mainspring.llm.schemas import loosened, unsupported

NAMES = st.sampled_from(["a", "b", "ab"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "ab", "b@c.de"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
LEAVES: st.SearchStrategy[Any] = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["integer", "string", "boolean", "array", "object", "null"])}),
    st.fixed_dictionaries({"enum": st.lists(VALUES, min_size=1, max_size=3)}),
    st.fixed_dictionaries({"minimum": st.integers(-2, 2), "uniqueItems": st.booleans()}),
    st.fixed_dictionaries({"pattern": st.sampled_from(["^a", "^(?!a)", "b$"]), "x-order": st.just(1)}),
    st.fixed_dictionaries({"format": st.sampled_from(["uri", "email", "int32"])}),
    st.just({"$ref": "https://elsewhere.example/schema"}),
    st.booleans(),
)


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    many = st.lists(inner, min_size=1, max_size=3)
    maps = st.dictionaries(NAMES, inner, max_size=3)
    return st.one_of(
        st.fixed_dictionaries(
            {"properties": maps}, optional={"additionalProperties": inner, "minProperties": st.just(1)}
        ),
        st.fixed_dictionaries(
            {"patternProperties": st.dictionaries(st.sampled_from(["^a", "b$"]), inner, max_size=2)},
            optional={"additionalProperties": inner, "properties": maps},
        ),
        st.fixed_dictionaries({"oneOf": many}, optional={"anyOf": many}),
        st.fixed_dictionaries({"allOf": many}, optional={"not": inner}),
        st.fixed_dictionaries({"if": inner, "then": inner, "else": inner}),
        st.fixed_dictionaries({"items": inner}, optional={"contains": inner, "prefixItems": many}),
    )


SCHEMAS = st.recursive(LEAVES, nested, max_leaves=8)


@settings(max_examples=400, deadline=None)
@given(st.dictionaries(NAMES, SCHEMAS, max_size=3), SCHEMAS, VALUES)
def test_what_fitted_fits_and_every_engine_can_force_it(properties: dict[str, Any], further: Any, value: Any) -> None:
    schema = {"type": "object", "properties": properties, "allOf": [further]}
    found = loosened(schema)
    assert unsupported(found) is None
    assert llamacpp.unsupported(found) == ""
    strict = _without_places_elsewhere(schema)
    if jsonschema_rs.validator_for(strict, offline=True).is_valid(value):
        assert jsonschema_rs.validator_for(dict(found), offline=True).is_valid(value)


def _without_places_elsewhere(schema: Any) -> Any:
    """References that nobody follows stand for anything."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return {}
        return {key: value if key == "enum" else _without_places_elsewhere(value) for key, value in schema.items()}
    return [_without_places_elsewhere(part) for part in schema] if isinstance(schema, list) else schema


def test_a_usual_schema_stays_as_it_is() -> None:
    schema = {
        "type": "object",
        "title": "findArguments",
        "properties": {
            "word": {"type": "string", "minLength": 1, "default": "x"},
            "place": {"$ref": "#/$defs/Place"},
            "limit": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        },
        "required": ["word"],
        "$defs": {"Place": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }
    assert loosened(schema) == schema


@pytest.mark.parametrize("schema", [{"type": 7}, {"properties": []}, {"$ref": "#/$defs/nowhere"}])
def test_what_is_no_schema_is_one_of_any_object(schema: dict[str, Any]) -> None:
    assert loosened(schema) == {"type": "object", "properties": {}, "additionalProperties": True}


def test_a_schema_may_be_deep() -> None:
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(200):
        deep = {"type": "object", "properties": {"a": deep}}
    assert unsupported(loosened(deep)) is None
