"""Threads and their checkpoints in Postgres."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from psycopg.rows import dict_row

from mainspring.adapters.postgres.database import Database
from mainspring.adapters.postgres.settings import PostgresSettings
from mainspring.ports.threads import CallState, Thread

__all__ = ["PostgresCheckpoints", "PostgresThreads", "open_threads"]

_LOCK = 0x6D61696E7370  # "mainsp": one process makes the tables
_TABLES: tuple[LiteralString, ...] = (
    """create table if not exists rag_thread (
        thread_id text primary key,
        assistant text not null,
        owner text not null,
        tenant text not null,
        created_at bigint not null,
        used_at bigint not null,
        expires_at bigint,
        run text,
        run_until bigint
    )""",
    "create index if not exists rag_thread_owner on rag_thread (tenant, owner, used_at)",
    "create index if not exists rag_thread_expires on rag_thread (expires_at) where expires_at is not null",
    """create table if not exists rag_call (
        thread_id text not null,
        call_id text not null,
        begun_at bigint not null,
        result text,
        primary key (thread_id, call_id)
    )""",
)
_DELETES: tuple[LiteralString, ...] = (
    "delete from checkpoints where thread_id = any(%s)",
    "delete from checkpoint_blobs where thread_id = any(%s)",
    "delete from checkpoint_writes where thread_id = any(%s)",
    "delete from rag_call where thread_id = any(%s)",
    "delete from rag_thread where thread_id = any(%s)",
)
_COPIES: tuple[LiteralString, ...] = (
    (
        "insert into checkpoints "
        "(thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata) "
        "select %s, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata from checkpoints "
        "where thread_id = %s on conflict do nothing"
    ),
    (
        "insert into checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob) "
        "select %s, checkpoint_ns, channel, version, type, blob from checkpoint_blobs "
        "where thread_id = %s on conflict do nothing"
    ),
    (
        "insert into checkpoint_writes "
        "(thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path) "
        "select %s, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path from checkpoint_writes "
        "where thread_id = %s on conflict do nothing"
    ),
)
_SELECT: LiteralString = (
    "select thread_id, assistant, owner, tenant, created_at, used_at, expires_at from rag_thread where "
)


def open_threads(settings: PostgresSettings, place: Path) -> PostgresThreads:
    """The threads in the database that ``threads.url`` names; their tables are made when they are not there.

    Raises:
        ServiceError: MS-4201, it does not answer; MS-4202, it does not allow that.
    """
    return PostgresThreads(settings)


class PostgresCheckpoints(PostgresSaver):
    """LangGraph's saver with what it lacks, over a pool.

    Args:
        database: whose connections commit by themselves.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database.pool, serde=JsonPlusSerializer(allowed_msgpack_modules=None))
        self._database = database

    @contextmanager
    def _cursor(self, *, pipeline: bool = False) -> Iterator[Any]:
        try:
            with super()._cursor(pipeline=pipeline) as cursor:
                yield cursor
        except psycopg.Error as error:
            raise self._database.turned(error) from error

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints whose metadata has one of the ``run_id``s, and what was written for them."""
        with self._cursor() as cursor, cursor.connection.transaction():
            cursor.execute(
                "with gone as (delete from checkpoints where metadata ->> 'run_id' = any(%s) "
                "returning thread_id, checkpoint_ns, checkpoint_id) "
                "delete from checkpoint_writes w using gone where w.thread_id = gone.thread_id "
                "and w.checkpoint_ns = gone.checkpoint_ns and w.checkpoint_id = gone.checkpoint_id",
                (list(run_ids),),
            )

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints of a thread and what was written for them."""
        with self._cursor() as cursor, cursor.connection.transaction():
            for statement in _COPIES:
                cursor.execute(statement, (target_thread_id, source_thread_id))


class PostgresThreads:
    """A `ThreadStore` in Postgres.

    Args:
        settings: where it is.

    Attributes:
        database: the connections to it.
    """

    def __init__(self, settings: PostgresSettings) -> None:
        self.database = Database(settings, "threads", dict_row)
        self._saver = PostgresCheckpoints(self.database)
        try:
            self._prepare()
        except BaseException:
            self.database.close()
            raise

    def _prepare(self) -> None:
        with self.database.connection() as connection:
            connection.execute("select pg_advisory_lock(%s)", (_LOCK,))
            try:
                self._saver.setup()
                for statement in _TABLES:
                    connection.execute(statement)
            finally:
                connection.execute("select pg_advisory_unlock(%s)", (_LOCK,))

    @property
    def checkpointer(self) -> PostgresCheckpoints:
        """The saver over the same database."""
        return self._saver

    def create(self, thread: Thread) -> None:
        """As `ThreadStore.create`."""
        with self.database.connection() as connection:
            connection.execute(
                "insert into rag_thread (thread_id, assistant, owner, tenant, created_at, used_at, expires_at) "
                "values (%s, %s, %s, %s, %s, %s, %s)",
                (
                    thread.thread_id,
                    thread.assistant,
                    thread.owner,
                    thread.tenant,
                    thread.created_at,
                    thread.used_at,
                    thread.expires_at,
                ),
            )

    def get(self, thread_id: str) -> Thread | None:
        """As `ThreadStore.get`."""
        with self.database.connection() as connection:
            row = connection.execute(_SELECT + "thread_id = %s", (thread_id,)).fetchone()
        return Thread(**row) if row else None

    def touch(self, thread_id: str, used_at: int, expires_at: int | None) -> None:
        """As `ThreadStore.touch`."""
        with self.database.connection() as connection:
            connection.execute(
                "update rag_thread set used_at = %s, expires_at = %s where thread_id = %s",
                (used_at, expires_at, thread_id),
            )

    def owned(self, owner: str, tenant: str, assistant: str | None = None) -> list[Thread]:
        """As `ThreadStore.owned`."""
        with self.database.connection() as connection:
            rows = connection.execute(
                _SELECT
                + "owner = %s and tenant = %s and coalesce(%s::text, assistant) = assistant order by used_at desc",
                (owner, tenant, assistant),
            ).fetchall()
        return [Thread(**row) for row in rows]

    def expired(self, now: int, limit: int = 1000) -> list[str]:
        """As `ThreadStore.expired`."""
        with self.database.connection() as connection:
            rows = connection.execute(
                "select thread_id from rag_thread where expires_at <= %s order by expires_at limit %s", (now, limit)
            ).fetchall()
        return [row["thread_id"] for row in rows]

    def delete(self, thread_ids: Sequence[str]) -> int:
        """As `ThreadStore.delete`; the rows leave Postgres's files with its next vacuum."""
        gone = 0
        with self.database.connection() as connection, connection.transaction():
            for statement in _DELETES:
                gone = connection.execute(statement, (list(thread_ids),)).rowcount
        return gone

    def claim(self, thread_id: str, run: str, now: int, until: int) -> bool:
        """As `ThreadStore.claim`."""
        with self.database.connection() as connection:
            done = connection.execute(
                "update rag_thread set run = %s, run_until = %s where thread_id = %s "
                "and (run is null or run = %s or run_until <= %s)",
                (run, until, thread_id, run, now),
            )
        return done.rowcount == 1

    def release(self, thread_id: str, run: str) -> None:
        """As `ThreadStore.release`."""
        with self.database.connection() as connection:
            connection.execute(
                "update rag_thread set run = null, run_until = null where thread_id = %s and run = %s",
                (thread_id, run),
            )

    def begin_call(self, thread_id: str, call_id: str, now: int) -> CallState:
        """As `ThreadStore.begin_call`."""
        with self.database.connection() as connection:
            begun = connection.execute(
                "insert into rag_call (thread_id, call_id, begun_at) values (%s, %s, %s) on conflict do nothing",
                (thread_id, call_id, now),
            )
            if begun.rowcount:
                return CallState("new")
            row = connection.execute(
                "select result from rag_call where thread_id = %s and call_id = %s", (thread_id, call_id)
            ).fetchone()
        result = None if row is None else row["result"]
        return CallState("unknown") if result is None else CallState("done", result)

    def finish_call(self, thread_id: str, call_id: str, result: str) -> None:
        """As `ThreadStore.finish_call`."""
        with self.database.connection() as connection:
            connection.execute(
                "update rag_call set result = %s where thread_id = %s and call_id = %s", (result, thread_id, call_id)
            )

    def close(self) -> None:
        """As `ThreadStore.close`."""
        self.database.close()
