"""One connection a thread, opened anew after a fork; one writer at a time."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mainspring.adapters.sqlite.problems import network_disk, newer_schema, turned
from mainspring.adapters.sqlite.schema import TABLES, VERSION, triggers
from mainspring.adapters.sqlite.settings import SqliteSettings

__all__ = ["Connections", "Fault"]

Fault = Callable[[str], None]

_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs", "lustre", "afs"})
_SYNCED = frozenset({"Dropbox", "OneDrive", "Google Drive", "iCloud Drive"})
_PRIMARY = 0xFF  # the low byte of an extended result code
_PAUSE = 0.005


class Connections:
    """The connections of one process to one file.

    Args:
        path: the file; made with its schema when it is not there.
        settings: how to open it.
        fault: called inside each write transaction (``tx.begin``, ``tx.committed``); tests stop there.
    """

    def __init__(self, path: Path, settings: SqliteSettings, fault: Fault = lambda point: None) -> None:
        self.path = path
        self._settings = settings
        self._fault = fault
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []
        if not settings.allow_network_disk and (kind := untrusted_disk(path.parent)):
            raise network_disk(kind, path.name)
        with self.turning():
            self._prepare()

    @contextlib.contextmanager
    def turning(self) -> Iterator[None]:
        """Turn SQLite's errors into ours."""
        try:
            yield
        except sqlite3.Error as error:
            raise turned(error, self.path.name) from error

    def get(self) -> sqlite3.Connection:
        """This thread's connection."""
        known: tuple[int, sqlite3.Connection] | None = getattr(self._local, "connection", None)
        if known is not None and known[0] == os.getpid():
            return known[1]
        connection = self._open()
        self._local.connection = (os.getpid(), connection)
        self._all.append(connection)
        return connection

    def read(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self.turning():
            return self.get().execute(sql, values).fetchall()

    @contextlib.contextmanager
    def write(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """A write transaction; `durable` survives a power loss too, not only the death of the process."""
        connection = self.get()
        with self.turning():
            if durable:
                connection.execute("pragma synchronous = full")
            try:
                connection.execute("begin immediate")
                self._fault("tx.begin")
                try:
                    yield connection
                except BaseException:
                    if connection.in_transaction:  # on a full disk SQLite has rolled back by itself
                        connection.execute("rollback")
                    raise
                connection.execute("commit")
                self._fault("tx.committed")
            finally:
                if durable:
                    connection.execute("pragma synchronous = normal")

    def close(self) -> None:
        """Close the connections that this process opened."""
        known: tuple[int, sqlite3.Connection] | None = getattr(self._local, "connection", None)
        if known is not None and known[0] == os.getpid():
            for connection in self._all:
                with contextlib.suppress(sqlite3.ProgrammingError):
                    connection.close()
        self._all.clear()
        self._local = threading.local()

    def _open(self) -> sqlite3.Connection:
        with self.turning():
            connection = sqlite3.connect(
                self.path, timeout=self._settings.busy_seconds, isolation_level=None, check_same_thread=False
            )
            self._use_wal(connection)
            for pragma in ("synchronous = normal", "foreign_keys = on", "temp_store = memory"):
                connection.execute(f"pragma {pragma}")
            return connection

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        """Turn the write-ahead log on; SQLite does not wait by itself while another process is doing it."""
        deadline = time.monotonic() + self._settings.busy_seconds
        while True:
            try:
                connection.execute("pragma journal_mode = wal")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & _PRIMARY != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE)

    def _prepare(self) -> None:
        connection = self.get()
        (found,) = connection.execute("pragma user_version").fetchone()
        if found > VERSION:
            raise newer_schema(found, VERSION, self.path.name)
        if found == 0:
            with self.write():
                (found,) = connection.execute("pragma user_version").fetchone()
                if found == 0:  # nobody made the tables while we waited for the lock
                    for statement in _statements(TABLES) + _statements(triggers()):
                        connection.execute(statement)
                    connection.execute(f"pragma user_version = {VERSION}")


def _statements(script: str) -> list[str]:
    found, part = [], ""
    for piece in script.split(";"):
        part += piece + ";"
        if sqlite3.complete_statement(part) and part.strip(" \n;"):
            found.append(part)
            part = ""
    return found


def untrusted_disk(folder: Path) -> str:
    """The kind of network or synced disk that a folder lies on; empty for a local one."""
    resolved = folder.resolve()
    for part in resolved.parts:
        if part in _SYNCED:
            return f"synced ({part})"
    best = ("", "")
    with contextlib.suppress(OSError), open("/proc/mounts", encoding="utf-8") as mounts:
        for line in mounts:
            _, point, kind, *_ = line.split()
            point = point.replace("\\040", " ")
            inside = resolved.is_relative_to(point)
            if inside and len(point) >= len(best[0]):
                best = (point, kind)
    return f"network ({best[1]})" if best[1] in _NETWORK else ""
