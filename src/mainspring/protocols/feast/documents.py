"""Vector search of Feast's feature server: ``POST /search``, and ``/retrieve-online-documents`` as it was called.

The shapes of Feast 0.67: one result a column, the features asked for, then ``distance``, then the entity's keys; with
``api_version`` 1, of the keys, the vector and the distance only what was named.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from mainspring.declare.record import ColumnType
from mainspring.errors import DataError, ServiceError, UsageError
from mainspring.protocols.feast.rest import _body, _FeastError, _refused, _told, _value
from mainspring.protocols.http import Request, Response, Router, json_response

__all__ = ["FeastDocuments", "FeastHits", "add_feast_document_routes"]

_DEEPEST = 32
_COMPARED = {"gt": "gt", "gte": "gte", "lt": "lt", "lte": "lte"}


class FeastHits(msgspec.Struct, frozen=True):
    """What was found, the nearest first.

    Attributes:
        keys: the entity keys of the view, with their types.
        vector: the name of the feature that was searched.
        types: of the features that were asked for.
        entities: the keys of each hit.
        values: the features of each hit, in the order of `types`.
        distances: of each hit; the less the nearer.
        events: when the row of each hit happened, UTC microseconds.
        version: of the view's definition.
    """

    keys: Mapping[str, ColumnType]
    vector: str
    types: Mapping[str, ColumnType]
    entities: Sequence[Mapping[str, object]]
    values: Sequence[Sequence[object]]
    distances: Sequence[float]
    events: Sequence[int]
    version: str


class FeastDocuments(Protocol):
    """The vector indexes behind the wire; its methods may wait, and are called in threads."""

    def service(self, name: str) -> Sequence[str] | None:
        """The features of a feature service; None when there is none of that name."""

    def nearest(
        self, view: str, features: Sequence[str], vector: list[float], k: int, filter: dict[str, Any] | None
    ) -> FeastHits:
        """What is near to a vector in the index over a view.

        Raises:
            UsageError: no such view, index or feature; what was asked for does not fit.
            DataError, ServiceError: as the index raises.
        """


class _Search(msgspec.Struct, frozen=True):
    features: list[str] = []
    feature_service: str | None = None
    full_feature_names: bool = False
    include_feature_view_version_metadata: bool = False
    top_k: int | None = None
    query: list[float] | None = None
    query_string: str | None = None
    distance_metric: str | None = None
    api_version: int | None = 1
    filters: dict[str, Any] | None = None


def add_feast_document_routes(
    router: Router, documents: FeastDocuments, run_blocking: Callable[..., Awaitable[Any]]
) -> None:
    """Serve Feast's vector search on a router.

    Args:
        router: where the routes go.
        documents: the vector indexes.
        run_blocking: awaits a function run in a thread.
    """
    routes = _Routes(documents, run_blocking)
    router.add("POST", "/search", routes.search)
    router.add("POST", "/retrieve-online-documents", routes.search)


class _Routes:
    def __init__(self, documents: FeastDocuments, run_blocking: Callable[..., Awaitable[Any]]) -> None:
        self._documents = documents
        self._run = run_blocking

    async def search(self, request: Request) -> Response:
        """The nearest entities by columns. The metric is the index's own, as Feast's is the field's."""
        try:
            asked = _body(request, _Search)
            view, features = _view_of(self._references(asked))
            if asked.query_string is not None:
                raise _FeastError(422, "FeastError", "query_string: a vector index holds no words; give query")
            if asked.query is None or asked.top_k is None:
                raise _FeastError(422, "FeastError", "a search needs query, a vector, and top_k")
            wanted = None if asked.filters is None else _filter(asked.filters)
            own = [name for name in features if name != "distance"]
            found = await self._run(self._documents.nearest, view, own, asked.query, asked.top_k, wanted)
        except _FeastError as error:
            return _refused(error)
        except (DataError, UsageError) as error:
            return _refused(_FeastError(422, "FeastError", f"{error.what}; {error.fix}"))
        except ServiceError as error:
            return _refused(_FeastError(503, "FeastError", error.what))
        return json_response(_answer(asked, view, features, found))

    def _references(self, asked: _Search) -> Sequence[str]:
        if asked.feature_service is None:
            return asked.features
        found = self._documents.service(asked.feature_service)
        if found is None:
            raise _FeastError(
                404, "FeatureServiceNotFoundException", f"Feature service {asked.feature_service} does not exist"
            )
        return found


def _view_of(references: Sequence[str]) -> tuple[str, list[str]]:
    """The view and the features of references, each once."""
    parts = [reference.partition(":") for reference in references]
    if not parts or not all(feature for _, _, feature in parts):
        raise _FeastError(422, "FeastError", "name the features of one view: VIEW:FEATURE")
    views = {view for view, _, _ in parts}
    if len(views) > 1:
        raise _FeastError(422, "FeastError", "Document retrieval only supports a single feature view.")
    return views.pop(), list(dict.fromkeys(feature for _, _, feature in parts))


def _filter(given: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """The filter of a vector store, of one as OpenAI and Feast write them: ``{"type", "key", "value"}``."""
    kind = given.get("type")
    parts, key = given.get("filters"), given.get("key")
    if kind in ("and", "or") and isinstance(parts, list) and depth < _DEEPEST:
        if all(isinstance(part, dict) for part in parts):
            return {str(kind): [_filter(part, depth + 1) for part in parts]}
    elif isinstance(key, str) and "value" in given:
        value = given["value"]
        if kind in _COMPARED:
            return {"range": [key, {_COMPARED[kind]: value}]}
        if kind in ("eq", "ne"):
            return {"eq": [key, value]} if kind == "eq" else {"not": {"eq": [key, value]}}
        if kind in ("in", "nin"):
            return {"in": [key, value]} if kind == "in" else {"not": {"in": [key, value]}}
    raise _FeastError(
        422,
        "FeastError",
        'a filter is {"type": "eq|ne|gt|gte|lt|lte|in|nin", "key": ..., "value": ...} or '
        '{"type": "and|or", "filters": [...]}',
    )


def _answer(asked: _Search, view: str, features: Sequence[str], found: FeastHits) -> dict[str, object]:
    places = {name: place for place, name in enumerate(found.types)}
    told = [_told(event) for event in found.events]

    def column(name: str) -> list[object]:
        if name in found.keys:
            return [_value(entity[name], found.keys[name]) for entity in found.entities]
        if name == "distance":
            return list(found.distances)
        return [_value(values[places[name]], found.types[name]) for values in found.values]

    if asked.api_version == 2:
        own = list(dict.fromkeys([*features, "distance"]))
        keys = [key for key in found.keys if key not in own] if found.entities else []
    else:
        own, keys = [], [name for name in features if name in found.keys or name in (found.vector, "distance")]
    metadata: dict[str, object] = {"feature_names": [*own, *keys]}
    if asked.api_version == 2 and asked.include_feature_view_version_metadata:
        metadata["feature_view_metadata"] = [{"name": view, "version": found.version}]
    nothing, present = [_told(0)] * len(told), ["PRESENT"] * len(told)
    results = [{"values": column(name), "statuses": present, "event_timestamps": told} for name in own]
    results += [{"values": column(name), "statuses": present, "event_timestamps": nothing} for name in keys]
    return {"metadata": metadata, "results": results}
