"""What one query asks of a shard."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from mainspring.adapters.qdrant_edge.payloads import Payloads
from mainspring.lazy import lazy
from mainspring.ports.vector_store import Query, Schema
from mainspring.vectors.checked import sparse_of, vector_of
from mainspring.vectors.faults import not_pushed_down
from mainspring.vectors.searching import Row

if TYPE_CHECKING:
    import qdrant_edge as edge
else:
    edge = lazy("qdrant_edge")

__all__ = ["EdgeLegs"]

_EFFORT = ((0.92, 16, 2.0), (0.96, 32, 2.0), (0.98, 48, 2.0), (0.99, 96, 2.0), (1.0, 256, 3.0))
"""Up to which recall how many candidates of the graph do, and how many more than wanted the true vectors judge."""


class EdgeLegs:
    """A query at one shard.

    Args:
        shard: the shard.
        schema: the index's.
        words: what makes terms of a text, or None.
        query: what is looked for.
        chosen: its filter in the engine's terms.
        payloads: makes of stored payloads what was written.
    """

    def __init__(
        self,
        shard: edge.EdgeShard,
        schema: Schema,
        words: edge.Bm25 | None,
        query: Query,
        chosen: edge.Filter | None,
        payloads: Payloads,
    ) -> None:
        self._shard, self._schema, self._words, self._query = shard, schema, words, query
        self._filter = chosen
        self._payload = payloads.wanted(query.fields)
        self._payloads = payloads

    def rows(self, legs: Sequence[str], limit: int, *, exact: bool) -> Mapping[str, Sequence[Row]]:
        """The best points of each leg; the payload comes along where there is one leg."""
        payload = self._payload if len(legs) == 1 else False
        # One by one: the engine's batch call takes a fifth more of CPU for the same.
        found = [self._shard.query(self._request(leg, limit, exact, payload)) for leg in legs]
        if len(legs) > 1 and self._payload is not False:
            return {
                leg: [(hit.id.int, hit.score, None) for hit in cast("list[Any]", hits)]
                for leg, hits in zip(legs, found, strict=True)
            }
        return {
            leg: [(hit.id.int, hit.score, self._shown(hit.payload)) for hit in cast("list[Any]", hits)]
            for leg, hits in zip(legs, found, strict=True)
        }

    def payloads(self, ids: Sequence[int]) -> Mapping[int, Mapping[str, object]]:
        """What is given back of these points."""
        there = self._shard.retrieve([uuid.UUID(int=id) for id in ids], self._payload, False)
        return {cast(Any, record.id).int: self._shown(record.payload) for record in there}

    def _shown(self, payload: dict[str, object] | None) -> dict[str, object]:
        return self._payloads.given(payload, self._query.fields)

    def matching(self) -> int:
        """How many points fulfil the filter."""
        return self._shard.count(edge.CountRequest(True, self._filter))

    def _request(self, leg: str, limit: int, exact: bool, payload: bool | list[str]) -> edge.QueryRequest:
        dense = leg == "dense"
        return edge.QueryRequest(
            limit,
            query=edge.Query.Nearest(self._sought(leg), using=leg),
            filter=self._filter,
            params=self._params(limit, exact, limit > self._query.k) if dense else None,
            with_payload=payload,
        )

    def _sought(self, leg: str) -> edge.SparseVector | list[float]:
        if leg == "dense":
            unit = self._schema.metric == "cosine"
            # The binding reads a list twice as fast as an array.
            return cast("list[float]", vector_of(self._query.dense, self._schema.dims, unit=unit).tolist())
        if leg == "text":
            if self._words is None:
                raise not_pushed_down("the index", "words: it was made without them")
            return self._words.embed_query(self._query.text or "")
        if not self._schema.sparse or self._query.sparse is None:
            raise not_pushed_down("the index", "sparse vectors: it was made without them")
        return edge.SparseVector(*sparse_of(self._query.sparse.indices, self._query.sparse.values))

    def _params(self, limit: int, exact: bool, ranked: bool) -> edge.SearchParams:
        if exact:
            return edge.SearchParams(exact=True, quantization=edge.QuantizationSearchParams(ignore=True))
        ef, more = next((ef, more) for recall, ef, more in _EFFORT if self._query.recall_target <= recall)
        # Candidates that are only ranked for a fusion are many more than the hits, and need none beside them.
        rescored = edge.QuantizationSearchParams(rescore=True, oversampling=None if ranked else more)
        return edge.SearchParams(hnsw_ef=max(ef, limit), quantization=rescored)
