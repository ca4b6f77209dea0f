"""What the online store says of entities, as points of a vector index: read anew, never remembered."""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from mainspring.declare.record import Kind
from mainspring.features.online.keys import key_packer
from mainspring.features.online.plan import compile_plan
from mainspring.features.online.rows import TOMBSTONE, read_plain
from mainspring.features.vector_index.shape import ENTITY, EVENT_US, UNTIL_US, FilterField, VectorIndexShape
from mainspring.features.view import FeatureDef, Pick
from mainspring.lazy import lazy
from mainspring.ports.online import OnlineStore
from mainspring.ports.vector_filter import SAFE, fits
from mainspring.ports.vector_store import Point

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    np = lazy("numpy")

__all__ = ["KEY_TYPES", "Entry", "EntryReader", "entity_of", "point_id"]

KEY_TYPES: Mapping[Kind, Any] = {
    Kind.STRING: str,
    Kind.INTEGER: int,
    Kind.BOOLEAN: bool,
    Kind.TIMESTAMP: datetime,
    Kind.DATE: date,
    Kind.BYTES: bytes,
    Kind.DECIMAL: Decimal,
}
"""The Python type of an entity key of each kind."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHORTEST, _LONGEST = 1e-30, 1e30
"""Vectors beyond these lengths are nothing, or infinite, to stores that compute with 32 bits."""
_encode = msgspec.json.Encoder().encode


class Entry(NamedTuple):
    """What the online store says of an entity at a moment.

    Attributes:
        entity: its keys.
        status: ``PRESENT``, ``EXPIRED`` or ``MISSING``.
        vector: its vector, if there is one that can be near to another: float32[dims].
        lacking: why there is none though the row answers: ``null``, ``zero``, ``not_finite``, ``dims``.
        payload: what filters compare, by the keys of a point's payload.
        event_us: when the row that answers happened, or None.
        values: the features that were asked for.
    """

    entity: Mapping[str, Any]
    status: str
    vector: npt.NDArray[np.float32] | None
    lacking: str
    payload: Mapping[str, object]
    event_us: int | None
    values: Sequence[object]


class EntryReader:
    """Reads entries of an index; made once.

    Args:
        shape: the index.
        store: the online store.
        features: further features that are read with them.
    """

    def __init__(self, shape: VectorIndexShape, store: OnlineStore, features: Sequence[FeatureDef] = ()) -> None:
        self._shape, self._store = shape, store
        view = shape.view
        asked = [shape.vector, *(view.feature(one.name) for one in shape.filters if not one.of_key), *features]
        self._place = {feature.name: place for place, feature in reversed(list(enumerate(asked)))}
        self._wanted = [self._place[feature.name] for feature in features]
        self._plan = compile_plan(store, [Pick(view, tuple(asked))])
        self._pack = key_packer(view.id, view.keys, nulls=True)

    def read(self, entities: Sequence[Mapping[str, Any]], now_us: int) -> list[Entry]:
        """What the online store says of entities at a moment, with one round trip.

        Raises:
            DataError: MS-2120, a key is missing or of the wrong type.
        """
        name, found = self._shape.view.name, []
        read = self._plan.read_dated(entities, now_us)
        for entity, (values, statuses, events) in zip(entities, read, strict=True):
            status, vector, lacking = statuses[name], None, ""
            payload: dict[str, object] = {}
            if status == "PRESENT":
                vector, lacking = self._vector(values[0])
                payload = self._payload(entity, values)
            event = events[name]
            found.append(
                Entry(entity, status, vector, lacking, payload, event, [values[place] for place in self._wanted])
            )
        return found

    def points(self, entries: Sequence[Entry], now_us: int) -> list[Point]:
        """The points of entries that have a vector."""
        whole = [entry for entry in entries if entry.vector is not None and entry.event_us is not None]
        ends = self._ends(whole, now_us) if self._shape.has_until else [None] * len(whole)
        return [
            Point(
                point_id(self._shape, entry.entity),
                entry.vector,  # type: ignore[arg-type]  # those without are left out above
                {
                    **entry.payload,
                    ENTITY: self._told(entry.entity),
                    EVENT_US: _safe(entry.event_us or 0),
                    UNTIL_US: None if until is None else _safe(until),
                },
            )
            for entry, until in zip(whole, ends, strict=True)
        ]

    def _vector(self, value: object) -> tuple[npt.NDArray[np.float32] | None, str]:
        if value is None:
            return None, "null"
        if not isinstance(value, (list, tuple)) or len(value) != self._shape.vector.type.length:
            return None, "dims"
        if any(one is None for one in value):
            return None, "null"
        vector = np.asarray(value, np.float32)
        wide = vector.astype(np.float64)
        length = math.sqrt(float(np.dot(wide, wide)))
        if not length < _LONGEST:
            return None, "not_finite"
        if self._shape.metric == "cosine" and length < _SHORTEST:
            return None, "zero"
        return vector, ""

    def _payload(self, entity: Mapping[str, Any], values: Sequence[object]) -> dict[str, object]:
        found = {}
        for one in self._shape.filters:
            value = _compared(one, entity[one.name] if one.of_key else values[self._place[one.name]])
            if value is not None and fits(value, one.type):
                found[one.key] = value
        return found

    def _ends(self, entries: Sequence[Entry], now_us: int) -> list[int | None]:
        """Until when the rows are valid that answer; None is open."""
        rows = self._store.get_many([self._pack(entry.entity) for entry in entries])
        return [None if row is None else _end_of(row, now_us) for row in rows]

    def _told(self, entity: Mapping[str, Any]) -> str:
        return _encode([entity[key.name] for key in self._shape.view.keys]).decode()


def point_id(shape: VectorIndexShape, entity: Mapping[str, Any]) -> str:
    """The id of an entity's point: a UUID of the bytes of its keys."""
    packed = key_packer(0, shape.view.keys)(entity)
    return str(uuid.UUID(bytes=hashlib.blake2b(packed, digest_size=16).digest()))


def entity_of(shape: VectorIndexShape) -> Callable[[object], dict[str, Any]]:
    """Reads a point's `ENTITY` as keys."""
    names = [key.name for key in shape.view.keys]
    kinds = tuple(KEY_TYPES[key.type.kind] for key in shape.view.keys)
    decode = msgspec.json.Decoder(tuple[kinds]).decode  # type: ignore[valid-type]

    def read(text: object) -> dict[str, Any]:
        return dict(zip(names, decode(str(text)), strict=True))

    return read


def _compared(field: FilterField, value: Any) -> object:
    """A value as filters compare it."""
    if value is None:
        return None
    if field.column.kind is Kind.BOOLEAN:
        return bool(value)
    if isinstance(value, datetime):
        return (value - _EPOCH) // timedelta(microseconds=1)
    return value


def _end_of(row: bytes, now_us: int) -> int | None:
    newest = next((one for one in read_plain(row) if one.event <= now_us), None)
    if newest is None or newest.flags & TOMBSTONE or newest.values[-1] is None:
        return None
    return int(newest.values[-1])


def _safe(us: int) -> int:
    return max(-SAFE, min(SAFE, us))
