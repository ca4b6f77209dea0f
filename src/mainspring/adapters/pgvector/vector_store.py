"""The vectors port on Postgres with pgvector: a table an index, aliases in a table, any number of processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from mainspring.adapters.pgvector.database import Connection, Database
from mainspring.adapters.pgvector.legs import PgvectorLegs
from mainspring.adapters.pgvector.settings import PgvectorSettings
from mainspring.adapters.pgvector.table import Table, configuration, shown
from mainspring.lazy import lazy
from mainspring.ports.vector_store import (
    Capabilities,
    Durability,
    Filter,
    Hits,
    Page,
    Point,
    Query,
    Schema,
    Stats,
    Stored,
    Where,
)
from mainspring.vectors.checked import MOST, between, check_schema, name_of, point_id
from mainspring.vectors.faults import (
    aliased,
    bad_snapshot,
    exists_otherwise,
    name_is_taken,
    no_index,
    schema_beyond,
)
from mainspring.vectors.searching import find

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pgvector
    from psycopg import sql
else:
    np = lazy("numpy")
    sql = lazy("psycopg.sql")

__all__ = ["PgvectorStore", "open_store"]

_CAPABILITIES = Capabilities(
    metrics=("cosine", "dot"),
    max_dims=4_000,
    quantisation=("half",),
    full_text="rank",
    native_alias=True,
    readers="many",
    writers="many",
    durability="power_loss",
)
_BATCH, _PIECE = 1_000, 1 << 20
_MAGIC = b"mainspring-pgvector-1\n"


class PgvectorStore:
    """Indexes in one schema of a database; threads and processes may share it.

    Args:
        settings: where the database is.
    """

    def __init__(self, settings: PgvectorSettings) -> None:
        self._settings = settings
        self._database = Database(settings)

    def capabilities(self) -> Capabilities:
        """What it can do."""
        return _CAPABILITIES

    def indexes(self) -> tuple[str, ...]:
        """The names of all indexes."""
        with self._database.connection() as connection:
            found = connection.execute('SELECT name FROM indexes ORDER BY name COLLATE "C"').fetchall()
            return tuple(str(name) for (name,) in found)

    def extension(self) -> str:
        """The version of pgvector."""
        with self._database.connection() as connection:
            found = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
            return str(found[0]) if found else ""

    # -- names --------------------------------------------------------------------------------------------------------

    def create(self, index: str, schema: Schema) -> None:
        """Make an empty index."""
        name_of(index)
        check_schema("pgvector", schema, _CAPABILITIES)
        if not schema.quantised and schema.dims > 2_000:
            raise schema_beyond("pgvector", "whole vectors have at most 2,000 numbers, halved ones 4,000")
        with self._database.naming() as connection:
            there = self._found(connection, index)
            if there is None:
                self._made(connection, index, schema)
            elif there.schema != schema:
                raise exists_otherwise(index)

    def _found(self, connection: Connection, index: str) -> Table | None:
        """The index of that very name.

        Raises:
            StoreError: MS-4181, an alias has that name.
        """
        if connection.execute("SELECT 1 FROM aliases WHERE name = %s", (index,)).fetchone():
            raise name_is_taken(index, "an alias")
        row = connection.execute("SELECT number, about::text FROM indexes WHERE name = %s", (index,)).fetchone()
        return None if row is None else _table(row)

    @staticmethod
    def _made(connection: Connection, index: str, schema: Schema) -> Table:
        known = connection.execute("SELECT 1 FROM pg_ts_config WHERE cfgname = %s", (configuration(schema),))
        if schema.text and known.fetchone() is None:
            raise schema_beyond("pgvector", f"Postgres has no full text for {schema.language}")
        about = msgspec.json.encode(schema).decode()
        row = connection.execute(
            "INSERT INTO indexes (name, about) VALUES (%s, %s) RETURNING number, about::text", (index, about)
        ).fetchone()
        assert row is not None
        table = _table(row)
        table.make(connection)
        return table

    def schema(self, index: str) -> Schema:
        """The schema that an index was made with."""
        with self._using(index) as (_, table):
            return table.schema

    def drop(self, index: str) -> None:
        """Remove an index."""
        name_of(index)
        with self._database.naming() as connection:
            leading = connection.execute("SELECT name FROM aliases WHERE index = %s ORDER BY name", (index,)).fetchall()
            if leading:
                raise aliased(index, [str(name) for (name,) in leading])
            gone = connection.execute("DELETE FROM indexes WHERE name = %s RETURNING number, about::text", (index,))
            row = gone.fetchone()
            if row is not None:
                connection.execute(sql.SQL("DROP TABLE {}").format(_table(row).name))

    def alias(self, name: str, index: str) -> None:
        """Let a name lead to an index."""
        name_of(name)
        name_of(index)
        with self._database.naming() as connection:
            if connection.execute("SELECT 1 FROM indexes WHERE name = %s", (name,)).fetchone():
                raise name_is_taken(name, "an index")
            led = connection.execute(
                "INSERT INTO aliases (name, index) SELECT %s, indexes.name FROM indexes WHERE indexes.name ="
                " coalesce((SELECT index FROM aliases WHERE name = %s), %s)"
                " ON CONFLICT (name) DO UPDATE SET index = EXCLUDED.index",
                (name, index, index),
            )
            if not led.rowcount:
                raise no_index(index)

    def aliases(self) -> Mapping[str, str]:
        """The index that each alias leads to."""
        with self._database.connection() as connection:
            return {str(name): str(index) for name, index in connection.execute("SELECT name, index FROM aliases")}

    @contextlib.contextmanager
    def _using(self, name: str) -> Iterator[tuple[Connection, Table]]:
        """A transaction with an index, or the one that its alias leads to, which nobody drops meanwhile."""
        name_of(name)
        with self._database.connection() as connection:
            row = connection.execute(
                "SELECT number, about::text FROM indexes WHERE name ="
                " coalesce((SELECT index FROM aliases WHERE name = %s), %s) FOR KEY SHARE",
                (name, name),
            ).fetchone()
            if row is None:
                raise no_index(name)
            yield connection, _table(row)

    # -- points -------------------------------------------------------------------------------------------------------

    def upsert(self, index: str, points: Sequence[Point], version: int | None = None) -> int:
        """Write points whole."""
        with self._using(index) as (connection, table):
            rows = table.checked(points, version)
            pieces = (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))
            return sum(table.upsert(connection, piece) for piece in pieces)

    def set_payload(self, index: str, where: Where, patch: Mapping[str, object]) -> None:
        """Put keys into payloads."""
        with self._using(index) as (connection, table):
            table.set_payload(connection, where, dict(patch))

    def delete(self, index: str, where: Where) -> None:
        """Remove points."""
        with self._using(index) as (connection, table):
            table.delete(connection, where)

    def search(self, index: str, query: Query) -> Hits:
        """The best points."""
        with self._using(index) as (connection, table):
            return find(query, PgvectorLegs(connection, table, query))

    def scroll(
        self,
        index: str,
        filter: Filter | None = None,
        cursor: str | None = None,
        limit: int = 1000,
        *,
        fields: tuple[str, ...] | None = None,
        vectors: bool = False,
    ) -> Page:
        """A page of points."""
        between("limit", limit, 1, MOST)
        with self._using(index) as (connection, table):
            chosen, values = table.fulfilling(filter)
            after = [] if cursor is None else [point_id(cursor)]
            select = sql.SQL("SELECT id, payload{} FROM {} WHERE {}{} ORDER BY id LIMIT %s").format(
                sql.SQL(", embedding" if vectors else ""),
                table.name,
                chosen,
                sql.SQL(" AND id > %s::uuid" if after else ""),
            )
            rows = connection.execute(select, [*values, *after, limit + 1]).fetchall()
        points = tuple(
            Stored(str(row[0]), shown(str(row[1]), fields), _dense(row[2]) if vectors else None) for row in rows[:limit]
        )
        return Page(points, points[-1].id if len(rows) > limit else None)

    def count(self, index: str, filter: Filter | None = None) -> int:
        """How many points fulfil the filter."""
        with self._using(index) as (connection, table):
            chosen, values = table.fulfilling(filter)
            return _number(connection, sql.SQL("SELECT count(*) FROM {} WHERE {}").format(table.name, chosen), values)

    # -- keeping ------------------------------------------------------------------------------------------------------

    def flush(self, index: str) -> Durability:
        """Nothing is left to do: every write was committed; what that survives is the server's setting."""
        with self._using(index) as (connection, _):
            row = connection.execute(
                "SELECT current_setting('synchronous_commit'), current_setting('fsync')"
            ).fetchone()
            return "process_crash" if row is None or "off" in row else "power_loss"

    def optimize(self, index: str) -> None:
        """Build the graph, while others read and write; once built, Postgres keeps it up."""
        with self._using(index) as (_, table):
            pass
        with self._database.alone() as connection:
            connection.execute("SELECT pg_advisory_lock(%s, %s)", (0x6F7074, table.number))
            table.build_graph(connection, self._settings)

    def snapshot(self, index: str, file: Path) -> None:
        """Copy an index into a file, in Postgres' binary form."""
        try:
            with self._using(index) as (connection, table), file.open("xb") as out:
                out.write(_MAGIC + msgspec.json.encode(table.schema) + b"\n")
                for piece in table.copied_out(connection):
                    out.write(piece)
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            raise bad_snapshot(str(error)) from error

    def restore(self, index: str, file: Path) -> None:
        """Make an index of a snapshot."""
        name_of(index)
        try:
            with file.open("rb") as source:
                if source.readline(100) != _MAGIC:
                    raise bad_snapshot("it does not begin as one")
                schema = msgspec.json.decode(source.readline(), type=Schema)
                with self._database.naming() as connection:
                    if self._found(connection, index) is not None:
                        raise name_is_taken(index, "an index")
                    table = self._made(connection, index, schema)
                    table.copied_in(connection, iter(lambda: source.read(_PIECE), b""))
        except (OSError, msgspec.DecodeError) as error:
            raise bad_snapshot(str(error)) from error

    def stats(self, index: str) -> Stats:
        """How large an index is."""
        with self._using(index) as (connection, table):
            rows = _number(connection, sql.SQL("SELECT count(*) FROM {}").format(table.name), [])
            of = sql.Literal(f"points_{table.number}")
            size = _number(connection, sql.SQL("SELECT pg_total_relation_size({}::regclass)").format(of), [])
            return Stats(rows, 0 if table.has_graph(connection) else rows, size)

    def close(self) -> None:
        """Close all connections."""
        self._database.close()


def _dense(vector: object) -> npt.NDArray[np.float32]:
    return np.asarray(cast("pgvector.Vector", vector).to_numpy(), np.float32)


def _table(row: tuple[object, ...]) -> Table:
    return Table(int(str(row[0])), msgspec.json.decode(str(row[1]), type=Schema))


def _number(connection: Connection, query: sql.Composed, values: list[object]) -> int:
    row = connection.execute(query, values).fetchone()
    return int(str(row[0])) if row else 0


def open_store(settings: PgvectorSettings, place: Path) -> PgvectorStore:
    """The store at the settings' URL; the state folder is not used, and nothing is connected before the first use.

    Raises:
        MainspringError: MS-4265 to MS-4194, at the first use.
    """
    return PgvectorStore(settings)
