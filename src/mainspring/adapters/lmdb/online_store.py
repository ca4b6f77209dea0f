"""The online port on LMDB: readers never wait, one writer at a time over all processes."""

from __future__ import annotations

import contextlib
import functools
import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import lmdb

from mainspring.adapters.lmdb.environments import Shared, acquire, release
from mainspring.adapters.lmdb.problems import turned
from mainspring.adapters.lmdb.settings import LmdbSettings

__all__ = ["LmdbStore", "open_store"]

T = TypeVar("T")
_ORDER = 24
_PIECE = 1 << 20
_NOBODY = -1
"""No process has this number."""
_PASSING = (lmdb.MapResizedError, lmdb.InvalidParameterError, lmdb.BadRslotError)
"""What a reader meets while a thread changes the map (or a plain `lmdb.Error`), or after a child of a fork began."""


class LmdbStore:
    """Rows in one LMDB environment; a committed write survives kill -9 (``metasync`` off: not always a power loss).

    Threads may share a store, several stores of a process may be on one folder, and a forked child opens its own.

    Args:
        folder: where the file is.
        map_size: bytes of address space at first.
    """

    def __init__(self, folder: Path, map_size: int) -> None:
        self._folder = folder
        self._size = map_size
        self._open()

    def _open(self) -> None:
        with self._turning():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._shared = acquire(self._folder, self._size)
        self._env = self._shared.env
        self._release = weakref.finalize(self, release, self._shared)

    @contextlib.contextmanager
    def _turning(self) -> Iterator[None]:
        try:
            yield
        except lmdb.Error as error:
            raise turned(error, self._folder.name) from error
        except OSError as error:
            raise turned(lmdb.Error(str(error)), self._folder.name) from error

    def _fresh(self) -> lmdb.Environment:
        """The environment, opened anew after a fork; for all but the commonest read."""
        shared = self._shared
        if not self._release.alive:
            raise turned(lmdb.Error("it was closed"), self._folder.name)
        if shared.owner != os.getpid():
            self._open()
        elif not shared.usable:
            with shared.writing:
                pass
        return self._env

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """The rows of these keys, from one moment."""
        env = self._env if self._shared.usable else self._fresh()
        try:
            with env.begin() as transaction:
                if len(keys) == 1:  # the commonest read, without the list's own loop
                    return [transaction.get(keys[0])]
                return [transaction.get(key) for key in keys]
        except lmdb.Error as error:
            return self._again(error, functools.partial(_rows_of, keys))

    def _again(self, error: lmdb.Error, read: Callable[[lmdb.Transaction], T]) -> T:
        """Read once more if only the map has changed, by another process or by a thread of this one."""
        if not isinstance(error, _PASSING) and type(error) is not lmdb.Error:
            raise turned(error, self._folder.name) from error
        with self._turning(), self._shared.writing:  # nobody of this process changes the map now
            while True:
                try:
                    with self._env.begin() as transaction:
                        return read(transaction)
                except lmdb.MapResizedError:
                    self._shared.resize(0)

    def put_newer(self, rows: Iterable[tuple[bytes, bytes]]) -> int:
        """Write each row unless a newer one is there."""
        batch = sorted(rows)  # neighbours lie on one page

        def write(transaction: lmdb.Transaction) -> int:
            with transaction.cursor() as cursor:
                consumed, written = cursor.putmulti(batch, overwrite=False)
            if written == consumed:  # none of them was there
                return written
            for key, row in batch:
                there = transaction.get(key)
                if there is None or row[:_ORDER] > bytes(there[:_ORDER]):
                    transaction.put(key, row)
                    written += 1
            return written

        return self._write(write) if batch else 0

    def swap(self, key: bytes, old: bytes | None, new: bytes) -> bool:
        """Write a row if the one there is still the old one."""
        return self._write(lambda transaction: transaction.get(key) == old and bool(transaction.put(key, new)))

    def delete(self, keys: Iterable[bytes]) -> None:
        """Remove rows."""
        batch = list(keys)

        def write(transaction: lmdb.Transaction) -> None:
            for key in batch:
                transaction.delete(key)

        self._write(write)

    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All rows whose key begins so.

        Each piece is read at a moment of its own: a reader that stays would keep old pages alive, and stop the map
        from growing.
        """
        start = prefix
        while True:
            piece = self._piece(prefix, start)
            yield from piece
            if not piece:
                return
            start = piece[-1][0] + b"\0"

    def _piece(self, prefix: bytes, start: bytes) -> list[tuple[bytes, bytes]]:
        env = self._fresh()
        try:
            with env.begin() as transaction:
                return _piece_of(prefix, start, transaction)
        except lmdb.Error as error:
            return self._again(error, functools.partial(_piece_of, prefix, start))

    def drop(self, prefix: bytes) -> int:
        """Remove all rows whose key begins so."""

        def write(transaction: lmdb.Transaction) -> int:
            dropped = 0
            with transaction.cursor() as cursor:
                more = cursor.set_range(prefix) if prefix else cursor.first()
                while more and bytes(cursor.key()).startswith(prefix):
                    more = cursor.delete() and bool(cursor.key())  # it is on the next now, if there is one
                    dropped += 1
            return dropped

        return self._write(write)

    def close(self) -> None:
        """Close the environment."""
        if self._release.alive:
            self._release()
            self._shared = Shared(self._env, _NOBODY, usable=False)

    def _write(self, change: Callable[[lmdb.Transaction], T]) -> T:
        env = self._fresh()
        shared = self._shared
        with self._turning(), shared.writing:
            while True:
                try:
                    return self._written(change)
                except lmdb.MapFullError:
                    if not env.reader_check():  # readers that were killed keep old pages
                        shared.resize(env.info()["map_size"] * 2)
                except lmdb.MapResizedError:
                    shared.resize(0)

    def _written(self, change: Callable[[lmdb.Transaction], T]) -> T:
        transaction = self._env.begin(write=True)
        try:
            result = change(transaction)
            transaction.commit()
        except BaseException:
            with self._shared.quiet():
                transaction.abort()
            raise
        return result


def _rows_of(keys: Sequence[bytes], transaction: lmdb.Transaction) -> list[bytes | None]:
    return [None if (row := transaction.get(key)) is None else bytes(row) for key in keys]


def _piece_of(prefix: bytes, start: bytes, transaction: lmdb.Transaction) -> list[tuple[bytes, bytes]]:
    found: list[tuple[bytes, bytes]] = []
    size = 0
    with transaction.cursor() as cursor:
        more = cursor.set_range(start) if start else cursor.first()
        while more and size < _PIECE and (key := bytes(cursor.key())).startswith(prefix):
            found.append((key, bytes(cursor.value())))
            size += len(found[-1][1]) + _ORDER
            more = cursor.next()
    return found


def open_store(settings: LmdbSettings, place: Path) -> LmdbStore:
    """The store that the settings name, or ``online`` in the state folder.

    Raises:
        StoreError: MS-4140 not writable, MS-4141 damaged.
    """
    folder = place / "online" if settings.url is None else Path("/" + settings.url.partition("://")[2].lstrip("/"))
    return LmdbStore(folder, settings.map_size)
