"""The online port on Postgres: one table of bytes, and one statement a call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, LiteralString

from mainspring.adapters.postgres.connections import Connections
from mainspring.adapters.postgres.settings import PostgresSettings
from mainspring.errors import StoreError

__all__ = ["PostgresStore", "open_store"]

_ORDER = 24
_PIECE = 500
_LOCK = 0x6F6E6C  # "onl": one process makes the table
_TABLE: LiteralString = "create table if not exists mainspring_online (k bytea primary key, v bytea not null)"
_PUT_NEWER: LiteralString = f"""
    insert into mainspring_online as there
    select k, v from unnest(%s::bytea[], %s::bytea[]) as given (k, v)
    on conflict (k) do update set v = excluded.v
    where substring(there.v for {_ORDER}) < substring(excluded.v for {_ORDER})
"""


class PostgresStore:
    """Rows in the table ``mainspring_online``; threads share the connections, forked children have their own.

    Args:
        settings: where the server is.

    Attributes:
        database: the connections to it.

    Raises:
        ServiceError: MS-4201 to MS-4203; nothing is asked before the first call.
    """

    def __init__(self, settings: PostgresSettings) -> None:
        self.database = Connections(settings, "online")
        self._made = False
        self._closed = False

    def _ready(self) -> Connections:
        """The connections, to a database that has the table."""
        if self._closed:
            raise StoreError(
                "the online store was closed",
                code="MS-4140",
                why="it is used after it was let go",
                origin=self.database.place,
                fix="open it anew",
            )
        if not self._made:
            self.database.make(_LOCK, (_TABLE,))
            self._made = True
        return self.database

    def _changed(self, sql: LiteralString, values: Sequence[object]) -> int:
        """How many rows a statement has changed that may be run twice."""
        return self._ready().asked(lambda connection: connection.execute(sql, values).rowcount)

    def _rows(self, sql: LiteralString, values: Sequence[object]) -> list[tuple[Any, ...]]:
        return self._ready().asked(lambda connection: connection.execute(sql, values, binary=True).fetchall())

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The rows of these keys, from one moment: one statement."""
        sql: LiteralString = "select k, v from mainspring_online where k = any(%b)"
        found = dict(self._rows(sql, (list(keys),))) if keys else {}
        return [found.get(key) for key in keys]

    def put_newer(self, rows: Iterable[tuple[bytes, bytes]]) -> int:
        """Write each row unless a newer one is there; of a key's rows in the batch, the newest is looked at.

        Keys are written in their order, so that two batches never wait for each other.
        """
        newest: dict[bytes, bytes] = {}
        for key, row in rows:
            if key not in newest or row[:_ORDER] > newest[key][:_ORDER]:
                newest[key] = row
        if not newest:
            return 0
        keys = sorted(newest)
        values = [newest[key] for key in keys]
        return self._changed(_PUT_NEWER, (keys, values))

    def swap(self, key: bytes, old: bytes | None, new: bytes) -> bool:
        """Write a row if the one there is still the old one."""
        sql: LiteralString
        values: tuple[bytes, ...]
        if old is None:
            sql, values = "insert into mainspring_online values (%s, %s) on conflict do nothing", (key, new)
        else:
            sql, values = "update mainspring_online set v = %s where k = %s and v = %s", (new, key, old)
        with self._ready().connection() as connection:  # done twice it would find its own row, and fail
            return connection.execute(sql, values).rowcount == 1

    def delete(self, keys: Iterable[bytes]) -> None:
        """Remove rows."""
        self._changed("delete from mainspring_online where k = any(%s)", (sorted(keys),))

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All rows whose key begins so, a piece at a time, each from a moment of its own."""
        where, values = _within(prefix)
        sql = "select k, v from mainspring_online where " + where + " and k > %s order by k limit %s"
        first = "select k, v from mainspring_online where " + where + " order by k limit %s"
        piece = self._rows(first, (*values, _PIECE))
        while piece:
            yield from piece
            piece = self._rows(sql, (*values, piece[-1][0], _PIECE))

    def drop(self, prefix: bytes) -> int:
        """Remove all rows whose key begins so."""
        where, values = _within(prefix)
        sql = "delete from mainspring_online where " + where
        return self._changed(sql, values)

    def close(self) -> None:
        """Close this process's connections."""
        self._closed = True
        self.database.close()


def _within(prefix: bytes) -> tuple[LiteralString, tuple[bytes, ...]]:
    """The condition that a key begins so: from the prefix up to the first that begins otherwise, where there is one."""
    start = prefix.rstrip(b"\xff")
    if not start:
        return "k >= %s", (prefix,)
    return "k >= %s and k < %s", (prefix, start[:-1] + bytes([start[-1] + 1]))


def open_store(settings: PostgresSettings, place: Path) -> PostgresStore:
    """The store in the database that ``online.url`` names."""
    return PostgresStore(settings)
