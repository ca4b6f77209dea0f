"""One connection a thread, opened anew after a fork; one writer at a time."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mainspring.adapters.sqlite.forking import USES, closes_before_fork
from mainspring.adapters.sqlite.problems import foreign_file, network_disk, newer_schema, turned
from mainspring.adapters.sqlite.schema import Schema
from mainspring.adapters.sqlite.settings import SqliteSettings

__all__ = ["Connections", "Fault"]

Fault = Callable[[str], None]

_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs", "lustre", "afs"})
_SYNCED = re.compile(r"(Dropbox|OneDrive|Google ?Drive|iCloud ?Drive|com~apple~CloudDocs|CloudStorage)\b")
_OCTAL = re.compile(r"\\([0-7]{3})")
_PRIMARY = 0xFF  # the low byte of an extended result code
_PAUSE = 0.005


class Connections:
    """The connections of one process to one file.

    No connection is carried over a fork: SQLite counts a process's locks in memory, and a child that inherited the
    count would believe that it holds locks which only its parent has, and lose what it commits.

    Args:
        path: the file; made with its schema when it is not there.
        settings: how to open it.
        schema: its tables.
        fault: called around each write transaction (``tx.begin``, ``tx.committed``); tests stop there.
    """

    def __init__(
        self, path: Path, settings: SqliteSettings, *, schema: Schema, fault: Fault = lambda point: None
    ) -> None:
        self.path = path
        self._schema = schema
        self._settings = settings
        self._fault = fault
        self._all: dict[threading.Thread, sqlite3.Connection] = {}
        self._parents: list[sqlite3.Connection] = []
        if not settings.allow_network_disk and (kind := untrusted_disk(path.parent)):
            raise network_disk(kind, path.name)
        closes_before_fork(self)
        with USES.one():
            self._prepare()

    @contextlib.contextmanager
    def turning(self) -> Iterator[None]:
        """Turn SQLite's errors into ours."""
        try:
            yield
        except sqlite3.Error as error:
            raise turned(error, self.path) from error

    def read(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with USES.one(), self.turning():
            return self._get().execute(sql, values).fetchall()

    @contextlib.contextmanager
    def write(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """A write transaction; `durable` survives a power loss too, not only the death of the process."""
        with USES.one(), self.turning():
            connection = self._get()
            if durable:
                connection.execute("pragma synchronous = full")
            try:
                connection.execute("begin immediate")
                self._fault("tx.begin")
                yield connection
                connection.execute("commit")
                self._fault("tx.committed")
            finally:
                if connection.in_transaction:  # on a full disk SQLite has rolled back by itself
                    connection.execute("rollback")
                if durable:
                    connection.execute("pragma synchronous = normal")

    def close(self) -> None:
        """Close this process's connections; the next use opens one again."""
        with USES.none():
            self.close_idle()

    def close_idle(self) -> None:
        """Close the connections that no transaction is in; to be called while nobody uses them."""
        for thread, connection in list(self._all.items()):
            if not connection.in_transaction:
                del self._all[thread]
                connection.close()

    def leave_rest(self) -> None:
        """Keep the open ones, which are a parent's transactions, away from this child: closing would end them."""
        self._parents.extend(self._all.values())
        self._all.clear()

    def _get(self) -> sqlite3.Connection:
        """This thread's connection."""
        me = threading.current_thread()
        known = self._all.get(me)
        if known is None:
            with self.turning():
                known = self._open()
            for thread in [thread for thread in list(self._all) if not thread.is_alive()]:
                if (gone := self._all.pop(thread, None)) is not None:  # another thread may have been first
                    gone.close()
            self._all[me] = known
        return known

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=self._settings.busy_seconds, isolation_level=None, check_same_thread=False
        )
        try:
            (found,) = connection.execute("pragma user_version").fetchone()
            if found > self._schema.version:  # asked before the log is turned on, which would change the file
                raise newer_schema(found, self._schema.version, self.path.name)
            self._use_wal(connection)
            for pragma in ("synchronous = normal", "foreign_keys = on", "temp_store = memory"):
                connection.execute(f"pragma {pragma}")
        except BaseException:
            connection.close()
            raise
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
        schema = self._schema
        if self.read("pragma user_version") == [(schema.version,)]:
            return
        with self.write() as db:
            ((found,),) = self.read("pragma user_version")  # somebody may have been first while we waited for the lock
            if not found and self.read("select 1 from sqlite_master"):
                raise foreign_file(self.path.name)
            script = [] if found else _statements(schema.script)
            upgrades = range(found, schema.version) if found else ()
            steps = [step for version in upgrades for step in schema.upgrades.get(version, ())]
            for statement in script + steps:
                db.execute(statement)
            db.execute(f"pragma user_version = {schema.version}")


def _statements(script: str) -> list[str]:
    found, part = [], ""
    for piece in script.split(";"):
        part += piece + ";"
        if sqlite3.complete_statement(part) and part.strip(" \n;"):
            found.append(part)
            part = ""
    return found


def untrusted_disk(folder: Path, mounts: Path = Path("/proc/mounts")) -> str:
    """The kind of network or synced disk that a folder lies on; empty for a local one.

    Args:
        folder: where the file would lie.
        mounts: the table of mounted disks, as Linux writes it.
    """
    resolved = folder.resolve()
    for part in resolved.parts:
        if _SYNCED.match(part):
            return f"synced ({part})"
    best = ("", "")
    with contextlib.suppress(OSError):
        for line in mounts.read_text("utf-8", "replace").splitlines():
            _, point, kind, *_ = line.split(" ")
            point = _OCTAL.sub(lambda escape: chr(int(escape[1], 8)), point)
            if resolved.is_relative_to(point) and len(point) >= len(best[0]):
                best = (point, kind)
    return f"network ({best[1]})" if best[1] in _NETWORK else ""
