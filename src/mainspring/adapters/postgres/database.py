"""Connections to Postgres."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString
from urllib.parse import urlsplit

import psycopg
from psycopg.rows import RowFactory
from psycopg_pool import ConnectionPool

from mainspring.adapters.postgres.problems import turned
from mainspring.adapters.postgres.settings import PostgresSettings

__all__ = ["Database"]


class Database:
    """A pool of connections that commit by themselves; threads may share it.

    Args:
        settings: where it is.
        port: the section of the settings, which errors name.
        rows: what a row is read as.

    Attributes:
        pool: the connections.
        place: what errors call the server; no user and no password is in it.
    """

    def __init__(self, settings: PostgresSettings, port: str, rows: RowFactory[Any]) -> None:
        parts = urlsplit(settings.url)
        self.place = f"{parts.hostname or 'localhost'}:{parts.port or 5432}{parts.path}"
        self._port = port
        self.pool: ConnectionPool[Any] = ConnectionPool(
            settings.url,
            min_size=0,
            max_size=settings.connections,
            timeout=settings.connect_seconds,
            open=False,
            kwargs={
                "autocommit": True,
                "prepare_threshold": 0,
                "row_factory": rows,
                "connect_timeout": max(2, round(settings.connect_seconds)),
                "options": f"-c statement_timeout={round(settings.statement_seconds * 1000)}",
            },
        )
        self.pool.open()

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection[Any]]:
        """A connection on which each statement is a transaction.

        Raises:
            ServiceError: MS-4201 to MS-4203.
        """
        try:
            with self.pool.connection() as connection:
                yield connection
        except psycopg.Error as error:
            raise self.turned(error) from error

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Cursor[Any]]:
        """A cursor in one transaction, which is committed at the end of the block.

        Raises:
            ServiceError: MS-4201 to MS-4203.
        """
        with self.connection() as connection, connection.transaction(), connection.cursor() as cursor:
            yield cursor

    def make(self, lock: int, tables: Sequence[LiteralString]) -> None:
        """Make tables that are not there, one process at a time.

        Raises:
            ServiceError: MS-4201, it does not answer; MS-4202, it does not allow that. The pool is then closed.
        """
        try:
            with self.transaction() as cursor:
                cursor.execute("select pg_advisory_xact_lock(%s)", (lock,))
                for statement in tables:
                    cursor.execute(statement)
        except BaseException:
            self.close()
            raise

    def turned(self, error: psycopg.Error) -> Exception:
        """The error as people should see it."""
        return turned(error, self.place, self._port)

    def close(self) -> None:
        """Close all connections."""
        self.pool.close()
