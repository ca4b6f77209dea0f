"""Bringing a version of an index up to the documents: cut, embed, write, delete; in batches.

A batch is written in the order points, deletions, flush, manifest. What a kill leaves between the store and the
manifest is found by the next sync, which compares the two when the last one did not end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

import msgspec

from mainspring.lazy import lazy
from mainspring.ports.embedder import Embedder
from mainspring.ports.manifest import ChunkRow, DocumentRow, IndexVersion, Manifest, Member, MemberChunks
from mainspring.ports.objects import Objects
from mainspring.ports.parser import Parsed
from mainspring.ports.vector_store import Eq, Point, VectorStore
from mainspring.rag.chunk import Chunk, Chunker
from mainspring.rag.ids import chunk_ids, point_id, text_hash
from mainspring.rag.shape import DOCUMENT, VERSION, collection, payload_of
from mainspring.rag.sync import Progress

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy("numpy")

__all__ = ["VersionWriter", "WriteCounts"]

T = TypeVar("T")
_CHUNKS = 512
_COMMITTED = 2_048
"""Chunks of a batch: what is written and flushed together. Their vectors are kept before, `_CHUNKS` at a time."""
_PAGE = 10_000


class WriteCounts(msgspec.Struct):
    """What was done to a version: documents written, renamed or re-permitted, and deleted; texts embedded."""

    written: int = 0
    relabelled: int = 0
    deleted: int = 0
    embedded: int = 0
    repaired: int = 0

    @property
    def any(self) -> bool:
        """Whether anything was done."""
        return bool(self.written or self.relabelled or self.deleted or self.repaired)


class _Prepared(msgspec.Struct):
    """A document that is cut and waits to be written."""

    row: DocumentRow
    chunks: list[Chunk]
    ids: list[str]
    hashes: list[str]


class VersionWriter(msgspec.Struct):
    """Writes one version of one index.

    Attributes:
        version: the version.
        manifest: what is known of it.
        objects: has the documents' texts.
        store: has its points.
        embedder: makes its vectors.
        chunker: cuts its documents.
        now: microseconds since 1970.
        progress: told how far it is.
        cut: chunks of documents that were cut before, by the digest of their text; they are used once.
    """

    version: IndexVersion
    manifest: Manifest
    objects: Objects
    store: VectorStore
    embedder: Embedder
    chunker: Chunker
    now: Callable[[], int]
    progress: Progress = lambda what, done, of: None
    cut: dict[str, list[Chunk]] = msgspec.field(default_factory=dict)
    counts: WriteCounts = msgspec.field(default_factory=WriteCounts)

    def bring_up(self, rows: Sequence[DocumentRow]) -> WriteCounts:
        """Make the version hold exactly these documents' texts.

        Args:
            rows: all documents of the index; of one that cannot be read now, its last good text stays.

        Raises:
            ServiceError: as the embedder and the store raise; what was done until then stays done.
        """
        self._reconcile()
        members = self.manifest.members(self._index, self.version.version)
        wanted = {row.document_id: row for row in rows if row.parsed}
        stale = [one for one in members if one not in wanted]
        todo, labels = [], []
        for row in wanted.values():
            member = members.get(row.document_id)
            if member is None or (member.document_version, member.parsed) != (row.document_version, row.parsed):
                todo.append(row)
            elif member.payload_key != _payload_key(row):
                labels.append((row, member))
        if stale or todo or labels:
            self._mark(True)
            self._delete(stale)
            self._relabel(labels)
            self._write(todo)
        if stale or todo or labels or self.counts.repaired or self.version.writing:
            self._mark(False)
        return self.counts

    @property
    def _index(self) -> str:
        return self.version.index

    @property
    def _place(self) -> str:
        return collection(self._index, self.version.version)

    def _mark(self, writing: bool) -> None:
        """Note, before the first write, that one is under way, and after the last that it is not."""
        rows = self.version.rows if writing else self.store.count(self._place)
        changed = msgspec.structs.replace(self.version, writing=writing, rows=rows)
        if self.manifest.change_version(changed, self.version.state):
            self.version = changed

    # -- after a stop -----------------------------------------------------------------------------------------------

    def _reconcile(self) -> None:
        """Make the store and the manifest agree again, where a sync was stopped or points are missing."""
        members = self.manifest.members(self._index, self.version.version)
        counted = sum(member.chunks for member in members.values())
        if not self.version.writing and counted == self.store.count(self._place):
            return
        chunks = self.manifest.chunks(self._index, self.version.version)
        known = {point_id(chunk.chunk_id): document for document, rows in chunks.items() for chunk in rows}
        there = set(self._there())
        if orphans := sorted(there - known.keys()):
            self.store.delete(self._place, orphans)
        lacking = {known[one] for one in known.keys() - there}
        self.manifest.drop_members(self._index, self.version.version, sorted(lacking))
        self.counts.repaired = len(orphans) + len(lacking)

    def _there(self) -> Iterator[str]:
        cursor = None
        while True:
            page = self.store.scroll(self._place, cursor=cursor, limit=_PAGE, fields=())
            yield from (point.id for point in page.points)
            if (cursor := page.cursor) is None:
                return

    # -- writing ----------------------------------------------------------------------------------------------------

    def _delete(self, document_ids: Sequence[str]) -> None:
        for part in _parts(document_ids, _CHUNKS):
            ids = self._points_of(part)
            if ids:
                self.store.delete(self._place, ids)
            self.store.flush(self._place)
            self.manifest.drop_members(self._index, self.version.version, part)
            self.counts.deleted += len(part)
            self.progress("delete", self.counts.deleted, len(document_ids))

    def _relabel(self, labels: Sequence[tuple[DocumentRow, Member]]) -> None:
        """What a document is called, where it is and who may see it changes in place, without a vector."""
        for part in _parts(labels, _CHUNKS):
            for row, _ in part:
                self.store.set_payload(self._place, Eq(DOCUMENT, row.document_id), payload_of(row))
            self.store.flush(self._place)
            found = self.manifest.chunks(self._index, self.version.version, [row.document_id for row, _ in part])
            renamed = [
                MemberChunks(
                    msgspec.structs.replace(member, payload_key=_payload_key(row)),
                    tuple(found.get(row.document_id, ())),
                )
                for row, member in part
            ]
            self.manifest.put_members(self._index, self.version.version, renamed)
            self.counts.relabelled += len(part)

    def _write(self, todo: Sequence[DocumentRow]) -> None:
        waiting: list[_Prepared] = []
        for row in todo:
            waiting.append(self._prepared(row))
            if sum(len(one.chunks) for one in waiting) >= _COMMITTED:
                self._commit(waiting, len(todo))
                waiting = []
        if waiting:
            self._commit(waiting, len(todo))

    def _prepared(self, row: DocumentRow) -> _Prepared:
        chunks = self.cut.pop(row.parsed, None)
        if chunks is None:
            chunks = self.chunker.chunks(msgspec.json.decode(self.objects.get(row.parsed), type=Parsed))
        hashes = [text_hash(chunk.text) for chunk in chunks]
        ids = chunk_ids(row.document_id, [(chunk.path, made) for chunk, made in zip(chunks, hashes, strict=True)])
        return _Prepared(row, chunks, ids, hashes)

    def _commit(self, batch: Sequence[_Prepared], of: int) -> None:
        vectors = self._vectors(batch)
        points = [point for one in batch for point in _points(one, vectors)]
        before = set(self._points_of([one.row.document_id for one in batch]))
        if points:
            self.store.upsert(self._place, points)
        if gone := sorted(before - {point.id for point in points}):
            self.store.delete(self._place, gone)
        self.store.flush(self._place)
        self.manifest.put_members(self._index, self.version.version, [_member(one) for one in batch])
        self.counts.written += len(batch)
        self.progress("index", self.counts.written, of)

    def _points_of(self, document_ids: Sequence[str]) -> list[str]:
        found = self.manifest.chunks(self._index, self.version.version, document_ids)
        return [point_id(chunk.chunk_id) for chunks in found.values() for chunk in chunks]

    def _vectors(self, batch: Sequence[_Prepared]) -> dict[str, bytes]:
        """The vectors of a batch's texts, those that are not known embedded and kept."""
        texts = {made: chunk.text for one in batch for chunk, made in zip(one.chunks, one.hashes, strict=True)}
        known = self.manifest.vectors(self.embedder.id, list(texts))
        for part in _parts([made for made in texts if made not in known], _CHUNKS):
            found = self.embedder.embed_documents([texts[made] for made in part])
            fresh = {made: np.ascontiguousarray(row, "<f4").tobytes() for made, row in zip(part, found, strict=True)}
            self.manifest.put_vectors(self.embedder.id, fresh, self.now())
            known |= fresh
            self.counts.embedded += len(part)
        return known


def _points(one: _Prepared, vectors: dict[str, bytes]) -> Iterator[Point]:
    shared = {**payload_of(one.row), VERSION: one.row.document_version}
    for chunk, identity, made in zip(one.chunks, one.ids, one.hashes, strict=True):
        payload = {
            **shared,
            "chunk": identity,
            "path": list(chunk.path),
            "start": chunk.start,
            "end": chunk.end,
            "text": chunk.body,
        }
        if chunk.page_first is not None:
            payload |= {"page_first": chunk.page_first, "page_last": chunk.page_last}
        yield Point(point_id(identity), np.frombuffer(vectors[made], "<f4"), payload, chunk.text)


def _member(one: _Prepared) -> MemberChunks:
    row = one.row
    chunks = tuple(
        ChunkRow(
            identity,
            chunk.ordinal,
            chunk.path,
            chunk.start,
            chunk.end,
            chunk.page_first,
            chunk.page_last,
            made,
            chunk.tokens,
        )
        for chunk, identity, made in zip(one.chunks, one.ids, one.hashes, strict=True)
    )
    return MemberChunks(
        Member(row.document_id, row.document_version, row.parsed, _payload_key(row), len(chunks)), chunks
    )


def _payload_key(row: DocumentRow) -> str:
    return hashlib.blake2b(msgspec.json.encode(payload_of(row), order="sorted"), digest_size=16).hexdigest()


def _parts(items: Sequence[T], size: int) -> Iterator[list[T]]:
    for start in range(0, len(items), size):
        yield list(items[start : start + size])
