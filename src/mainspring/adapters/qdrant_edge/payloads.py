"""Payloads as they lie in a shard: what filters may name as it is, all else as one text.

Each key costs the engine's binding up to 16 us when a point is written and again when it is given back, a list most of
all. A point that was written before stays as it is, and is read as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import msgspec

from mainspring.adapters.qdrant_edge.filters import key_of, shadow_of
from mainspring.ports.vector_filter import LISTS, FieldType

__all__ = ["REST", "Payloads", "patched"]

REST = "_rest"
"""The key of what filters may not name, as JSON."""


class Payloads:
    """Payloads of one index, between its callers and its shard.

    Args:
        types: the fields that filters may name, with their types.
        hidden: keys that are the store's own.
    """

    def __init__(self, types: Mapping[str, FieldType], hidden: tuple[str, ...] = ()) -> None:
        self._types = types
        self._lists = tuple(key for key, kind in types.items() if kind in LISTS)
        self._hidden = (*hidden, *(shadow_of(key) for key, kind in types.items() if kind == "boolean"))

    def parted(self, payload: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
        """The fields of a payload as filters find them, and what else it has.

        A list of one value is kept as that value, which the engine's filters take for the same; beside a boolean is
        its text, which they can be asked for.
        """
        fields: dict[str, object] = {}
        rest: dict[str, object] = {}
        for key, value in payload.items():
            kind = self._types.get(key)
            if kind is None:
                rest[key] = value
            elif kind in LISTS:
                values = cast("list[object]", value)
                fields[key] = values[0] if len(values) == 1 else list(values)
            else:
                fields[key] = value
                if kind == "boolean":
                    fields[shadow_of(key)] = str(value)
        return fields, rest

    def stored(self, payload: Mapping[str, object]) -> dict[str, object]:
        """What is written of a payload."""
        fields, rest = self.parted(payload)
        if rest:
            fields[REST] = msgspec.json.encode(rest).decode()
        return fields

    def wanted(self, fields: tuple[str, ...] | None) -> bool | list[str]:
        """What the engine is asked to give back, so that these keys are among it; all when None."""
        if fields is None:
            return True
        rest = (REST,) if any(field not in self._types for field in fields) else ()
        return [key_of(field) for field in (*fields, *rest)] or False

    def given(self, stored: dict[str, object] | None, fields: tuple[str, ...] | None) -> dict[str, object]:
        """A payload as it was written, of what the engine gave back, which nobody else has."""
        if stored is None:
            return {}
        rest = stored.pop(REST, None)
        for key in self._hidden:
            stored.pop(key, None)
        for key in self._lists:
            value = stored.get(key)
            if value is not None and not isinstance(value, list):
                stored[key] = [value]
        if rest is not None:
            stored.update(msgspec.json.decode(cast(str, rest)))
            if fields is not None:
                return {key: stored[key] for key in fields if key in stored}
        return stored


def patched(rest: object, put: Mapping[str, object], gone: tuple[str, ...]) -> str | None:
    """The text of what filters may not name after a patch; None when it stays as it is."""
    before: dict[str, object] = msgspec.json.decode(rest) if isinstance(rest, str) else {}
    after = {key: value for key, value in {**before, **put}.items() if key not in gone}
    return None if after == before else msgspec.json.encode(after).decode()
