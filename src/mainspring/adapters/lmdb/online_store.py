"""The online port on LMDB: readers never wait, one writer at a time over all processes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import lmdb

from mainspring.adapters.lmdb.problems import turned
from mainspring.adapters.lmdb.settings import LmdbSettings

__all__ = ["LmdbStore", "open_store"]

T = TypeVar("T")
_ORDER = 24


class LmdbStore:
    """Rows in one LMDB environment; a committed write survives kill -9 (``metasync`` off: not always a power loss).

    Args:
        folder: where the file is.
        map_size: bytes of address space at first.
    """

    def __init__(self, folder: Path, map_size: int) -> None:
        self._folder = folder
        self._size = map_size
        with self._turning():
            folder.mkdir(parents=True, exist_ok=True)
            self._open()

    def _open(self) -> None:
        found = self._folder / "data.mdb"
        size = max(self._size, found.stat().st_size * 2 if found.exists() else 0)
        self._env = lmdb.open(
            str(self._folder), map_size=size, metasync=False, max_readers=512, readahead=False, lock=True
        )
        self._env.reader_check()
        self._pid = os.getpid()

    @contextlib.contextmanager
    def _turning(self) -> Iterator[None]:
        try:
            yield
        except lmdb.Error as error:
            raise turned(error, self._folder.name) from error
        except OSError as error:
            raise turned(lmdb.Error(str(error)), self._folder.name) from error

    def _fresh(self) -> lmdb.Environment:
        if self._pid != os.getpid():  # an environment must not be used over a fork
            self._open()
        return self._env

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The rows of these keys, from one moment."""
        env = self._env if self._pid == os.getpid() else self._fresh()
        try:
            with env.begin() as transaction:
                if len(keys) == 1:  # the commonest read, without the list's own loop
                    return [transaction.get(keys[0])]
                return [transaction.get(key) for key in keys]
        except lmdb.MapResizedError:
            env.set_mapsize(0)
            return self.get_many(keys)
        except lmdb.Error as error:
            raise turned(error, self._folder.name) from error

    def put_newer(self, rows: Iterable[tuple[bytes, bytes]]) -> int:
        """Write each row unless a newer one is there."""
        batch = list(rows)

        def write(transaction: lmdb.Transaction) -> int:
            written = 0
            for key, row in batch:
                there = bytes(transaction.get(key) or b"")
                if row[:_ORDER] > there[:_ORDER]:
                    transaction.put(key, row)
                    written += 1
            return written

        return self._write(write)

    def swap(self, key: bytes, old: bytes | None, new: bytes) -> bool:
        """Write a row if the one there is still the old one."""

        def write(transaction: lmdb.Transaction) -> bool:
            there = transaction.get(key)
            return (None if there is None else bytes(there)) == old and bool(transaction.put(key, new))

        return self._write(write)

    def delete(self, keys: Iterable[bytes]) -> None:
        """Remove rows."""
        batch = list(keys)

        def write(transaction: lmdb.Transaction) -> None:
            for key in batch:
                transaction.delete(key)

        self._write(write)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All rows whose key begins so."""
        with self._turning(), self._fresh().begin() as transaction, transaction.cursor() as cursor:
            found = cursor.set_range(prefix) if prefix else cursor.first()
            while found and cursor.key().startswith(prefix):
                yield bytes(cursor.key()), bytes(cursor.value())
                found = cursor.next()

    def drop(self, prefix: bytes) -> int:
        """Remove all rows whose key begins so."""
        keys = [key for key, _ in self.scan(prefix)]
        self.delete(keys)
        return len(keys)

    def close(self) -> None:
        """Close the environment."""
        if self._pid == os.getpid():
            self._env.close()

    def _write(self, change: Callable[[lmdb.Transaction], T]) -> T:
        env = self._fresh()
        with self._turning():
            while True:
                try:
                    with env.begin(write=True) as transaction:
                        return change(transaction)
                except lmdb.MapFullError:
                    env.set_mapsize(env.info()["map_size"] * 2)
                except lmdb.MapResizedError:
                    env.set_mapsize(0)


def open_store(settings: LmdbSettings, place: Path) -> LmdbStore:
    """The store that the settings name, or ``online`` in the state folder.

    Raises:
        StoreError: MS-4140 not writable, MS-4141 damaged.
    """
    folder = place / "online" if settings.url is None else Path("/" + settings.url.partition("://")[2].lstrip("/"))
    return LmdbStore(folder, settings.map_size)
