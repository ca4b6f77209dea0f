"""What one query asks of a collection."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from mainspring.adapters.zvec.filters import ALWAYS, NEVER
from mainspring.lazy import lazy
from mainspring.ports.vector_store import Query, Schema
from mainspring.vectors.checked import vector_of
from mainspring.vectors.faults import not_pushed_down
from mainspring.vectors.searching import Row

if TYPE_CHECKING:
    import zvec
else:
    zvec = lazy("zvec")

__all__ = ["ZvecLegs", "shown"]

_EF = ((0.92, 16), (0.96, 32), (0.98, 64), (0.99, 128), (1.0, 256))
"""Up to which recall how many candidates of the graph do."""


class ZvecLegs:
    """A query at one collection.

    Args:
        collection: the collection.
        schema: the index's.
        query: what is looked for.
        chosen: its filter in zvec's text.
        counted: counts the rows that fulfil it.
    """

    def __init__(
        self, collection: zvec.Collection, schema: Schema, query: Query, chosen: str, counted: Callable[[str], int]
    ) -> None:
        self._collection, self._schema, self._query = collection, schema, query
        self._chosen, self._counted = chosen, counted

    def rows(self, legs: Sequence[str], limit: int, *, exact: bool) -> Mapping[str, Sequence[Row]]:
        """The best points of each leg; the payload comes along where there is one leg."""
        asked = {leg: self._asked(leg, limit, exact) for leg in legs}
        if self._chosen == NEVER:
            return {leg: [] for leg in legs}
        return {leg: self._found(query, limit, len(legs) == 1) for leg, query in asked.items()}

    def payloads(self, ids: Sequence[str]) -> Mapping[str, Mapping[str, object]]:
        """What is given back of these points."""
        there = self._collection.fetch(list(ids), output_fields=["payload"], include_vector=False)
        return {id: shown(doc.fields["payload"], self._query.fields) for id, doc in there.items()}

    def matching(self) -> int:
        """How many points fulfil the filter."""
        return self._counted(self._chosen)

    def _found(self, query: zvec.Query | None, limit: int, whole: bool) -> list[Row]:
        if query is None:
            return []
        found = self._collection.query(
            query,
            topk=limit,
            filter=None if self._chosen == ALWAYS else self._chosen,
            output_fields=["payload"] if whole else ["at"],
        )
        fields = self._query.fields
        return [(doc.id, doc.score or 0.0, shown(doc.fields["payload"], fields) if whole else None) for doc in found]

    def _asked(self, leg: str, limit: int, exact: bool) -> zvec.Query | None:
        if leg == "sparse":
            raise not_pushed_down("zvec", "sparse vectors")
        if leg == "text":
            if not self._schema.text:
                raise not_pushed_down("the index", "words: it was made without them")
            words = (self._query.text or "").replace("\0", " ")
            return zvec.Query("text", fts=zvec.Fts(match_string=words)) if words.strip() else None
        vector = vector_of(self._query.dense, self._schema.dims, unit=self._schema.metric == "cosine")
        ef = next(ef for recall, ef in _EF if self._query.recall_target <= recall)
        param = zvec.HnswQueryParam(ef=max(ef, limit), is_linear=exact, is_using_refiner=self._schema.quantised)
        return zvec.Query("dense", vector=vector, param=param)


def shown(payload: str, fields: tuple[str, ...] | None) -> dict[str, object]:
    """What is given back of a payload."""
    if fields == ():
        return {}
    found = msgspec.json.decode(payload, type=dict[str, object])
    return found if fields is None else {key: found[key] for key in fields if key in found}
