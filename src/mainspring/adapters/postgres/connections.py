"""Connections to Postgres without threads of their own: a process that has them can be forked."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, LiteralString, TypeVar
from urllib.parse import urlsplit

import psycopg

from mainspring.adapters.postgres.problems import busy, turned
from mainspring.adapters.postgres.settings import PostgresSettings
from mainspring.errors import ServiceError

__all__ = ["Connections"]

T = TypeVar("T")
Connection = psycopg.Connection[Any]


class Connections:
    """A bounded number of connections that commit by themselves. Threads share them; forked children have their own.

    Args:
        settings: where the server is.
        port: the section of the settings, which errors name.
        schema: where names are looked up; empty is where the user's are.

    Attributes:
        place: what errors call the server; no user and no password is in it.
    """

    def __init__(self, settings: PostgresSettings, port: str, schema: str = "") -> None:
        parts = urlsplit(settings.url)
        self.place = f"{parts.hostname or 'localhost'}:{parts.port or 5432}{parts.path}"
        self._settings = settings
        self._port = port
        self._schema = schema
        self._parents: list[list[Connection]] = []
        self._begin()

    def _begin(self) -> None:
        """Have no connection yet, in this process."""
        self._process = os.getpid()
        self._free = threading.BoundedSemaphore(self._settings.connections)
        self._idle: list[Connection] = []
        weakref.finalize(self, _close, self._process, self._idle)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection on which each statement is a transaction.

        Raises:
            ServiceError: MS-4201 to MS-4203.
        """
        if self._process != os.getpid():
            self._parents.append(self._idle)  # closing them would end the parent's; so they are kept from collection
            self._begin()
        if not self._free.acquire(timeout=self._settings.connect_seconds):
            raise busy(self.place, self._port)
        try:
            connection = self._open()
            try:
                yield connection
            finally:
                self._give_back(connection)
        except psycopg.Error as error:
            raise turned(error, self.place, self._port) from error
        finally:
            self._free.release()

    def asked(self, work: Callable[[Connection], T]) -> T:
        """What something that may be done twice finds; it is, if the server ended the connection at that moment.

        Raises:
            ServiceError: MS-4201 to MS-4203.
        """
        connection: Connection | None = None
        try:
            with self.connection() as connection:
                return work(connection)
        except ServiceError:
            if connection is None or not connection.closed:
                raise
        with self.connection() as connection:
            return work(connection)

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
            ServiceError: MS-4201, it does not answer; MS-4202, it does not allow that.
        """
        with self.transaction() as cursor:
            cursor.execute("select pg_advisory_xact_lock(%s)", (lock,))
            for statement in tables:
                cursor.execute(statement)

    def close(self) -> None:
        """Close this process's idle connections; the next use opens one again."""
        _close(self._process, self._idle)

    def _open(self) -> Connection:
        """An idle connection that the server has not ended, or a new one."""
        with contextlib.suppress(IndexError):  # another thread may take the last one
            while self._idle:
                connection = self._idle.pop()
                if _quiet(connection):
                    return connection
                connection.close()
        settings = self._settings
        options = f"-c statement_timeout={round(settings.statement_seconds * 1000)}"
        if self._schema:
            options += f" -c search_path={self._schema}"
        return psycopg.connect(
            settings.url,
            autocommit=True,
            prepare_threshold=2,
            connect_timeout=max(2, round(settings.connect_seconds)),
            options=options,
        )

    def _give_back(self, connection: Connection) -> None:
        idle = connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE
        if idle and not connection.closed:
            self._idle.append(connection)
        else:
            connection.close()


def _close(process: int, idle: list[Connection]) -> None:
    """Close the connections of a process, in that process alone: a parent's would end in its child."""
    while idle and process == os.getpid():
        with contextlib.suppress(psycopg.Error):
            idle.pop().close()


def _quiet(connection: Connection) -> bool:
    """Whether the server has said nothing since: what it says unasked is that it ends the connection."""
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)
