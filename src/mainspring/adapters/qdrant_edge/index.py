"""One index in Qdrant's embedded engine: its shard, its owner, and the change to a better shard while it is used."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from mainspring.adapters.qdrant_edge.filters import having, key_of, native, shadow_of
from mainspring.adapters.qdrant_edge.legs import EdgeLegs
from mainspring.adapters.qdrant_edge.optimizing import optimized_apart
from mainspring.adapters.qdrant_edge.payloads import REST, Payloads, patched
from mainspring.adapters.qdrant_edge.problems import LITTLE, check_room, turned
from mainspring.adapters.qdrant_edge.settings import QdrantEdgeSettings
from mainspring.lazy import lazy
from mainspring.ports.vector_store import (
    Filter,
    Hits,
    Page,
    Point,
    Query,
    Schema,
    Stats,
    Stored,
    Where,
    check_filter,
)
from mainspring.vectors.archive import allocated, copy_folder, pack
from mainspring.vectors.checked import (
    MOST,
    between,
    patch_of,
    payload_of,
    point_id,
    sparse_of,
    vectors_of,
)
from mainspring.vectors.faults import bad_snapshot, closed, not_pushed_down
from mainspring.vectors.folders import Owner, replace_file
from mainspring.vectors.searching import find

if TYPE_CHECKING:
    import numpy as np
    import qdrant_edge as edge

    Vectors = dict[str, list[float] | edge.SparseVector | list[list[float]]]
    Kind = edge.KeywordIndexParams | edge.IntegerIndexParams | edge.FloatIndexParams | edge.BoolIndexParams
else:
    edge = lazy("qdrant_edge")
    np = lazy("numpy")

__all__ = ["EdgeIndex", "made_shard"]

_VERSION = "_version"
_BATCH = 1_000
_KEYS = 1_000
"""Bytes that a payload has beside its text."""
_CURRENT = "current"
_FILTERS, _WRITTEN = 256, 2_000
"""Filters that are kept ready, and how long one of them may be, written out."""
_BUILD = 3
"""What building the graph takes in sizes of the shard: its copy, what is made of that, and some."""
_SMALL = 2_000_000
"""Bytes of vectors whose graph is built in a moment, here."""


def made_shard(folder: Path, schema: Schema, settings: QdrantEdgeSettings) -> None:
    """Make the empty shard of a new index."""
    vectors = {"dense": edge.EdgeVectorParams(schema.dims, edge.Distance.Dot)}
    words = edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)
    sparse = ({"text": words} if schema.text else {}) | (
        {"sparse": edge.EdgeSparseVectorParams()} if schema.sparse else {}
    )
    quantised = edge.ScalarQuantizationConfig(edge.ScalarType.Int8, memory=edge.Memory.Pinned)
    config = edge.EdgeConfig(
        vectors=vectors,
        sparse_vectors=sparse,
        hnsw_config=edge.HnswIndexConfig(
            settings.m, settings.ef_construct, 1_000, max_indexing_threads=settings.build_threads
        ),
        quantization_config=quantised if schema.quantised else None,
        optimizers=edge.EdgeOptimizersConfig(
            default_segment_number=1, max_segment_size=1 << 30, indexing_threshold=_SMALL // 1_000
        ),
        max_search_threads=settings.search_threads or None,
    )
    check_room(folder, 0)
    first = folder / "shard-1"
    first.mkdir()
    try:
        shard = edge.EdgeShard.create(str(first), config)
        for name, kind in _indexed(schema):
            shard.update(edge.UpdateOperation.create_field_index(key_of(name), kind))
        shard.flush()
        shard.close()
    except Exception as error:
        raise turned(error, folder.name) from error
    replace_file(folder / _CURRENT, first.name.encode())


def _indexed(schema: Schema) -> Iterator[tuple[str, Kind]]:
    """The keys of the payload that are indexed, and how."""
    words, whole = edge.KeywordIndexParams(), edge.IntegerIndexParams(lookup=True, range=True)
    kinds: dict[str, Kind] = {
        "string": words,
        "strings": words,
        "integer": whole,
        "integers": whole,
        "number": edge.FloatIndexParams(),
        "boolean": edge.BoolIndexParams(),
    }
    for field in schema.fields:
        yield field.name, kinds[field.type]
        if field.type == "boolean":
            yield shadow_of(field.name), words


class _Shard:
    """An open shard; its last user closes it, and takes its folder away where another one has followed it."""

    __slots__ = ("__weakref__", "engine", "folder", "release")

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        try:
            self.engine = edge.EdgeShard.load(str(folder))
        except Exception as error:
            raise turned(error, name) from error
        self.release = weakref.finalize(self, _released, self.engine, None)

    def superseded(self) -> None:
        """Its folder goes with its last user."""
        self.release.detach()
        self.release = weakref.finalize(self, _released, self.engine, self.folder)


def _released(engine: edge.EdgeShard, folder: Path | None) -> None:
    with contextlib.suppress(Exception):
        engine.close()
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


class EdgeIndex:
    """An index that this process owns; threads may share it.

    Args:
        folder: the index's.
        schema: what it was made with.
        settings: how much of the machine it may use.

    Raises:
        StoreError: MS-4182, another process owns it; MS-4183, it cannot be read; MS-4101, the disk is full.
    """

    def __init__(self, folder: Path, schema: Schema, settings: QdrantEdgeSettings) -> None:
        self.name, self.schema = folder.name, schema
        self.pid = os.getpid()
        self._folder, self._settings, self._types = folder, settings, schema.types
        self._payloads = Payloads(schema.types, (_VERSION,))
        check_room(folder, 0, LITTLE)
        self._owner = Owner(folder)
        self._writing = threading.RLock()
        self._optimizing = threading.Lock()
        self._filters: dict[str, edge.Filter] = {}
        self._touched: set[str] | None = None
        self._changed = True
        self._closed = False
        language = {"language": schema.language} if schema.language else {"stopwords": edge.StopwordsSet()}
        self._words = edge.Bm25(edge.Bm25Config(avg_len=schema.words, **language)) if schema.text else None
        try:
            current = (folder / _CURRENT).read_text("ascii")
            for old in folder.glob("shard-*"):
                if old.name != current:
                    shutil.rmtree(old, ignore_errors=True)
            self._shard: _Shard = _Shard(folder / current, self.name)
        except BaseException as error:
            self._owner.release()
            if isinstance(error, Exception):
                raise turned(error, self.name) from error
            raise

    # -- writing ----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _write(self) -> Iterator[edge.EdgeShard]:
        with self._writing:
            if self._closed:
                raise closed(self.name)
            self._changed = True
            try:
                yield self._shard.engine
            except Exception as error:
                raise turned(error, self.name) from error

    def upsert(self, points: Sequence[Point], version: int | None) -> int:
        """Write points whole, but not over those of a greater version."""
        distinct = {point_id(point.id): point for point in points}
        vectors = vectors_of(
            [p.vector for p in distinct.values()], self.schema.dims, unit=self.schema.metric == "cosine"
        )
        ready = [
            edge.Point(id, self._vectors(point, vector.tolist()), self._payload(point, version))
            for (id, point), vector in zip(distinct.items(), vectors, strict=True)
        ]
        given = list(distinct.values())
        written = 0
        for start in range(0, len(ready), _BATCH):
            batch = ready[start : start + _BATCH]
            texts = sum(len(point.text or "") for point in given[start : start + _BATCH])
            check_room(self._folder, len(batch) * (self.schema.dims * 4 + _KEYS) + 4 * texts)
            with self._write() as shard:
                if version is not None:
                    newer = _newer(shard, [str(point.id) for point in batch], version)
                    batch = [point for point in batch if str(point.id) not in newer]
                if batch:
                    shard.update(edge.UpdateOperation.upsert_points(batch))
                    self._touch(str(point.id) for point in batch)
            written += len(batch)
        return written

    def _vectors(self, point: Point, vector: list[float]) -> Vectors:
        # The binding reads a list twice as fast as an array.
        found: Vectors = {"dense": vector}
        if self._words is not None and point.text:
            found["text"] = self._words.embed_document(point.text)
        if point.sparse is not None:
            if not self.schema.sparse:
                raise not_pushed_down(f"the index {self.name!r}", "sparse vectors")
            found["sparse"] = edge.SparseVector(*sparse_of(point.sparse.indices, point.sparse.values))
        return found

    def _payload(self, point: Point, version: int | None) -> dict[str, object]:
        stored = self._payloads.stored(payload_of(point.payload, self._types))
        if version is not None:
            between("version", version, 0, (1 << 53) - 1)
            stored[_VERSION] = version
        return stored

    def set_payload(self, where: Where, patch: Mapping[str, object]) -> None:
        """Put keys into payloads, and take keys out."""
        put, gone = patch_of(patch, self._types)
        fields, rest = self._payloads.parted(put)
        chosen = self._chosen(where)
        with self._write() as shard:
            if not (put or gone):
                return
            known = gone or rest or self._touched is not None
            texts = dict(self._rests(shard, chosen)) if known else {}
            check_room(self._folder, len(msgspec.json.encode(put)) * len(texts), LITTLE)
            self._touch(texts)
            if gone or rest:
                # By id where the filter reads what changes: the next step must find the same points.
                chosen = having(list(texts))
                _rewritten(shard, texts, rest, tuple(key for key in gone if key not in self._types))
            if gone:
                keys = [key_of(name) for key in gone for name in (key, shadow_of(key))]
                shard.update(edge.UpdateOperation.delete_payload_by_filter(chosen, keys))
            if fields:
                shard.update(edge.UpdateOperation.set_payload_by_filter(chosen, fields))

    def delete(self, where: Where) -> None:
        """Remove points."""
        chosen = self._chosen(where)
        with self._write() as shard:
            check_room(self._folder, 0, LITTLE)
            if self._touched is not None:
                self._touch(id for id, _ in self._rests(shard, chosen))
            shard.update(edge.UpdateOperation.delete_points_by_filter(chosen))

    def _chosen(self, where: Where) -> edge.Filter:
        if isinstance(where, (list, tuple, set, frozenset)):
            return having([point_id(id) for id in where])
        return native(check_filter(cast(Filter, where), self._types))

    def _touch(self, ids: Iterable[str]) -> None:
        if self._touched is not None:
            self._touched.update(ids)

    @staticmethod
    def _rests(shard: edge.EdgeShard, chosen: edge.Filter) -> Iterator[tuple[str, object]]:
        """Points by their ids, with the text of what filters may not name."""
        cursor = None
        while True:
            request = edge.ScrollRequest(
                offset=cursor, limit=MOST, filter=chosen, with_payload=[key_of(REST)], with_vector=False
            )
            records, cursor = shard.scroll(request)
            yield from ((str(record.id), (record.payload or {}).get(REST)) for record in records)
            if cursor is None:
                return

    def _native(self, filter: Filter | None) -> edge.Filter | None:
        """The filter in the engine's terms; a caller's rights are the same in every search, and made once."""
        if filter is None:
            return None
        written = repr(filter)  # not its hash: to that, true and 1 are one
        found = self._filters.get(written)
        if found is None:
            found = native(check_filter(filter, self._types))
            if len(written) <= _WRITTEN:
                if len(self._filters) >= _FILTERS:
                    self._filters.clear()
                self._filters[written] = found
        return found

    # -- reading ----------------------------------------------------------------------------------------------------

    def search(self, query: Query) -> Hits:
        """The best points, by one leg or by several."""
        chosen = self._native(query.filter)
        shard = self._shard  # the holder: its shard stays open for as long as this search
        legs = EdgeLegs(shard.engine, self.schema, self._words, query, chosen, self._payloads)
        try:
            return find(query, legs)
        except Exception as error:
            raise turned(error, self.name) from error

    def scroll(
        self, filter: Filter | None, cursor: str | None, limit: int, fields: tuple[str, ...] | None, vectors: bool
    ) -> Page:
        """A page of points."""
        between("limit", limit, 1, MOST)
        request = edge.ScrollRequest(
            offset=None if cursor is None else point_id(cursor),
            limit=limit,
            filter=self._native(filter),
            with_payload=self._payloads.wanted(fields),
            with_vector=["dense"] if vectors else False,
        )
        shard = self._shard
        try:
            records, following = shard.engine.scroll(request)
        except Exception as error:
            raise turned(error, self.name) from error
        given = self._payloads.given
        points = tuple(
            Stored(str(r.id), given(r.payload, fields), _dense(r.vector) if vectors else None) for r in records
        )
        return Page(points, None if following is None else str(following))

    def count(self, filter: Filter | None) -> int:
        """How many points fulfil the filter."""
        chosen = self._native(filter)
        shard = self._shard
        try:
            return shard.engine.count(edge.CountRequest(True, chosen))
        except Exception as error:
            raise turned(error, self.name) from error

    def stats(self) -> Stats:
        """How large it is."""
        shard = self._shard
        try:
            info = shard.engine.info()
            sparse = sum(
                shard.engine.count(edge.CountRequest(True, edge.Filter(must=[edge.HasVectorCondition(name)])))
                for name, there in (("text", self.schema.text), ("sparse", self.schema.sparse))
                if there
            )
            rows = shard.engine.count(edge.CountRequest(True))
        except Exception as error:
            raise turned(error, self.name) from error
        indexed = min(rows, max(0, info.indexed_vectors_count - sparse))
        return Stats(rows, rows - indexed, allocated(self._folder))

    # -- keeping ----------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Make what was written survive the process.

        The engine holds the interpreter while it flushes, so the disk is made to take the bulk before.
        """
        for path in self._shard.folder.rglob("*"):
            with contextlib.suppress(OSError):
                if path.is_file():
                    _sync(path)
        with self._write() as shard:
            shard.flush()

    def snapshot(self, file: Path) -> None:
        """Copy the index into a file, as of now; writes wait."""
        with self._write() as shard:
            shard.flush()
            try:
                pack(self._folder, file, ("index.json", _CURRENT, self._shard.folder.name))
            except OSError as error:
                raise bad_snapshot(str(error)) from error

    def optimize(self) -> None:
        """Build the graph of a copy, bring the copy up to date, and go over to it; searches and writes go on."""
        with self._optimizing:
            if not self._changed:
                return
            check_room(self._folder, 0, _BUILD * allocated(self._shard.folder))
            if self.count(None) * self.schema.dims * 4 < _SMALL:
                with self._write() as shard:
                    shard.optimize()
                    self._changed = False
                return
            try:
                self._rebuilt()
            except BaseException:
                self._changed = True
                raise
            finally:
                self._touched = None

    def _rebuilt(self) -> None:
        old = self._shard
        better = old.folder.with_name(f"shard-{int(old.folder.name.partition('-')[2]) + 1}")
        shutil.rmtree(better, ignore_errors=True)
        self.flush()
        try:
            with self._write() as shard:
                shard.flush()
                copy_folder(old.folder, better)
                self._touched, self._changed = set(), False
            optimized_apart(better, self.name, self._settings.build_timeout)
        except BaseException:
            shutil.rmtree(better, ignore_errors=True)  # a full disk would stay full
            raise
        new = _Shard(better, self.name)
        with self._write() as shard:
            changed = self._touched or set()
            _brought_over(shard, new.engine, sorted(changed))
            new.engine.flush()
            replace_file(self._folder / _CURRENT, better.name.encode())
            self._shard, self._changed = new, bool(changed)
        old.superseded()

    def close(self) -> None:
        """Let go of it."""
        with self._writing:
            if not self._closed:
                self._closed = True
                if self.pid == os.getpid():
                    with contextlib.suppress(Exception):
                        self._shard.engine.flush()
                    self._shard.release()
                self._owner.release()


def _newer(shard: edge.EdgeShard, ids: list[str], version: int) -> set[str]:
    there = shard.retrieve(cast("list[object]", ids), [key_of(_VERSION)], False)  # type: ignore[arg-type]
    return {str(record.id) for record in there if (record.payload or {}).get(_VERSION, -1) > version}


def _rewritten(
    shard: edge.EdgeShard, texts: Mapping[str, object], put: Mapping[str, object], gone: tuple[str, ...]
) -> None:
    """Change what filters may not name of points; those that it leaves as they are, are not written."""
    by_text: dict[str, list[str]] = {}
    for id, text in texts.items():
        if (changed := patched(text, put, gone)) is not None:
            by_text.setdefault(changed, []).append(id)
    for text, ids in by_text.items():
        shard.update(edge.UpdateOperation.set_payload(cast("list[object]", ids), {REST: text}))  # type: ignore[arg-type]


def _brought_over(old: edge.EdgeShard, new: edge.EdgeShard, ids: list[str]) -> None:
    """Make points in one shard what they are in another."""
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        there = old.retrieve(cast("list[object]", batch), True, True)  # type: ignore[arg-type]
        found = {str(record.id) for record in there}
        gone = [id for id in batch if id not in found]
        if gone:
            new.update(edge.UpdateOperation.delete_points_by_filter(having(gone)))
        if there:
            points = [edge.Point(record.id, cast("Vectors", record.vector), record.payload) for record in there]
            new.update(edge.UpdateOperation.upsert_points(points))


def _dense(vector: object) -> np.ndarray:
    return np.asarray(cast("Mapping[str, object]", vector)["dense"], dtype=np.float32)


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
