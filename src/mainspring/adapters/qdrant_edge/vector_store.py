"""The vectors port on Qdrant's embedded engine: a folder an index, one owner process each."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mainspring.adapters.qdrant_edge.index import EdgeIndex, made_shard
from mainspring.adapters.qdrant_edge.settings import QdrantEdgeSettings
from mainspring.lazy import lazy
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
from mainspring.vectors.checked import between
from mainspring.vectors.faults import bad_snapshot, closed, schema_beyond
from mainspring.vectors.folders import Folders

if TYPE_CHECKING:
    import tarfile

    import qdrant_edge as edge
else:
    edge = lazy("qdrant_edge")
    tarfile = lazy("tarfile")

__all__ = ["QdrantEdgeStore", "open_store"]

_CAPABILITIES = Capabilities(
    metrics=("cosine", "dot"),
    max_dims=65_536,
    quantisation=("int8",),
    sparse=True,
    full_text="bm25",
)


class QdrantEdgeStore:
    """Indexes in a folder; threads may share a store, and a forked child asks its parent.

    Args:
        place: the folder of the indexes.
        settings: how much of the machine it may use.
    """

    def __init__(self, place: Path, settings: QdrantEdgeSettings) -> None:
        self._folders = Folders(place, "qdrant-edge 0.9")
        self._settings = settings
        self._lock = threading.Lock()
        self._open: dict[str, EdgeIndex] = {}
        self._closed = False

    def capabilities(self) -> Capabilities:
        """What it can do."""
        return _CAPABILITIES

    def indexes(self) -> tuple[str, ...]:
        """The names of all indexes."""
        return self._folders.names()

    def create(self, index: str, schema: Schema) -> None:
        """Make an empty index."""
        between("dims", schema.dims, 1, _CAPABILITIES.max_dims)
        with self._lock:
            if not self._folders.exists(index, schema):
                _check_language(schema)
                with self._folders.making(index, schema) as folder:
                    made_shard(folder, schema, self._settings)

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
        return _CAPABILITIES.durability

    def optimize(self, index: str) -> None:
        """Build the graph, apart from searches and writes."""
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

    def _index(self, name: str) -> EdgeIndex:
        index = self._folders.aliases().get(name, name)
        opened = self._open.get(index)
        if opened is not None and opened.pid == os.getpid():
            return opened
        folder = self._folders.folder(name)
        with self._lock:
            opened = self._open.get(folder.name)
            if opened is None or opened.pid != os.getpid():
                opened = self._open[folder.name] = self._opened(folder)
            return opened

    def _opened(self, folder: Path) -> EdgeIndex:
        if self._closed:
            raise closed(folder.name)
        return EdgeIndex(folder, msgspec.convert(self._folders.schema(folder), Schema), self._settings)


def _check_language(schema: Schema) -> None:
    if schema.text and schema.language:
        try:
            edge.Bm25(edge.Bm25Config(language=schema.language))
        except ValueError as error:
            raise schema_beyond("qdrant_edge", f"it has no stop words and stemmer for {schema.language}") from error


def open_store(settings: QdrantEdgeSettings, place: Path) -> QdrantEdgeStore:
    """The store in ``indexes`` of the state folder; each index is opened, and owned, at its first use.

    Raises:
        StoreError: MS-4182 and MS-4183, at the first use of an index.
    """
    return QdrantEdgeStore(place / "indexes", settings)
