"""A store whose indexes are folders that this process opens, and owns, at their first use."""

from __future__ import annotations

import os
import tarfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from mainspring.ports.vector_store import (
    Capabilities,
    Durability,
    Filter,
    Hits,
    Page,
    Point,
    Query,
    Schema,
    Stats,
    Where,
)
from mainspring.vectors.archive import unpack
from mainspring.vectors.checked import check_schema
from mainspring.vectors.faults import bad_snapshot, closed
from mainspring.vectors.folders import Folders

__all__ = ["EmbeddedStore", "OpenIndex"]


class OpenIndex(Protocol):
    """An index that this process has open; threads may share it."""

    pid: int

    def upsert(self, points: Sequence[Point], version: int | None) -> int:
        """Write points whole."""

    def set_payload(self, where: Where, patch: Mapping[str, object]) -> None:
        """Put keys into payloads."""

    def delete(self, where: Where) -> None:
        """Remove points."""

    def search(self, query: Query) -> Hits:
        """The best points."""

    def scroll(
        self, filter: Filter | None, cursor: str | None, limit: int, fields: tuple[str, ...] | None, vectors: bool
    ) -> Page:
        """A page of points."""

    def count(self, filter: Filter | None) -> int:
        """How many points fulfil the filter."""

    def flush(self) -> None:
        """Make what was written survive."""

    def optimize(self) -> None:
        """Build what makes searches fast."""

    def snapshot(self, file: Path) -> None:
        """Copy it into a file."""

    def stats(self) -> Stats:
        """How large it is."""

    def close(self) -> None:
        """Let go of it."""


class EmbeddedStore:
    """Indexes in a folder; threads may share a store, and a forked child asks its parent.

    A subclass says `_made` and `_open_index`.

    Args:
        place: the folder of the indexes.
        engine: whose data is in them, with the version of its format.
        capabilities: what it can do.
    """

    def __init__(self, place: Path, engine: str, capabilities: Capabilities) -> None:
        self._engine, self._capabilities = engine, capabilities
        self._folders = Folders(place, engine)
        self._lock = threading.Lock()
        self._open: dict[str, OpenIndex] = {}
        self._closed = False

    def _made(self, folder: Path, schema: Schema) -> None:
        """Make the engine's own data in the folder of a new index."""
        raise NotImplementedError

    def _open_index(self, folder: Path, schema: Schema) -> OpenIndex:
        """Open an index that no other process has open."""
        raise NotImplementedError

    def capabilities(self) -> Capabilities:
        """What it can do."""
        return self._capabilities

    def indexes(self) -> tuple[str, ...]:
        """The names of all indexes."""
        return self._folders.names()

    def create(self, index: str, schema: Schema) -> None:
        """Make an empty index."""
        check_schema(self._engine, schema, self._capabilities)
        with self._lock:
            if not self._folders.exists(index, schema):
                with self._folders.making(index, schema) as folder:
                    self._made(folder, schema)

    def schema(self, index: str) -> Schema:
        """The schema that an index was made with."""
        return msgspec.convert(self._folders.schema(self._folders.folder(index)), Schema)

    def drop(self, index: str) -> None:
        """Remove an index."""
        with self._lock:
            folder = self._folders.free_to_drop(index)
            if folder is not None:
                opened = self._open.pop(folder.name, None) or self._opened(folder)
                opened.close()
                self._folders.remove(folder)

    def upsert(self, index: str, points: Sequence[Point], version: int | None = None) -> int:
        """Write points whole."""
        return self._index(index).upsert(points, version)

    def set_payload(self, index: str, where: Where, patch: Mapping[str, object]) -> None:
        """Put keys into payloads."""
        self._index(index).set_payload(where, patch)

    def delete(self, index: str, where: Where) -> None:
        """Remove points."""
        self._index(index).delete(where)

    def search(self, index: str, query: Query) -> Hits:
        """The best points."""
        return self._index(index).search(query)

    def scroll(
        self,
        index: str,
        filter: Filter | None = None,
        cursor: str | None = None,
        limit: int = 1000,
        *,
        fields: tuple[str, ...] | None = None,
        vectors: bool = False,
    ) -> Page:
        """A page of points."""
        return self._index(index).scroll(filter, cursor, limit, fields, vectors)

    def count(self, index: str, filter: Filter | None = None) -> int:
        """How many points fulfil the filter."""
        return self._index(index).count(filter)

    def flush(self, index: str) -> Durability:
        """Make what was written survive."""
        self._index(index).flush()
        return self._capabilities.durability

    def optimize(self, index: str) -> None:
        """Build what makes searches fast."""
        self._index(index).optimize()

    def snapshot(self, index: str, file: Path) -> None:
        """Copy an index into a file."""
        self._index(index).snapshot(file)

    def restore(self, index: str, file: Path) -> None:
        """Make an index of a snapshot."""
        with self._folders.restoring(index) as folder:
            try:
                unpack(file, folder)
            except (tarfile.TarError, OSError) as error:
                raise bad_snapshot(str(error)) from error

    def alias(self, name: str, index: str) -> None:
        """Let a name lead to an index."""
        self._folders.alias(name, index)

    def aliases(self) -> Mapping[str, str]:
        """The index that each alias leads to."""
        return self._folders.aliases()

    def stats(self, index: str) -> Stats:
        """How large an index is."""
        return self._index(index).stats()

    def rows_open(self) -> int:
        """Rows of the indexes that this process has open."""
        return sum(opened.count(None) for opened in list(self._open.values()))

    def close(self) -> None:
        """Close every index."""
        with self._lock:
            self._closed = True
            for opened in self._open.values():
                opened.close()
            self._open.clear()

    def _index(self, name: str) -> OpenIndex:
        opened = self._open.get(name)  # no alias has the name of an index, so there is nothing to look up
        if opened is None:
            opened = self._open.get(self._folders.aliases().get(name, name))
        if opened is not None and opened.pid == os.getpid():
            return opened
        folder = self._folders.folder(name)
        with self._lock:
            opened = self._open.get(folder.name)
            if opened is None or opened.pid != os.getpid():
                opened = self._open[folder.name] = self._opened(folder)
            return opened

    def _opened(self, folder: Path) -> OpenIndex:
        if self._closed:
            raise closed(folder.name)
        return self._open_index(folder, msgspec.convert(self._folders.schema(folder), Schema))
