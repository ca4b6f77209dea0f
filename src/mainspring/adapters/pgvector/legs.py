"""What one query asks of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from mainspring.adapters.pgvector.database import Connection
from mainspring.adapters.pgvector.table import Table, configuration, shown
from mainspring.lazy import lazy
from mainspring.ports.vector_store import Query
from mainspring.vectors.checked import vector_of
from mainspring.vectors.faults import not_pushed_down
from mainspring.vectors.searching import Row

if TYPE_CHECKING:
    from psycopg import sql
else:
    sql = lazy("psycopg.sql")

__all__ = ["PgvectorLegs"]

_EF = ((0.92, 24), (0.96, 40), (0.98, 80), (0.99, 160), (1.0, 400))
"""Up to which recall how many candidates of the graph do."""


class PgvectorLegs:
    """A query at one table, in one transaction.

    Args:
        connection: the connection.
        table: the index's.
        query: what is looked for.
    """

    def __init__(self, connection: Connection, table: Table, query: Query) -> None:
        self._connection, self._table, self._query = connection, table, query
        self._condition, self._values = table.fulfilling(query.filter)

    def rows(self, legs: Sequence[str], limit: int, *, exact: bool) -> Mapping[str, Sequence[Row]]:
        """The best points of each leg, the payload with them where there is one leg."""
        return {leg: self._leg(leg, limit, exact, len(legs) == 1) for leg in legs}

    def payloads(self, ids: Sequence[str]) -> Mapping[str, Mapping[str, object]]:
        """What is given back of these points."""
        select = sql.SQL("SELECT id, payload FROM {} WHERE id = ANY(%s::uuid[])").format(self._table.name)
        there = self._connection.execute(select, (list(ids),)).fetchall()
        return {str(id): shown(str(payload), self._query.fields) for id, payload in there}

    def matching(self) -> int:
        """How many points fulfil the filter."""
        select = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(self._table.name, self._condition)
        found = self._connection.execute(select, self._values).fetchone()
        return int(str(found[0])) if found else 0

    def _leg(self, leg: str, limit: int, exact: bool, whole: bool) -> list[Row]:
        if leg == "sparse":
            raise not_pushed_down("pgvector", "sparse vectors")
        found = self._words(limit) if leg == "text" else self._near(limit, exact)
        fields = self._query.fields
        return [
            (str(id), float(str(score)), shown(str(payload), fields) if whole else None) for id, score, payload in found
        ]

    def _near(self, limit: int, exact: bool) -> list[tuple[object, ...]]:
        table = self._table
        vector = vector_of(self._query.dense, table.schema.dims, unit=table.schema.metric == "cosine")
        ef = next(ef for recall, ef in _EF if self._query.recall_target <= recall)
        self._connection.execute(
            "SELECT set_config('hnsw.ef_search', %s, true), set_config('hnsw.iterative_scan', 'relaxed_order', true),"
            " set_config('enable_indexscan', %s, true)",
            (str(min(1000, max(ef, limit))), "off" if exact else "on"),
        )
        # The graph may give its rows a little out of order, and by half the digits: the true vectors put them right.
        select = sql.SQL(
            "SELECT id, -(embedding <#> %s::vector) AS score, payload FROM (SELECT id, embedding, payload FROM {}"
            " WHERE {} ORDER BY {} <#> {} LIMIT %s) AS near ORDER BY score DESC, id"
        ).format(
            table.name,
            self._condition,
            sql.SQL("embedding") if exact else table.searched,
            sql.SQL("%s::vector") if exact else table.cast(sql.SQL("%s")),
        )
        return self._connection.execute(select, [vector, *self._values, vector, limit]).fetchall()

    def _words(self, limit: int) -> list[tuple[object, ...]]:
        table = self._table
        if not table.schema.text:
            raise not_pushed_down("the index", "words: it was made without them")
        # Any of the words: their lexemes, quoted by Postgres itself, joined by "or".
        select = sql.SQL(
            "WITH sought AS (SELECT string_agg(quote_literal(lexeme), ' | ')::tsquery AS any"
            " FROM unnest(to_tsvector({0}::regconfig, %s)))"
            " SELECT id, ts_rank(words, sought.any, 1) AS score, payload FROM {1}, sought"
            " WHERE words @@ sought.any AND {2} ORDER BY score DESC, id LIMIT %s"
        ).format(sql.Literal(configuration(table.schema)), table.name, self._condition)
        words = (self._query.text or "").replace("\0", " ")
        return self._connection.execute(select, [words, *self._values, limit]).fetchall()
