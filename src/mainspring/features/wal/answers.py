"""The answers of the last day's requests, for those that come again after their rows have left the log."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from mainspring.features.wal.frames import Entry

__all__ = ["DAY_US", "Answers"]

DAY_US = 86_400_000_000
"""For how long a repeated request gets its first answer, in microseconds."""

_NAME = "answers.db"
_TABLE = "create table if not exists answers (request text primary key, at_us int, entry blob) without rowid"
_pack = msgspec.msgpack.Encoder().encode
_entry = msgspec.msgpack.Decoder(Entry).decode


class Answers:
    """The answers beside a write-ahead log, by the request's id; several processes may use them.

    Args:
        folder: the log's.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _NAME
        self._opened: sqlite3.Connection | None = None

    def find(self, request: str, since_us: int) -> Entry | None:
        """The entry of a request, unless it is older than a moment."""
        if self._opened is None and not self._path.exists():
            return None
        found = self._connected().execute(
            "select entry from answers where request = ? and at_us >= ?", (request, since_us)
        )
        row = found.fetchone()
        return None if row is None else _entry(row[0])

    def keep(self, entries: Sequence[Entry], since_us: int) -> None:
        """Keep the entries of requests, durably; forget those older than a moment."""
        rows = [(entry.request, entry.at_us, _pack(entry)) for entry in entries if entry.request is not None]
        if not rows and not self._path.exists():
            return
        with self._connected() as opened:
            opened.executemany("insert or replace into answers values (?, ?, ?)", rows)
            opened.execute("delete from answers where at_us < ?", (since_us,))

    def close(self) -> None:
        """Close the file."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _connected(self) -> sqlite3.Connection:
        if self._opened is None:
            self._opened = sqlite3.connect(self._path, timeout=10.0, check_same_thread=False)
            self._opened.execute("pragma journal_mode = wal")
            self._opened.execute("pragma synchronous = full")
            self._opened.execute(_TABLE)
            self._opened.execute("create index if not exists answers_at on answers (at_us)")
        return self._opened
