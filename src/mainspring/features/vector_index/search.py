"""Searches of a vector index: near entities, with the features that the online store has of them now."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from mainspring.declare.data import did_you_mean
from mainspring.declare.record import ColumnType, Kind
from mainspring.errors import DataError, ServiceError, UsageError
from mainspring.features.vector_index.entries import KEY_TYPES, Entry, EntryReader, entity_of
from mainspring.features.vector_index.follow import HasStores
from mainspring.features.vector_index.mark import Mark, read_mark
from mainspring.features.vector_index.shape import ENTITY, EVENT_US, UNTIL_US, VectorIndexShape
from mainspring.lazy import lazy
from mainspring.ports.vector_filter import check_filter, filter_from_json
from mainspring.ports.vector_store import (
    And,
    Eq,
    Exists,
    Filter,
    Hits,
    In,
    Not,
    Note,
    Or,
    Query,
    Range,
)
from mainspring.ports.vector_store import (
    Any as AnyOf,
)
from mainspring.vectors.checked import vector_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
else:
    np = lazy("numpy")

__all__ = ["MOST", "FoundEntity", "Nearest", "NearestAnswer", "NearestRequest", "VectorIndexSearcher"]

MOST = 1_000
"""The most hits of a search."""

_LIMIT = 10_000
_ROUNDS = 3
_ROUNDED = 0.01
"""By how much a store's own score of a vector may differ from ours, which is of more digits."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class NearestRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is looked for: near to a vector, or to the one that an entity has.

    Attributes:
        vector: as many numbers as the index's have.
        entity: the keys of the entity whose vector is taken; it is no hit itself.
        k: how many hits, 1 to 1,000.
        filter: the JSON form of a filter over the index's filters, or None.
        features: what is told of each hit; None is all features of the view but the vector.
        recall: the share of the true nearest that should be found; 1 searches exactly.
    """

    vector: list[float] | None = None
    entity: dict[str, Any] | None = None
    k: int = 10
    filter: dict[str, Any] | None = None
    features: list[str] | None = None
    recall: float = 0.95


class Nearest(msgspec.Struct, frozen=True):
    """An entity that was found.

    Attributes:
        entity: its keys.
        score: cosine or dot product; the greater the nearer.
        features: what it has now, by name.
        event_us: when the row happened that answers, UTC microseconds.
    """

    entity: Mapping[str, object]
    score: float
    features: Mapping[str, object]
    event_us: int


class NearestAnswer(msgspec.Struct, frozen=True):
    """What was found, the nearest first: `k` hits, or `complete` is false and a note says why."""

    index: str
    hits: tuple[Nearest, ...]
    complete: bool = True
    notes: tuple[Note, ...] = ()


class FoundEntity(NamedTuple):
    """An entity that was found: its keys, score, the features asked for as they are stored online, and its event."""

    entity: Mapping[str, Any]
    score: float
    values: Sequence[object]
    event_us: int


class VectorIndexSearcher:
    """Searches an index; the stores are opened at the first search.

    Args:
        shape: the index.
        stores: where online rows and points are.
        clock: UTC microseconds.
    """

    def __init__(self, shape: VectorIndexShape, stores: HasStores, clock: Callable[[], int]) -> None:
        self.shape, self._stores, self._clock = shape, stores, clock
        self._entity_of = entity_of(shape)
        self._keys = {one.name: one.key for one in shape.filters}

    def search(self, request: NearestRequest) -> NearestAnswer:
        """The nearest entities, as JSON shows them; raises as `find`."""
        found, notes = self.find(request)
        view, names = self.shape.view, self.told(request)
        types = [view.feature(name).type for name in names]
        hits = [
            Nearest(
                {key.name: _shown(one.entity[key.name], key.type) for key in view.keys},
                one.score,
                {name: _shown(value, kind) for name, value, kind in zip(names, one.values, types, strict=True)},
                one.event_us,
            )
            for one in found
        ]
        return NearestAnswer(self.shape.name, tuple(hits), len(hits) == request.k, notes)

    def told(self, request: NearestRequest) -> Sequence[str]:
        """The features that are told of each hit."""
        if request.features is not None:
            return request.features
        return [name for name in self.shape.view.feature_names if name != self.shape.vector.name]

    def find(self, request: NearestRequest) -> tuple[Sequence[FoundEntity], tuple[Note, ...]]:
        """The nearest entities of which the online store has a row that answers now, and what is to be said of them.

        Hits that it says otherwise of are left out: the index may be a moment behind, what is answered is not.

        Raises:
            UsageError: MS-2451, the request cannot be; MS-2452, the entity has no vector; MS-2650 to MS-2652, the
                filter cannot; MS-2654, the vector does not fit.
            DataError: MS-2120, a key does not fit.
            ServiceError: MS-4189, the index is not built yet; others as the stores raise.
        """
        view = self.shape.view
        _check(request, view.feature_names)
        reader = EntryReader(self.shape, self._stores.online, [view.feature(name) for name in self.told(request)])
        asked, itself = self._sought(request, reader)
        wanted = self._renamed(request.filter)
        limit = request.k + (itself is not None)
        for last in (False,) * (_ROUNDS - 1) + (True,):
            hits = self._hits(asked, wanted, limit, request.recall)
            found, fresh = self._confirmed(hits, reader, asked, wanted, itself)
            if last or fresh >= request.k or len(hits.hits) < limit or limit >= _LIMIT:
                break
            limit = min(2 * limit + request.k, _LIMIT)
        best = sorted(found, key=lambda one: -one.score)[: request.k]
        notes = tuple(note for note in hits.notes if note.code != "fewer_than_k")
        if len(best) == request.k:
            return best, notes
        why = f"{len(best)} of {request.k}: no more entities are in the index and pass the filter"
        return best, (Note("fewer_than_k", why), *notes)

    def mark(self) -> Mark | None:
        """How far the index has come; None when it was never begun."""
        return read_mark(self._stores.online, self.shape.prefix, self.shape.digest)[1]

    def key_of(self, entity: Mapping[str, object]) -> dict[str, Any]:
        """An entity's keys as JSON has them, in their types.

        Raises:
            DataError: MS-2120.
        """
        found = {}
        for key in self.shape.view.keys:
            try:
                found[key.name] = msgspec.convert(entity[key.name], KEY_TYPES[key.type.kind])
            except (KeyError, msgspec.ValidationError) as error:
                told = f"is {entity[key.name]!r:.60}" if key.name in entity else "is missing"
                raise DataError(
                    f"key column {key.name!r} {told}", code="MS-2120", fix=f"send it as {key.type.kind.value}"
                ) from error
        return found

    def _sought(
        self, request: NearestRequest, reader: EntryReader
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any] | None]:
        shape = self.shape
        if request.entity is None:
            return vector_of(request.vector, shape.vector.type.length, unit=shape.metric == "cosine"), None
        entity = self.key_of(request.entity)
        (entry,) = reader.read([entity], self._clock())
        if entry.vector is None:
            raise UsageError(
                f"the entity has no vector in index {shape.name!r}",
                code="MS-2452",
                why=f"its vector is {entry.lacking}" if entry.lacking else f"online it is {entry.status}",
                fix="ask for one that has, or give a vector",
            )
        return vector_of(entry.vector, shape.vector.type.length, unit=shape.metric == "cosine"), entity

    def _renamed(self, filter: Mapping[str, object] | None) -> Filter | None:
        if filter is None:
            return None
        parsed = filter_from_json(filter)
        check_filter(parsed, self.shape.types)
        return _renamed(parsed, self._keys)

    def _hits(self, vector: npt.NDArray[np.float32], wanted: Filter | None, limit: int, recall: float) -> Hits:
        mark = self.mark()
        query = Query(vector, filter=self._now(wanted), k=limit, fields=(ENTITY,), recall_target=recall)
        for _ in range(2):
            if mark is None or not mark.built:
                break
            try:
                return self._stores.vectors.search(mark.collection, query)
            except ServiceError as error:
                if error.code != "MS-4180":
                    raise
                mark = self.mark()  # another collection may have taken its place just now
        raise ServiceError(
            f"vector index {self.shape.name!r} is not built yet",
            code="MS-4189",
            why="its view was not computed, its definition is new, or its store was lost; a server builds it, too",
            fix=f"mainspring run vector_index/{self.shape.name}",
        )

    def _now(self, wanted: Filter | None) -> Filter | None:
        """The filter, and that rows are neither too old nor over, now."""
        now_us, parts = self._clock(), [] if wanted is None else [wanted]
        if self.shape.view.ttl_us is not None:
            parts.append(Range(EVENT_US, gte=now_us - self.shape.view.ttl_us))
        if self.shape.has_until:
            parts.append(Not(Range(UNTIL_US, lte=now_us)))
        return And(tuple(parts)) if len(parts) > 1 else parts[0] if parts else None

    def _confirmed(
        self,
        hits: Hits,
        reader: EntryReader,
        asked: npt.NDArray[np.float32],
        wanted: Filter | None,
        itself: Mapping[str, Any] | None,
    ) -> tuple[list[FoundEntity], int]:
        """The hits of which the online store says now what was asked for, with the scores of their vectors now.

        Beside them, how many are as near as the index has them: others may stand in the way of nearer ones.
        """
        entities = [self._entity_of(hit.payload[ENTITY]) for hit in hits.hits]
        found, fresh = [], 0
        for hit, entry in zip(hits.hits, reader.read(entities, self._clock()), strict=True):
            if entry.vector is None or entry.event_us is None or entry.entity == itself:
                continue
            if wanted is None or _holds(wanted, entry.payload):
                score = self._score(asked, entry)
                fresh += abs(score - hit.score) <= _ROUNDED * max(1.0, abs(score))
                found.append(FoundEntity(entry.entity, score, entry.values, entry.event_us))
        return found, fresh

    def _score(self, asked: npt.NDArray[np.float32], entry: Entry) -> float:
        assert entry.vector is not None
        one, other = asked.astype(np.float64), entry.vector.astype(np.float64)
        product = float(np.dot(one, other))
        if self.shape.metric == "dot":
            return product
        return product / (math.sqrt(float(np.dot(one, one))) * math.sqrt(float(np.dot(other, other))))


def _check(request: NearestRequest, features: Sequence[str]) -> None:
    why, unknown = "", [name for name in request.features or () if name not in features]
    if (request.vector is None) == (request.entity is None):
        why = "it has a vector or an entity, and only one of them"
    elif not 1 <= request.k <= MOST:
        why = f"k is {request.k}, not 1 to {MOST:,}"
    elif not 0 < request.recall <= 1:
        why = f"recall is {request.recall}, not above 0 and at most 1"
    elif request.features is not None and len(set(request.features)) < len(request.features):
        why = "a feature is named twice"
    elif unknown:
        why = f"the view has no feature {unknown[0]!r}; {did_you_mean(unknown[0], features)}"
    if why:
        raise UsageError(
            f"the search cannot be carried out: {why}",
            code="MS-2451",
            fix='ask like {"vector": [0.1, 0.2], "k": 10, "filter": {"eq": ["colour", "red"]}, "features": ["price"]}',
        )


def _renamed(filter: Filter, names: Mapping[str, str]) -> Filter:
    """A filter over points, of one over features."""
    match filter:
        case And(parts):
            return And(tuple(_renamed(part, names) for part in parts))
        case Or(parts):
            return Or(tuple(_renamed(part, names) for part in parts))
        case Not(part):
            return Not(_renamed(part, names))
        case Eq() | In() | Range() | AnyOf() | Exists():
            return msgspec.structs.replace(filter, field=names[filter.field])


def _holds(filter: Filter, payload: Mapping[str, Any]) -> bool:
    """Whether what an entity has now fulfils a filter; a leaf on what is missing is false."""
    match filter:
        case And(parts):
            return all(_holds(part, payload) for part in parts)
        case Or(parts):
            return any(_holds(part, payload) for part in parts)
        case Not(part):
            return not _holds(part, payload)
        case Exists(field):
            return field in payload
    if filter.field not in payload:
        return False
    value = payload[filter.field]
    if isinstance(filter, Eq):
        return bool(value == filter.value)
    if isinstance(filter, (In, AnyOf)):
        return value in filter.values
    return all(_BOUNDS[name](value, bound) for name, bound in filter.bounds)


_BOUNDS: Mapping[str, Callable[[Any, Any], bool]] = {
    "gt": lambda value, bound: value > bound,
    "gte": lambda value, bound: value >= bound,
    "lt": lambda value, bound: value < bound,
    "lte": lambda value, bound: value <= bound,
}


def _shown(value: Any, kind: ColumnType) -> object:
    """A value as JSON shows it: moments as RFC 3339, days as ISO 8601, bytes as base64, no number as null."""
    if kind.kind is Kind.TIMESTAMP and isinstance(value, (int, datetime)):
        moment = _EPOCH + timedelta(microseconds=value) if isinstance(value, int) else value
        return moment.isoformat().replace("+00:00", "Z")
    if kind.kind is Kind.DATE and value is not None:
        return (date.fromordinal(value) if isinstance(value, int) else value).isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return bool(value) if kind.kind is Kind.BOOLEAN and value is not None else value
