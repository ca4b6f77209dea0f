"""Connections to Postgres, and the tables that know of the indexes."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

from mainspring.adapters.pgvector.problems import turned
from mainspring.adapters.pgvector.settings import PgvectorSettings
from mainspring.lazy import lazy
from mainspring.vectors.faults import closed

if TYPE_CHECKING:
    import pgvector.psycopg as registering
    import psycopg
    import psycopg_pool
    from psycopg import sql

    Connection: TypeAlias = psycopg.Connection[tuple[object, ...]]
else:
    registering = lazy("pgvector.psycopg")
    psycopg = lazy("psycopg")
    psycopg_pool = lazy("psycopg_pool")
    sql = lazy("psycopg.sql")
    Connection = object

__all__ = ["Connection", "Database"]

_LOCK = 0x6D61696E
"""The advisory lock under which names are given and taken."""


class Database:
    """A pool of connections, opened at its first use and once a process; threads may share it.

    Args:
        settings: where the database is.
    """

    def __init__(self, settings: PgvectorSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._pool: tuple[int, psycopg_pool.ConnectionPool] | None = None
        self._closed = False

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection in a transaction, which is committed at the end of the block.

        Raises:
            ServiceError: MS-4265 to MS-4194.
            StoreError: MS-4185, the store was closed.
        """
        try:
            with self._opened().connection() as connection:
                yield connection
        except Exception as error:
            raise turned(error) from error

    @contextlib.contextmanager
    def naming(self) -> Iterator[Connection]:
        """A transaction in which nobody else gives or takes a name."""
        with self.connection() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (_LOCK, self._settings.schema))
            yield connection

    @contextlib.contextmanager
    def alone(self) -> Iterator[Connection]:
        """A connection of its own without a transaction, for what takes long."""
        try:
            self._opened()
            with psycopg.connect(
                self._settings.url, autocommit=True, connect_timeout=self._settings.connect_timeout
            ) as connection:
                self._set_up(connection, self._settings.build_timeout)
                yield connection
        except Exception as error:
            raise turned(error) from error

    def _opened(self) -> psycopg_pool.ConnectionPool:
        if self._closed:
            raise closed(self._settings.schema)
        pool = self._pool
        if pool is None or pool[0] != os.getpid():
            with self._lock:
                pool = self._pool
                if pool is None or pool[0] != os.getpid():
                    self._prepare()
                    pool = self._pool = (os.getpid(), self._new_pool())
        return pool[1]

    def _new_pool(self) -> psycopg_pool.ConnectionPool:
        settings = self._settings
        return psycopg_pool.ConnectionPool(
            settings.url,
            kwargs={"connect_timeout": settings.connect_timeout},
            min_size=1,
            max_size=settings.connections,
            timeout=settings.timeout,
            check=psycopg_pool.ConnectionPool.check_connection,
            configure=lambda connection: self._set_up(connection, settings.timeout),
            open=True,
            name="mainspring-vectors",
        )

    def _set_up(self, connection: Connection, timeout: float) -> None:
        path = sql.SQL("SET search_path = {}, public").format(sql.Identifier(self._settings.schema))
        connection.execute(path)
        connection.execute("SELECT set_config('statement_timeout', %s, false)", (f"{round(timeout * 1000)}ms",))
        registering.register_vector(connection)
        connection.commit()

    def _prepare(self) -> None:
        """Make the extension, the schema and the tables of names, once."""
        settings = self._settings
        name = sql.Identifier(settings.schema)
        with psycopg.connect(settings.url, connect_timeout=settings.connect_timeout) as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s, 0)", (_LOCK,))
            connection.execute("SET LOCAL client_min_messages = warning")
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(name))
            connection.execute(
                sql.SQL(
                    "CREATE TABLE IF NOT EXISTS {0}.indexes (name text PRIMARY KEY,"
                    " number bigint GENERATED ALWAYS AS IDENTITY UNIQUE, about json NOT NULL)"
                ).format(name)
            )
            connection.execute(
                sql.SQL(
                    "CREATE TABLE IF NOT EXISTS {0}.aliases (name text PRIMARY KEY,"
                    " index text NOT NULL REFERENCES {0}.indexes (name))"
                ).format(name)
            )

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            self._closed = True
            if self._pool is not None and self._pool[0] == os.getpid():
                self._pool[1].close()
            self._pool = None
