"""JSON schemas of answers and of tools: refused before a request is sent, and held to when the answer is there."""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import jsonschema_rs
else:
    jsonschema_rs = lazy("jsonschema_rs")

__all__ = ["SchemaBook", "loosened", "unsupported"]

_REFUSED = frozenset(
    {
        "not", "if", "then", "else", "contains", "minContains", "maxContains", "dependencies", "dependentRequired",
        "dependentSchemas", "propertyNames", "unevaluatedItems", "unevaluatedProperties", "uniqueItems",
        "$dynamicRef", "$recursiveRef",
    }
)  # fmt: skip
"""Keywords that no grammar can hold a model to."""
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
"""Keywords whose values are schemas by free names."""
_DATA = frozenset({"enum", "const", "default", "examples"})
"""Keywords whose values are no schemas."""
_EVERYWHERE = frozenset(
    {
        "type", "const", "enum", "anyOf", "oneOf", "allOf", "$ref", "$defs", "definitions", "properties", "required",
        "additionalProperties", "items", "prefixItems", "minItems", "maxItems", "minLength", "maxLength", "minimum",
        "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "title", "description", "default", "examples",
    }
)  # fmt: skip
"""Keywords that every engine can force, or that only tell."""
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})
_BEYOND_REGULAR = re.compile(r"\(\?(?:[=!]|<[=!])|\\[1-9]")
"""Looking ahead or behind, and what was matched before."""
_DEPTH = 64
_KEPT = 256


def unsupported(schema: object, path: str = "", depth: int = 0) -> str | None:
    """Where a schema says what cannot be forced, or None: ``/properties/age: "not" is not supported``."""
    if depth > _DEPTH:
        return f"{path}: deeper than {_DEPTH}"
    if isinstance(schema, list):
        found = (unsupported(part, f"{path}/{place}", depth + 1) for place, part in enumerate(schema))
        return next((fault for fault in found if fault), None)
    if not isinstance(schema, Mapping):
        return None
    for keyword, value in schema.items():
        fault = _keyword(str(keyword), value, f"{path}/{keyword}", depth)
        if fault:
            return fault
    return None


def _keyword(keyword: str, value: object, path: str, depth: int) -> str | None:
    if keyword in _REFUSED:
        return f'{path}: "{keyword}" is not supported'
    if keyword == "$ref" and not str(value).startswith("#"):
        return f'{path}: only references within the schema ("#/...") are followed'
    if keyword in _DATA:
        return None
    if keyword in _MAPS and isinstance(value, Mapping):
        found = (unsupported(part, f"{path}/{name}", depth + 1) for name, part in value.items())
        return next((fault for fault in found if fault), None)
    return unsupported(value, path, depth + 1)


def loosened(schema: Mapping[str, object]) -> Mapping[str, object]:
    """A schema of what every engine can force alone; whatever is an instance of the one is an instance of the other.

    It is for tools of others, which check their arguments themselves. What is no schema of an object becomes one of
    any object.
    """
    found = _loose(schema, 0)
    if not isinstance(found, dict) or SchemaBook().fault(found, forced=True) is not None:
        return {"type": "object", "properties": {}, "additionalProperties": True}
    return found


def _loose(schema: object, depth: int) -> object:
    if isinstance(schema, list):
        return [_loose(part, depth + 1) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    if depth > _DEPTH - 4 or ("$ref" in schema and not str(schema["$ref"]).startswith("#")):
        return {}
    kept = {keyword: value for keyword, value in schema.items() if _everywhere(keyword, value)}
    if "patternProperties" in schema:  # further names may be those of a pattern
        kept.pop("additionalProperties", None)
    found = {keyword: _loose_value(keyword, value, depth) for keyword, value in kept.items()}
    if found.get("oneOf") != kept.get("oneOf"):  # of looser ones, more than one may fit
        choices = found.pop("oneOf")
        found.setdefault("anyOf", choices)
    return found


def _everywhere(keyword: str, value: object) -> bool:
    if keyword == "format":
        return value in _FORMATS
    if keyword == "pattern":
        return _BEYOND_REGULAR.search(str(value)) is None
    return keyword in _EVERYWHERE


def _loose_value(keyword: str, value: object, depth: int) -> object:
    if keyword in _DATA:
        return value
    if keyword in _MAPS and isinstance(value, Mapping):
        return {name: _loose(part, depth + 2) for name, part in value.items()}
    return _loose(value, depth + 1)


class SchemaBook:
    """Compiled schemas, the latest kept."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Any] = OrderedDict()

    def fault(self, schema: Mapping[str, object], *, forced: bool) -> str | None:
        """Why a schema cannot be used, or None.

        Args:
            schema: as the client gave it.
            forced: whether the answer is forced into it, token by token.
        """
        if forced and (fault := unsupported(schema)) is not None:
            return fault
        try:
            self._validator(schema)
        except (ValueError, TypeError) as error:
            return str(error).partition("\n")[0]
        return None

    def misfit(self, schema: Mapping[str, object] | None, text: str) -> str | None:
        """Why a text is no instance of a schema (None: of any object), or None when it is."""
        try:
            value = orjson.loads(text)
        except ValueError:
            return "it is not valid JSON"
        if schema is None:
            return None if isinstance(value, dict) else "it is no JSON object"
        error = next(iter(self._validator(schema).iter_errors(value)), None)
        if error is None:
            return None
        place = "/".join(map(str, error.instance_path))
        return f"at /{place}: {error.message.partition(chr(10))[0][:200]}"

    def _validator(self, schema: Mapping[str, object]) -> Any:
        key = hashlib.blake2b(orjson.dumps(schema, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()
        found = self._kept.get(key)
        if found is None:
            found = self._kept[key] = jsonschema_rs.validator_for(dict(schema), offline=True)
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return found
