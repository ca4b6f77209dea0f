"""One index in zvec: its collection and its owner."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from mainspring.adapters.zvec.filters import ALWAYS, NEVER, columns_of, native, values_of
from mainspring.adapters.zvec.legs import ZvecLegs, shown
from mainspring.adapters.zvec.problems import failed, turned
from mainspring.adapters.zvec.settings import ZvecSettings
from mainspring.lazy import lazy
from mainspring.ports.vector_store import (
    Field,
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
from mainspring.vectors.archive import allocated, pack
from mainspring.vectors.checked import MOST, between, patch_of, payload_of, point_id, vectors_of
from mainspring.vectors.faults import bad_snapshot, closed, not_pushed_down
from mainspring.vectors.folders import Owner
from mainspring.vectors.searching import find

if TYPE_CHECKING:
    import numpy as np
    import zvec
else:
    np = lazy("numpy")
    zvec = lazy("zvec")

__all__ = ["ZvecIndex", "made_collection"]

_DATA, _BATCH, _WINDOW = "data", 500, 20_000
_SPACE = 1 << 52
"""Where a row is in the order of ids: the first 52 bits of its id."""


def made_collection(folder: Path, schema: Schema, settings: ZvecSettings) -> None:
    """Make the empty collection of a new index."""
    kinds = zvec.DataType
    whole = zvec.FieldSchema("at", kinds.INT64, index_param=zvec.InvertIndexParam(enable_range_optimization=True))
    fields = [whole, zvec.FieldSchema("version", kinds.INT64, nullable=True)]
    fields += [zvec.FieldSchema("payload", kinds.STRING)]
    fields += [_column(field, name) for field, name in zip(schema.fields, columns_of(schema).values(), strict=True)]
    if schema.text:
        stemmed = f'{{"stemmer_lang":"{schema.language}"}}'
        words = zvec.FtsIndexParam("standard", ["lowercase", "stemmer"], stemmed)
        words = words if schema.language else zvec.FtsIndexParam()
        fields.append(zvec.FieldSchema("text", kinds.STRING, nullable=True, index_param=words))
    graph = zvec.HnswIndexParam(
        metric_type=zvec.MetricType.IP,
        m=settings.m,
        ef_construction=settings.ef_construct,
        quantize_type=zvec.QuantizeType.INT8 if schema.quantised else zvec.QuantizeType.UNDEFINED,
    )
    vectors = [zvec.VectorSchema("dense", kinds.VECTOR_FP32, schema.dims, graph)]
    try:
        made = zvec.create_and_open(str(folder / _DATA), zvec.CollectionSchema("index", fields, vectors))
        made.flush()
        made.close()
    except Exception as error:
        raise turned(error, folder.name) from error


def _column(field: Field, name: str) -> zvec.FieldSchema:
    kinds = zvec.DataType
    types = {
        "string": kinds.STRING,
        "strings": kinds.ARRAY_STRING,
        "integer": kinds.INT64,
        "integers": kinds.ARRAY_INT64,
        "number": kinds.DOUBLE,
        "boolean": kinds.BOOL,
    }
    ranges = field.type in ("integer", "number")
    indexed = zvec.InvertIndexParam(enable_range_optimization=ranges)
    return zvec.FieldSchema(name, types[field.type], nullable=True, index_param=indexed)


class ZvecIndex:
    """An index that this process owns; threads may share it.

    Args:
        folder: the index's.
        schema: what it was made with.

    Raises:
        StoreError: MS-4182, another process owns it; MS-4183, it cannot be read.
    """

    def __init__(self, folder: Path, schema: Schema) -> None:
        self.name, self.schema = folder.name, schema
        self.pid = os.getpid()
        self._folder, self._types, self._columns = folder, schema.types, columns_of(schema)
        self._owner = Owner(folder)
        self._writing = threading.RLock()
        self._optimizing = threading.Lock()
        self._closed = False
        try:
            self._collection = zvec.open(str(folder / _DATA))
        except Exception as error:
            self._owner.release()
            raise turned(error, self.name) from error

    @contextlib.contextmanager
    def _using(self) -> Iterator[zvec.Collection]:
        if self._closed:
            raise closed(self.name)
        try:
            yield self._collection
        except Exception as error:
            raise turned(error, self.name) from error

    # -- writing ------------------------------------------------------------------------------------------------------

    def upsert(self, points: Sequence[Point], version: int | None) -> int:
        """Write points whole, but not over those of a greater version."""
        distinct = {point_id(point.id): point for point in points}
        unit = self.schema.metric == "cosine"
        vectors = vectors_of([point.vector for point in distinct.values()], self.schema.dims, unit=unit)
        if version is not None:
            between("version", version, 0, (1 << 53) - 1)
        if any(point.sparse is not None for point in points):
            raise not_pushed_down("zvec", "sparse vectors")
        payloads = [payload_of(point.payload, self._types) for point in distinct.values()]
        ready = [
            self._document(id, point.text, payload, vector, version)
            for (id, point), payload, vector in zip(distinct.items(), payloads, vectors, strict=True)
        ]
        written = 0
        for start in range(0, len(ready), _BATCH):
            batch = ready[start : start + _BATCH]
            with self._writing, self._using() as collection:
                if version is not None:
                    batch = _not_newer(collection, batch, version)
                self._did(collection.upsert(batch) if batch else [])
            written += len(batch)
        return written

    def _document(
        self, id: str, text: str, payload: dict[str, object], vector: np.ndarray, version: int | None
    ) -> zvec.Doc:
        fields = self._fields(payload) | {"at": _at(id), "version": version}
        if self.schema.text:
            fields["text"] = text.replace("\0", " ")
        return zvec.Doc(id, vectors={"dense": vector}, fields=fields)

    def _fields(self, payload: dict[str, object]) -> dict[str, object]:
        return values_of(payload, self.schema) | {"payload": msgspec.json.encode(payload).decode()}

    def _did(self, statuses: Sequence[zvec.Status]) -> None:
        for status in statuses:
            if not status.ok():
                raise failed(status.message(), self.name)

    def set_payload(self, where: Where, patch: Mapping[str, object]) -> None:
        """Put keys into payloads, and take keys out."""
        put, gone = patch_of(patch, self._types)
        with self._writing, self._using() as collection:
            ids = self._chosen(where)
            for start in range(0, len(ids), _BATCH):
                batch = ids[start : start + _BATCH]
                there = collection.fetch(batch, output_fields=["payload"], include_vector=False)
                changed = [zvec.Doc(id, fields=self._fields(_patched(doc, put, gone))) for id, doc in there.items()]
                self._did(collection.update(changed) if changed else [])

    def delete(self, where: Where) -> None:
        """Remove points."""
        with self._writing, self._using() as collection:
            if isinstance(where, (list, tuple, set, frozenset)):
                ids = [point_id(id) for id in where]
                there = collection.fetch(ids, output_fields=["version"], include_vector=False) if ids else {}
                self._did(collection.delete(list(there)) if there else [])
                return
            chosen = self._native(cast(Filter, where))
            if chosen != NEVER:
                collection.delete_by_filter(chosen or "at >= 0")

    def _chosen(self, where: Where) -> list[str]:
        if isinstance(where, (list, tuple, set, frozenset)):
            return [point_id(id) for id in where]
        return list(self._ids(self._native(cast(Filter, where)), None))

    def _native(self, filter: Filter | None) -> str:
        return ALWAYS if filter is None else native(check_filter(filter, self._types), self._columns)

    # -- reading ------------------------------------------------------------------------------------------------------

    def search(self, query: Query) -> Hits:
        """The best points, by one leg or by both."""
        chosen = self._native(query.filter)
        with self._using() as collection:
            return find(query, ZvecLegs(collection, self.schema, query, chosen, self._counted))

    def scroll(
        self, filter: Filter | None, cursor: str | None, limit: int, fields: tuple[str, ...] | None, vectors: bool
    ) -> Page:
        """A page of points."""
        between("limit", limit, 1, MOST)
        chosen = self._native(filter)
        with self._using() as collection:
            ids: list[str] = []
            for id in self._ids(chosen, None if cursor is None else point_id(cursor), limit):
                ids.append(id)
                if len(ids) > limit:
                    break
            page = ids[:limit]
            there = collection.fetch(page, output_fields=["payload"], include_vector=vectors) if page else {}
            points = tuple(
                Stored(id, shown(there[id].fields["payload"], fields), _dense(there[id]) if vectors else None)
                for id in page
                if id in there
            )
            return Page(points, page[-1] if len(ids) > limit else None)

    def _ids(self, chosen: str, after: str | None, expected: int = _WINDOW) -> Iterator[str]:
        """The ids of rows in their order, which zvec does not have: by windows of about as many as are expected."""
        if chosen == NEVER:
            return
        start = 0 if after is None else _at(after)
        width = max(1, _SPACE * expected // max(1, self._collection.stats.doc_count))
        while start < _SPACE:
            window = f"at >= {start} and at < {start + width}"
            found = self._collection.query(
                filter=f"{window} and {chosen}" if chosen else window, topk=_WINDOW, output_fields=["at"]
            )
            if len(found) == _WINDOW and width > 1:
                width //= 2
                continue
            yield from sorted(doc.id for doc in found if after is None or doc.id > after)
            start += width
            width = width * 4 if len(found) < expected // 2 else width

    def count(self, filter: Filter | None) -> int:
        """How many points fulfil the filter."""
        chosen = self._native(filter)
        with self._using():
            return self._counted(chosen)

    def _counted(self, chosen: str) -> int:
        if chosen == ALWAYS:
            return int(self._collection.stats.doc_count)
        return sum(1 for _ in self._ids(chosen, None))

    def stats(self) -> Stats:
        """How large it is."""
        with self._using() as collection:
            found = collection.stats
            rows = int(found.doc_count)
            return Stats(rows, round(rows * (1 - found.index_completeness["dense"])), allocated(self._folder))

    # -- keeping ------------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Make what was written survive the process."""
        with self._writing, self._using() as collection:
            collection.flush()

    def optimize(self) -> None:
        """Build the graph of new rows; zvec lets searches and writes go on."""
        with self._optimizing, self._using() as collection:
            collection.optimize()

    def snapshot(self, file: Path) -> None:
        """Copy the index into a file, as of now; writes wait."""
        with self._optimizing, self._writing, self._using() as collection:
            collection.flush()
            try:
                pack(self._folder, file, ("index.json", _DATA))
            except OSError as error:
                raise bad_snapshot(str(error)) from error

    def close(self) -> None:
        """Let go of it."""
        with self._optimizing, self._writing:
            if not self._closed:
                self._closed = True
                if self.pid == os.getpid():
                    with contextlib.suppress(RuntimeError):
                        self._collection.close()
                self._owner.release()


def _at(id: str) -> int:
    return int(id[:8] + id[9:13] + id[14], 16)


def _not_newer(collection: zvec.Collection, batch: list[zvec.Doc], version: int) -> list[zvec.Doc]:
    there = collection.fetch([doc.id for doc in batch], output_fields=["version"], include_vector=False)
    newer = {id for id, doc in there.items() if (doc.fields.get("version") or -1) > version}
    return [doc for doc in batch if doc.id not in newer]


def _patched(doc: zvec.Doc, put: dict[str, object], gone: tuple[str, ...]) -> dict[str, object]:
    merged = shown(doc.fields["payload"], None) | put
    return {key: value for key, value in merged.items() if key not in gone}


def _dense(doc: zvec.Doc) -> np.ndarray:
    return np.asarray(doc.vectors["dense"], dtype=np.float32)
