"""What the parts of the catalog share: one round trip for what is read, one transaction for what is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg

from mainspring.adapters.postgres.connections import Connections

__all__ = ["Tables", "alone", "kept", "many"]

_MINE = 0x6D636174  # "mcat": the first half of this catalog's advisory locks

Cursor = psycopg.Cursor[Any]


class Tables:
    """A part of the catalog."""

    database: Connections

    def read(self, sql: LiteralString, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return self.database.asked(lambda connection: connection.execute(sql, values).fetchall())

    @contextmanager
    def write(self) -> Iterator[Cursor]:
        """A transaction: it is on the server's disk when the block has ended."""
        with self.database.transaction() as cursor:
            yield cursor

    def changed(self, sql: LiteralString, values: Sequence[object]) -> bool:
        """Whether a statement has changed a row."""
        with self.database.connection() as connection:
            return connection.execute(sql, kept(values)).rowcount == 1


def kept(values: Sequence[object]) -> tuple[object, ...]:
    """Values as Postgres can keep them: its texts know no NUL."""
    return tuple(value.replace("\0", "�") if isinstance(value, str) else value for value in values)


def many(cursor: Cursor, sql: LiteralString, rows: Sequence[Sequence[object]]) -> int:
    """Run a statement for each row, in the order of their keys, so that two writers wait for each other and no more.

    Returns:
        How many rows were changed.
    """
    if not rows:
        return 0
    cursor.executemany(sql, [kept(row) for row in rows])
    return cursor.rowcount


def alone(cursor: Cursor, what: str) -> None:
    """Wait until nobody else is in a transaction about the same thing."""
    cursor.execute("select pg_advisory_xact_lock(%s, hashtext(%s))", (_MINE, what))
