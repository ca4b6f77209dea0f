"""Responses that clients may come back to: the answer as it was sent, and the conversation up to it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from mainspring.ports.llm import Message

__all__ = ["Kept", "StoredResponses"]

_SCHEMA = """
create table if not exists response(
  id text primary key, tenant text not null, body blob not null, conversation blob not null, input blob not null,
  expires_s integer not null) without rowid;
create index if not exists response_expires on response(expires_s);
"""
_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder(tuple[Message, ...]).decode
_SWEEP = 256
"""Writes between two looks for what has expired."""


class Kept(msgspec.Struct, frozen=True):
    """A response that is kept.

    Attributes:
        id: its public id.
        tenant: whose it is; nobody else is told that it is there.
        body: its JSON.
        conversation: all turns up to it, its own answer included; without instructions.
        input: the items that were given for it, as JSON.
    """

    id: str
    tenant: str
    body: bytes
    conversation: tuple[Message, ...]
    input: bytes = b"[]"


class StoredResponses:
    """Responses by id, in a SQLite file that one thread writes and reads.

    A response can be read from the moment at which it was kept, while its row is still on its way to the disk.

    Args:
        path: the file, or None for memory alone.
        now_s: the clock, seconds since 1970.
        seconds: how long they are kept.
    """

    def __init__(self, path: Path | None, now_s: Callable[[], float], seconds: float = 30 * 86_400.0) -> None:
        self._path = path
        self._now_s = now_s
        self._seconds = seconds
        self._thread = ThreadPoolExecutor(1, "mainspring-llm-responses")
        self._pending: dict[str, Kept] = {}
        self._database: sqlite3.Connection | None = None
        self._writes = 0

    def put(self, kept: Kept) -> None:
        """Keep a response."""
        loop = asyncio.get_running_loop()
        self._pending[kept.id] = kept
        expires = int(self._now_s() + self._seconds)
        done = loop.run_in_executor(self._thread, self._write, kept, expires)
        done.add_done_callback(lambda _: self._written(kept))

    def _written(self, kept: Kept) -> None:
        if self._pending.get(kept.id) is kept:
            del self._pending[kept.id]

    async def get(self, id: str, tenant: str) -> Kept | None:
        """A tenant's response, or None: never kept, expired, deleted, or another's."""
        kept = self._pending.get(id)
        if kept is None:
            kept = await asyncio.get_running_loop().run_in_executor(self._thread, self._read, id)
        return kept if kept is not None and kept.tenant == tenant else None

    async def delete(self, id: str, tenant: str) -> bool:
        """Forget a response; whether it was there."""
        if await self.get(id, tenant) is None:
            return False
        self._pending.pop(id, None)
        await asyncio.get_running_loop().run_in_executor(self._thread, self._remove, id)
        return True

    def close(self) -> None:
        """Write what is on its way, and close the file."""
        self._thread.submit(self._close)
        self._thread.shutdown(wait=True)

    # -- in the thread -------------------------------------------------------------------------------------------------

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self._path or ":memory:", timeout=30.0, isolation_level=None)
            self._database.execute("pragma journal_mode = wal")
            self._database.execute("pragma synchronous = normal")
            self._database.executescript(_SCHEMA)
        return self._database

    def _write(self, kept: Kept, expires: int) -> None:
        database = self._opened()
        row = (kept.id, kept.tenant, kept.body, _ENCODE(kept.conversation), kept.input, expires)
        database.execute("insert or replace into response values (?, ?, ?, ?, ?, ?)", row)
        self._writes += 1
        if self._writes % _SWEEP == 0:
            database.execute("delete from response where expires_s <= ?", (int(self._now_s()),))

    def _read(self, id: str) -> Kept | None:
        found = self._opened().execute(
            "select tenant, body, conversation, input from response where id = ? and expires_s > ?",
            (id, int(self._now_s())),
        )
        row = found.fetchone()
        return None if row is None else Kept(id, row[0], row[1], _DECODE(row[2]), row[3])

    def _remove(self, id: str) -> None:
        self._opened().execute("delete from response where id = ?", (id,))

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
