"""The online port on Postgres: one table of bytes, and one statement a call."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, LiteralString, TypeVar
from urllib.parse import urlsplit

import psycopg

from mainspring.adapters.postgres.problems import turned
from mainspring.adapters.postgres.settings import PostgresSettings
from mainspring.errors import StoreError

__all__ = ["PostgresStore", "open_store"]

T = TypeVar("T")
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
    """Rows in the table ``mainspring_online``; a connection for each thread, opened anew after a fork.

    Args:
        settings: where the server is.

    Raises:
        ServiceError: MS-4201 to MS-4203; nothing is asked before the first call.
    """

    def __init__(self, settings: PostgresSettings) -> None:
        parts = urlsplit(settings.url)
        self._place = f"{parts.hostname or 'localhost'}:{parts.port or 5432}{parts.path}"
        self._settings = settings
        self._mine = threading.local()
        self._all: list[tuple[int, psycopg.Connection[Any]]] = []
        self._made = False
        self._closed = False

    def _connection(self) -> psycopg.Connection[Any]:
        if self._closed:
            raise StoreError(
                "the online store was closed",
                code="MS-4140",
                why="it is used after it was let go",
                origin=self._place,
                fix="open it anew",
            )
        found: tuple[int, psycopg.Connection[Any]] | None = getattr(self._mine, "opened", None)
        if found is None or found[0] != os.getpid() or found[1].closed:
            settings = self._settings
            opened = psycopg.connect(
                settings.url,
                autocommit=True,
                prepare_threshold=2,
                connect_timeout=max(2, round(settings.connect_seconds)),
                options=f"-c statement_timeout={round(settings.statement_seconds * 1000)}",
            )
            self._make(opened)
            found = self._mine.opened = (os.getpid(), opened)
            self._all.append(found)
        return found[1]

    def _make(self, connection: psycopg.Connection[Any]) -> None:
        if not self._made:
            with connection.transaction():
                connection.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
                connection.execute(_TABLE)
            self._made = True

    def _asked(self, ask: Callable[[psycopg.Connection[Any]], T], *, again: bool = True) -> T:
        """What a call finds; where it may be made twice, once more if the server has ended an idle connection."""
        try:
            connection = self._connection()
            try:
                return ask(connection)
            except psycopg.OperationalError:
                if not again or not connection.closed:
                    raise
                return ask(self._connection())
        except psycopg.Error as error:
            raise turned(error, self._place, "online") from error

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The rows of these keys, from one moment: one statement."""
        sql: LiteralString = "select k, v from mainspring_online where k = any(%b)"

        def read(connection: psycopg.Connection[Any]) -> dict[bytes, bytes]:
            return dict(connection.execute(sql, (list(keys),), binary=True).fetchall())

        found = self._asked(read) if keys else {}
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
        return self._asked(lambda connection: connection.execute(_PUT_NEWER, (keys, values)).rowcount)

    def swap(self, key: bytes, old: bytes | None, new: bytes) -> bool:
        """Write a row if the one there is still the old one."""
        sql: LiteralString
        values: tuple[bytes, ...]
        if old is None:
            sql, values = "insert into mainspring_online values (%s, %s) on conflict do nothing", (key, new)
        else:
            sql, values = "update mainspring_online set v = %s where k = %s and v = %s", (new, key, old)
        return self._asked(lambda connection: connection.execute(sql, values).rowcount == 1, again=False)

    def delete(self, keys: Iterable[bytes]) -> None:
        """Remove rows."""
        batch = sorted(keys)
        self._asked(lambda connection: connection.execute("delete from mainspring_online where k = any(%s)", (batch,)))

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All rows whose key begins so, a piece at a time, each from a moment of its own."""
        where, values = _within(prefix)
        sql = "select k, v from mainspring_online where " + where + " and k > %s order by k limit %s"
        first = "select k, v from mainspring_online where " + where + " order by k limit %s"
        piece = self._asked(functools.partial(_rows, first, (*values, _PIECE)))
        while piece:
            yield from piece
            piece = self._asked(functools.partial(_rows, sql, (*values, piece[-1][0], _PIECE)))

    def drop(self, prefix: bytes) -> int:
        """Remove all rows whose key begins so."""
        where, values = _within(prefix)
        sql = "delete from mainspring_online where " + where
        return self._asked(lambda connection: connection.execute(sql, values).rowcount)

    def close(self) -> None:
        """Close this process's connections."""
        self._closed = True
        for pid, connection in self._all:
            if pid == os.getpid():
                with contextlib.suppress(psycopg.Error):
                    connection.close()


def _rows(sql: LiteralString, values: tuple[object, ...], connection: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return connection.execute(sql, values, binary=True).fetchall()


def _within(prefix: bytes) -> tuple[LiteralString, tuple[bytes, ...]]:
    """The condition that a key begins so: from the prefix up to the first that begins otherwise, where there is one."""
    start = prefix.rstrip(b"\xff")
    if not start:
        return "k >= %s", (prefix,)
    return "k >= %s and k < %s", (prefix, start[:-1] + bytes([start[-1] + 1]))


def open_store(settings: PostgresSettings, place: Path) -> PostgresStore:
    """The store in the database that ``online.url`` names."""
    return PostgresStore(settings)
