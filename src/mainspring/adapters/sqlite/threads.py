"""Threads and their checkpoints in one SQLite file."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver

from mainspring.adapters.sqlite.connection import untrusted_disk
from mainspring.adapters.sqlite.problems import network_disk
from mainspring.adapters.sqlite.settings import SqliteSettings
from mainspring.adapters.sqlite.threads_problems import turned
from mainspring.ports.threads import CallState, Thread

__all__ = ["SqliteCheckpoints", "SqliteThreads", "open_threads"]

_TABLES = """
create table if not exists rag_thread (
    thread_id text primary key,
    assistant text not null,
    owner text not null,
    tenant text not null,
    created_at integer not null,
    used_at integer not null,
    expires_at integer,
    run text,
    run_until integer
) strict, without rowid;
create index if not exists rag_thread_owner on rag_thread (tenant, owner, used_at);
create index if not exists rag_thread_expires on rag_thread (expires_at) where expires_at is not null;
create table if not exists rag_call (
    thread_id text not null,
    call_id text not null,
    begun_at integer not null,
    result text,
    primary key (thread_id, call_id)
) strict, without rowid;
"""
_COLUMNS = "thread_id, assistant, owner, tenant, created_at, used_at, expires_at"
_OF_THREADS = ("checkpoints", "writes", "rag_call", "rag_thread")
_DELTA = "select 1 from checkpoints where thread_id = ? and metadata like '%delta%' limit 1"


def open_threads(settings: SqliteSettings, place: Path) -> SqliteThreads:
    """The threads in ``threads.db`` of the app's state folder, or where ``threads.url`` says.

    Raises:
        StoreError: MS-4115, the folder is on a network disk; MS-4191, the file cannot be opened.
    """
    path = place / "threads.db" if settings.url is None else Path(settings.url.removeprefix("sqlite://"))
    if not settings.allow_network_disk and (kind := untrusted_disk(path.parent)):
        raise network_disk(kind, path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return SqliteThreads(path, settings.busy_seconds)


class SqliteCheckpoints(SqliteSaver):
    """LangGraph's saver with what it lacks; one connection that threads take in turns.

    Args:
        connection: usable from every thread.
        place: what errors call the file.
    """

    def __init__(self, connection: sqlite3.Connection, place: str) -> None:
        super().__init__(connection, serde=JsonPlusSerializer(allowed_msgpack_modules=None))
        self._place = place
        self.lock = threading.RLock()  # type: ignore[assignment]  # a transaction of ours uses the saver's own methods

    @contextmanager
    def cursor(self, transaction: bool = True) -> Iterator[sqlite3.Cursor]:
        """A cursor within a transaction that an error rolls back; the driver's errors become ours."""
        with self.lock:
            try:
                self.setup()
                cursor = self.conn.cursor()
                try:
                    yield cursor
                finally:
                    cursor.close()
                if transaction:
                    self.conn.commit()
            except sqlite3.Error as error:
                raise turned(error, self._place) from error
            finally:
                if self.conn.in_transaction:
                    self.conn.rollback()

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints whose metadata has one of the ``run_id``s, and what was written for them."""
        marks = ", ".join("?" * len(run_ids))
        chosen = f"json_extract(metadata, '$.run_id') in ({marks})"
        with self.cursor() as cursor:
            cursor.execute(
                "delete from writes where (thread_id, checkpoint_ns, checkpoint_id) in "
                f"(select thread_id, checkpoint_ns, checkpoint_id from checkpoints where {chosen})",
                tuple(run_ids),
            )
            cursor.execute(f"delete from checkpoints where {chosen}", tuple(run_ids))

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy all checkpoints of a thread and what was written for them."""
        columns = "checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata"
        written = "checkpoint_ns, checkpoint_id, task_id, task_path, idx, channel, type, value"
        with self.cursor() as cursor:
            for table, names in (("checkpoints", columns), ("writes", written)):
                cursor.execute(
                    f"insert or replace into {table} (thread_id, {names}) select ?, {names} from {table} "
                    "where thread_id = ?",
                    (target_thread_id, source_thread_id),
                )

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Keep the latest checkpoint of each namespace only, or none with ``delete``.

        A thread of a graph with channels that keep differences is left as it is: its latest checkpoint stands on
        earlier ones.

        Raises:
            ValueError: there is no such strategy.
        """
        if strategy not in ("keep_latest", "delete"):
            raise ValueError(f"{strategy!r} is neither 'keep_latest' nor 'delete'")
        with self.cursor() as cursor:
            for thread in thread_ids:
                if strategy == "delete":
                    for table in ("checkpoints", "writes"):
                        cursor.execute(f"delete from {table} where thread_id = ?", (thread,))
                elif cursor.execute(_DELTA, (thread,)).fetchone() is None:
                    _keep_latest(cursor, thread)


def _keep_latest(cursor: sqlite3.Cursor, thread: str) -> None:
    latest = "select checkpoint_ns, max(checkpoint_id) from checkpoints where thread_id = ? group by checkpoint_ns"
    for table in ("writes", "checkpoints"):
        cursor.execute(
            f"delete from {table} where thread_id = ? and (checkpoint_ns, checkpoint_id) not in ({latest})",
            (thread, thread),
        )
    cursor.execute("update checkpoints set parent_checkpoint_id = null where thread_id = ?", (thread,))


class SqliteThreads:
    """A `ThreadStore` in one SQLite file.

    Args:
        path: the file; made when it is not there.
        busy_seconds: how long a write waits for another process.
    """

    def __init__(self, path: Path, busy_seconds: float = 15.0) -> None:
        self.path = path
        try:
            path.touch(mode=0o600)  # what people say is nobody else's
            connection = sqlite3.connect(path, timeout=busy_seconds, check_same_thread=False)
            connection.execute("pragma secure_delete = on")  # what is erased is overwritten
        except OSError as error:
            raise turned(sqlite3.OperationalError(f"unable to open: {error.strerror}"), path.name) from error
        except sqlite3.Error as error:
            raise turned(error, path.name) from error
        self._saver = SqliteCheckpoints(connection, path.name)
        with self._saver.cursor() as cursor:
            cursor.executescript(_TABLES)

    @property
    def checkpointer(self) -> SqliteCheckpoints:
        """The saver over the same file."""
        return self._saver

    def create(self, thread: Thread) -> None:
        """As `ThreadStore.create`."""
        values = (
            thread.thread_id,
            thread.assistant,
            thread.owner,
            thread.tenant,
            thread.created_at,
            thread.used_at,
            thread.expires_at,
        )
        self._write(f"insert into rag_thread ({_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?)", values)

    def get(self, thread_id: str) -> Thread | None:
        """As `ThreadStore.get`."""
        rows = self._read(f"select {_COLUMNS} from rag_thread where thread_id = ?", (thread_id,))
        return Thread(*rows[0]) if rows else None

    def touch(self, thread_id: str, used_at: int, expires_at: int | None) -> None:
        """As `ThreadStore.touch`."""
        self._write(
            "update rag_thread set used_at = ?, expires_at = ? where thread_id = ?", (used_at, expires_at, thread_id)
        )

    def owned(self, owner: str, tenant: str, assistant: str | None = None) -> list[Thread]:
        """As `ThreadStore.owned`."""
        sql = f"select {_COLUMNS} from rag_thread where owner = ? and tenant = ? and coalesce(?, assistant) = assistant"
        return [Thread(*row) for row in self._read(f"{sql} order by used_at desc", (owner, tenant, assistant))]

    def expired(self, now: int, limit: int = 1000) -> list[str]:
        """As `ThreadStore.expired`."""
        rows = self._read(
            "select thread_id from rag_thread where expires_at <= ? order by expires_at limit ?", (now, limit)
        )
        return [thread for (thread,) in rows]

    def delete(self, thread_ids: Sequence[str]) -> int:
        """As `ThreadStore.delete`."""
        gone = 0
        with self._saver.cursor() as cursor:
            for thread in thread_ids:
                for table in _OF_THREADS:
                    cursor.execute(f"delete from {table} where thread_id = ?", (thread,))
                gone += cursor.rowcount
        with self._saver.cursor(transaction=False) as cursor:
            cursor.execute("pragma wal_checkpoint(truncate)")  # no copy stays in the log
        return gone

    def claim(self, thread_id: str, run: str, now: int, until: int) -> bool:
        """As `ThreadStore.claim`."""
        return (
            self._write(
                "update rag_thread set run = ?, run_until = ? where thread_id = ? "
                "and (run is null or run = ? or run_until <= ?)",
                (run, until, thread_id, run, now),
            )
            == 1
        )

    def release(self, thread_id: str, run: str) -> None:
        """As `ThreadStore.release`."""
        self._write(
            "update rag_thread set run = null, run_until = null where thread_id = ? and run = ?", (thread_id, run)
        )

    def begin_call(self, thread_id: str, call_id: str, now: int) -> CallState:
        """As `ThreadStore.begin_call`."""
        begun = self._write(
            "insert into rag_call (thread_id, call_id, begun_at) values (?, ?, ?) on conflict do nothing",
            (thread_id, call_id, now),
        )
        if begun:
            return CallState("new")
        ((result,),) = self._read(
            "select result from rag_call where thread_id = ? and call_id = ?", (thread_id, call_id)
        )
        return CallState("unknown") if result is None else CallState("done", result)

    def finish_call(self, thread_id: str, call_id: str, result: str) -> None:
        """As `ThreadStore.finish_call`."""
        self._write("update rag_call set result = ? where thread_id = ? and call_id = ?", (result, thread_id, call_id))

    def close(self) -> None:
        """As `ThreadStore.close`."""
        with self._saver.lock:
            self._saver.conn.close()

    def _read(self, sql: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        with self._saver.cursor(transaction=False) as cursor:
            return cursor.execute(sql, values).fetchall()

    def _write(self, sql: str, values: Sequence[object]) -> int:
        with self._saver.cursor() as cursor:
            return cursor.execute(sql, values).rowcount
