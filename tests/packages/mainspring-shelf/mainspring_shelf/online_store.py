"""The online port on SQLite: each call has a connection of its own, so that threads and forks share nothing."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mainspring_shelf.problems import closed, turned
from mainspring_shelf.settings import ShelfSettings

__all__ = ["ShelfStore", "open_store"]

_ORDER = 24
_PIECE = 500
_NEWER = (
    "insert into shelf values (?, ?) on conflict (key) do update set row = excluded.row "
    f"where substr(excluded.row, 1, {_ORDER}) > substr(shelf.row, 1, {_ORDER})"
)


class ShelfStore:
    """Rows in one table of a SQLite file."""

    def __init__(self, path: Path, patience: float) -> None:
        self._path = path
        self._patience = patience
        self._closed = False
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._open(write=True) as db:
            db.execute("create table if not exists shelf (key blob primary key, row blob not null) without rowid")

    @contextlib.contextmanager
    def _open(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        if self._closed:
            raise closed(self._path.name)
        try:
            with contextlib.closing(sqlite3.connect(self._path, self._patience, isolation_level=None)) as db:
                db.execute("begin immediate" if write else "begin")
                yield db
                db.execute("commit")
        except sqlite3.Error as error:
            raise turned(error, self._path.name) from error

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The rows of these keys, from one moment."""
        with self._open() as db:
            found = [db.execute("select row from shelf where key = ?", (key,)).fetchone() for key in keys]
        return [None if row is None else row[0] for row in found]

    def put_newer(self, rows: Iterable[tuple[bytes, bytes]]) -> int:
        """Write each row unless a newer one is there."""
        with self._open(write=True) as db:
            before = db.total_changes
            db.executemany(_NEWER, rows)
            return db.total_changes - before

    def swap(self, key: bytes, old: bytes | None, new: bytes) -> bool:
        """Write a row if the one there is still the old one."""
        with self._open(write=True) as db:
            there = db.execute("select row from shelf where key = ?", (key,)).fetchone()
            if (None if there is None else there[0]) != old:
                return False
            db.execute("replace into shelf values (?, ?)", (key, new))
            return True

    def delete(self, keys: Iterable[bytes]) -> None:
        """Remove rows."""
        with self._open(write=True) as db:
            db.executemany("delete from shelf where key = ?", [(key,) for key in keys])

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All rows whose key begins so, a piece at a time."""
        start = prefix
        while True:
            with self._open() as db:
                piece = db.execute(
                    "select key, row from shelf where key >= ? order by key limit ?", (start, _PIECE)
                ).fetchall()
            found = [(key, row) for key, row in piece if key.startswith(prefix)]
            yield from found
            if len(found) < _PIECE:
                return
            start = found[-1][0] + b"\0"

    def drop(self, prefix: bytes) -> int:
        """Remove all rows whose key begins so."""
        with self._open(write=True) as db:
            found = db.execute("delete from shelf where substr(key, 1, ?) = ?", (len(prefix), prefix))
            return found.rowcount

    def close(self) -> None:
        """Open no more connections."""
        self._closed = True


def open_store(settings: ShelfSettings, place: Path) -> ShelfStore:
    """The file that the settings name, or ``shelf.db`` in the state folder."""
    path = place / "shelf.db" if settings.url is None else Path("/" + settings.url.partition("://")[2].lstrip("/"))
    return ShelfStore(path, settings.patience)
