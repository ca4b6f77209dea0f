"""The table of one index, and the SQL that reads and writes it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, cast

import msgspec

from mainspring.adapters.pgvector.database import Connection
from mainspring.adapters.pgvector.filters import TYPES, Condition, columns_of, native, values_of
from mainspring.adapters.pgvector.settings import PgvectorSettings
from mainspring.lazy import lazy
from mainspring.ports.vector_store import Filter, Point, Schema, Where, check_filter
from mainspring.vectors.checked import between, patch_of, payload_of, point_id, vectors_of
from mainspring.vectors.faults import not_pushed_down

if TYPE_CHECKING:
    from psycopg import sql
else:
    sql = lazy("psycopg.sql")

__all__ = ["Table", "configuration", "shown"]


class Table:
    """One index's table.

    Args:
        number: the index's number.
        schema: what it holds.
    """

    def __init__(self, number: int, schema: Schema) -> None:
        self.number, self.schema = number, schema
        self.name = sql.Identifier(f"points_{number}")
        self.graph = f"points_{number}_graph"
        self._fields = list(columns_of(schema).values())

    # -- making -------------------------------------------------------------------------------------------------------

    def make(self, connection: Connection) -> None:
        """Make the empty table with the indexes of its fields and words; the graph comes with `optimize`."""
        fields = [
            sql.SQL(f", {{}} {TYPES[field.type]}").format(sql.Identifier(column))
            for field, column in zip(self.schema.fields, self._fields, strict=True)
        ]
        connection.execute(
            sql.SQL(
                "CREATE TABLE {} (id uuid PRIMARY KEY, version bigint, payload text NOT NULL,"
                " embedding vector({}) NOT NULL, words tsvector{})"
            ).format(self.name, sql.Literal(self.schema.dims), sql.SQL("").join(fields))
        )
        ways = {"string": "hash", "strings": "gin", "integers": "gin"}
        for field, column in zip(self.schema.fields, self._fields, strict=True):
            self._index(connection, ways.get(field.type, "btree"), column)
        if self.schema.text:
            self._index(connection, "gin", "words")

    def _index(self, connection: Connection, way: str, column: str) -> None:
        index = sql.SQL(f"CREATE INDEX ON {{}} USING {way} ({{}})")
        connection.execute(index.format(self.name, sql.Identifier(column)))

    def has_graph(self, connection: Connection) -> bool | None:
        """Whether the graph is there; None when one was begun and left."""
        found = connection.execute(
            "SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(%s)", (self.graph,)
        ).fetchone()
        return False if found is None else bool(found[0]) or None

    def build_graph(self, connection: Connection, settings: PgvectorSettings) -> None:
        """Build the graph while others read and write."""
        if self.has_graph(connection) is None:
            drop = sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}")
            connection.execute(drop.format(sql.Identifier(self.graph)))
        build = sql.SQL(
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS {} ON {} USING hnsw ({} {}) WITH (m = {}, ef_construction = {})"
        ).format(
            sql.Identifier(self.graph),
            self.name,
            self.searched,
            sql.SQL("halfvec_ip_ops" if self.schema.quantised else "vector_ip_ops"),
            sql.Literal(settings.m),
            sql.Literal(max(settings.ef_construct, 2 * settings.m)),
        )
        connection.execute(build)
        connection.execute(sql.SQL("ANALYZE {}").format(self.name))

    @property
    def searched(self) -> sql.Composable:
        """What the graph is of."""
        return self.cast(sql.SQL("embedding")) if self.schema.quantised else sql.SQL("embedding")

    def cast(self, value: sql.Composable) -> sql.Composable:
        """A vector as the graph holds it."""
        kind = "halfvec" if self.schema.quantised else "vector"
        return sql.SQL(f"({{}}::{kind}({{}}))").format(value, sql.Literal(self.schema.dims))

    # -- writing ------------------------------------------------------------------------------------------------------

    def checked(self, points: Sequence[Point], version: int | None) -> list[list[object]]:
        """The rows of points, in the order of the columns; of one id the last counts."""
        schema = self.schema
        distinct = {point_id(point.id): point for point in points}
        vectors = vectors_of([p.vector for p in distinct.values()], schema.dims, unit=schema.metric == "cosine")
        if version is not None:
            between("version", version, 0, (1 << 53) - 1)
        if any(point.sparse is not None for point in points):
            raise not_pushed_down("pgvector", "sparse vectors")
        rows = []
        for (id, point), vector in zip(distinct.items(), vectors, strict=True):
            payload = payload_of(point.payload, schema.types)
            text = point.text.replace("\0", " ") if schema.text else ""
            written = msgspec.json.encode(payload).decode()
            rows.append([uuid.UUID(id), version, written, vector, text, *values_of(payload, schema)])
        return sorted(rows, key=lambda row: str(row[0]))  # in one order, so that two writers never wait for each other

    def upsert(self, connection: Connection, rows: list[list[object]]) -> int:
        """Write rows whole, but not over those of a greater version; how many were written."""
        fields = sql.SQL("").join(sql.SQL(", {}").format(sql.Identifier(column)) for column in self._fields)
        connection.execute(
            sql.SQL(
                "CREATE TEMP TABLE coming ON COMMIT DROP AS SELECT id, version, payload, embedding, ''::text AS said{}"
                " FROM {} WITH NO DATA"
            ).format(fields, self.name)
        )
        kinds = ["uuid", "int8", "text", "vector", "text", *(_BINARY[field.type] for field in self.schema.fields)]
        with connection.cursor() as cursor, cursor.copy("COPY coming FROM STDIN (FORMAT BINARY)") as copy:
            copy.set_types(kinds)
            for row in rows:
                copy.write_row(row)
        updated = [*("version", "payload", "embedding", "words"), *self._fields]
        sets = sql.SQL(", ").join(sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(name)) for name in updated)
        done = connection.execute(
            sql.SQL(
                "INSERT INTO {0} AS held (id, version, payload, embedding, words{1})"
                " SELECT id, version, payload, embedding, to_tsvector({2}::regconfig, said){1} FROM coming ORDER BY id"
                " ON CONFLICT (id) DO UPDATE SET {3} WHERE EXCLUDED.version IS NULL OR held.version IS NULL"
                " OR held.version <= EXCLUDED.version"
            ).format(self.name, fields, sql.Literal(configuration(self.schema)), sets)
        )
        connection.execute("DROP TABLE coming")
        return done.rowcount

    def set_payload(self, connection: Connection, where: Where, patch: dict[str, object]) -> None:
        """Put keys into payloads, and take keys out."""
        put, gone = patch_of(patch, self.schema.types)
        chosen, values = self.chosen(where)
        select = sql.SQL("SELECT id, payload FROM {} WHERE {} ORDER BY id FOR UPDATE").format(self.name, chosen)
        sets = sql.SQL("").join(sql.SQL(", {} = %s").format(sql.Identifier(column)) for column in self._fields)
        update = sql.SQL("UPDATE {} SET payload = %s{} WHERE id = %s").format(self.name, sets)
        rows: list[list[object]] = []
        for id, payload in connection.execute(select, values).fetchall():
            merged = shown(str(payload), None) | put
            kept = {key: value for key, value in merged.items() if key not in gone}
            rows.append([msgspec.json.encode(kept).decode(), *values_of(kept, self.schema), id])
        if rows:
            with connection.cursor() as cursor:
                cursor.executemany(update, rows)

    def delete(self, connection: Connection, where: Where) -> None:
        """Remove points."""
        chosen, values = self.chosen(where)
        connection.execute(sql.SQL("DELETE FROM {} WHERE {}").format(self.name, chosen), values)

    def chosen(self, where: Where | None) -> Condition:
        """The condition of a filter, or of ids."""
        if isinstance(where, (list, tuple, set, frozenset)):
            return sql.SQL("(id = ANY(%s::uuid[]))"), [[point_id(id) for id in where]]
        return self.fulfilling(cast("Filter | None", where))

    def fulfilling(self, filter: Filter | None) -> Condition:
        """The condition of a filter."""
        return native(None if filter is None else check_filter(filter, self.schema.types), self.schema)

    # -- keeping ------------------------------------------------------------------------------------------------------

    @property
    def all_columns(self) -> sql.Composable:
        """The columns of the table, in an order that a snapshot keeps."""
        names = ["id", "version", "payload", "embedding", "words", *self._fields]
        return sql.SQL(", ").join(sql.Identifier(name) for name in names)

    def copied_out(self, connection: Connection) -> Iterator[bytes]:
        """All rows in Postgres' binary form."""
        query = sql.SQL("COPY {} ({}) TO STDOUT (FORMAT BINARY)").format(self.name, self.all_columns)
        with connection.cursor() as cursor, cursor.copy(query) as copy:
            yield from (bytes(piece) for piece in copy)

    def copied_in(self, connection: Connection, pieces: Iterator[bytes]) -> None:
        """Rows from Postgres' binary form."""
        query = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(self.name, self.all_columns)
        with connection.cursor() as cursor, cursor.copy(query) as copy:
            for piece in pieces:
                copy.write(piece)


_BINARY = {
    "string": "text",
    "integer": "int8",
    "number": "float8",
    "boolean": "bool",
    "strings": "text[]",
    "integers": "int8[]",
}


def configuration(schema: Schema) -> str:
    """Postgres' name of the language's stop words and stemmer."""
    return schema.language or "simple"


def shown(payload: str, fields: tuple[str, ...] | None) -> dict[str, object]:
    """What is given back of a payload."""
    if fields == ():
        return {}
    found = msgspec.json.decode(payload, type=dict[str, object])
    return found if fields is None else {key: found[key] for key in fields if key in found}
