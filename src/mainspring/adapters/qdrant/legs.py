"""What one query asks of a collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mainspring.adapters.qdrant.filters import key_of
from mainspring.adapters.qdrant.words import Words, sparse
from mainspring.lazy import lazy
from mainspring.ports.vector_store import Query, Schema
from mainspring.vectors.checked import vectors_of
from mainspring.vectors.faults import not_pushed_down
from mainspring.vectors.searching import Row

if TYPE_CHECKING:
    from qdrant_client import QdrantClient, models
else:
    models = lazy("qdrant_client.models")

__all__ = ["QdrantLegs", "shown", "wanted"]

_EFFORT = ((0.92, 16, 2.0), (0.96, 32, 2.0), (0.98, 48, 2.0), (0.99, 96, 2.0), (1.0, 256, 3.0))
"""Up to which recall how many candidates of the graph do, and how many more than wanted the true vectors judge."""


class QdrantLegs:
    """A query at one collection.

    Args:
        client: the server's client.
        collection: its name, or an alias.
        schema: the index's.
        query: what is looked for.
        chosen: its filter in the server's terms.
    """

    def __init__(
        self, client: QdrantClient, collection: str, schema: Schema, query: Query, chosen: models.Filter | None
    ) -> None:
        self._client, self._collection, self._schema = client, collection, schema
        self._query, self._filter = query, chosen
        self._payload = wanted(query.fields)

    def rows(self, legs: Sequence[str], limit: int, *, exact: bool) -> Mapping[str, Sequence[Row]]:
        """The best points of each leg, all in one call; the payload comes along where there is one leg."""
        payload = self._payload if len(legs) == 1 else False
        asked = {leg: self._request(leg, limit, exact, payload) for leg in legs}
        sent = {leg: request for leg, request in asked.items() if request is not None}
        answers = self._client.query_batch_points(self._collection, list(sent.values())) if sent else []
        came = len(legs) == 1 or self._payload is False  # then nothing is left to fetch
        found: dict[str, Sequence[Row]] = {leg: [] for leg in legs}
        for leg, answer in zip(sent, answers, strict=True):
            found[leg] = [(str(hit.id), hit.score, shown(hit.payload) if came else None) for hit in answer.points]
        return found

    def payloads(self, ids: Sequence[str]) -> Mapping[str, Mapping[str, object]]:
        """What is given back of these points."""
        there = self._client.retrieve(self._collection, list(ids), with_payload=self._payload)
        return {str(record.id): shown(record.payload) for record in there}

    def matching(self) -> int:
        """How many points fulfil the filter."""
        return self._client.count(self._collection, self._filter, exact=True).count

    def _request(self, leg: str, limit: int, exact: bool, payload: bool | list[str]) -> models.QueryRequest | None:
        sought = self._sought(leg)
        if isinstance(sought, models.SparseVector) and not sought.indices:
            return None
        return models.QueryRequest(
            query=sought,
            using=leg,
            filter=self._filter,
            limit=limit,
            params=self._params(limit, exact) if leg == "dense" else None,
            with_payload=payload,
        )

    def _sought(self, leg: str) -> models.SparseVector | list[float]:
        if leg == "dense":
            unit = self._schema.metric == "cosine"
            vector: list[float] = vectors_of([self._query.dense], self._schema.dims, unit=unit)[0].tolist()
            return vector
        if leg == "text":
            if not self._schema.text:
                raise not_pushed_down("the index", "words: it was made without them")
            return Words(self._schema).query(self._query.text or "")
        if not self._schema.sparse or self._query.sparse is None:
            raise not_pushed_down("the index", "sparse vectors: it was made without them")
        return sparse(self._query.sparse)

    def _params(self, limit: int, exact: bool) -> models.SearchParams:
        if exact:
            return models.SearchParams(exact=True, quantization=models.QuantizationSearchParams(ignore=True))
        ef, more = next((ef, more) for recall, ef, more in _EFFORT if self._query.recall_target <= recall)
        rescored = models.QuantizationSearchParams(rescore=True, oversampling=more)
        return models.SearchParams(hnsw_ef=max(ef, limit), quantization=rescored)


def wanted(fields: tuple[str, ...] | None) -> bool | list[str]:
    """What the server is asked to give back of a payload."""
    return True if fields is None else [key_of(field) for field in fields] or False


def shown(payload: Mapping[str, object] | None) -> dict[str, object]:
    """A payload without what the store keeps there for itself."""
    return {key: value for key, value in (payload or {}).items() if not key.startswith("_")}
