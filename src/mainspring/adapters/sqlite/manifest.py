"""The manifest of indexes in one SQLite file of its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from mainspring.adapters.sqlite.connection import Connections
from mainspring.adapters.sqlite.place import place_of
from mainspring.adapters.sqlite.schema import Schema
from mainspring.adapters.sqlite.settings import SqliteSettings
from mainspring.ports.manifest import (
    AliasMove,
    ChunkRow,
    DocumentRow,
    IndexVersion,
    Member,
    MemberChunks,
    VersionState,
)

__all__ = ["MANIFEST", "SqliteManifest", "open_manifest"]

_VECTORS = (
    """create table rag_vector (embedder_id text not null, text_hash text not null, vector blob not null,
    used_us integer not null, primary key (embedder_id, text_hash))""",
    "create index rag_vector_used on rag_vector (used_us)",
)
"""With row ids: in the primary key's own tree each vector would spill to a page of its own, at thrice the cost."""

MANIFEST = Schema(
    2,
    """
create table rag_document (idx text not null, document_id text not null, source text not null, uri text not null,
    size integer not null, mtime_ns integer not null, etag text not null, content_hash text not null,
    document_version integer not null, parse_key text not null, parsed text not null, title text not null,
    status text not null check (status in ('ok', 'quarantined', 'gone')), error text not null,
    principals text not null, tenant text not null, trust text not null, metadata text not null,
    synced_us integer not null, primary key (idx, document_id)) without rowid;
create table rag_member (idx text not null, version integer not null, document_id text not null,
    document_version integer not null, parsed text not null, payload_key text not null, chunks integer not null,
    primary key (idx, version, document_id)) without rowid;
create index rag_member_document on rag_member (idx, document_id, document_version);
create table rag_chunk (idx text not null, version integer not null, document_id text not null,
    ordinal integer not null, chunk_id text not null, path text not null, start integer not null,
    "end" integer not null, page_first integer, page_last integer, text_hash text not null, tokens integer not null,
    primary key (idx, version, document_id, ordinal)) without rowid;
create table rag_version (idx text not null, version integer not null, state text not null
        check (state in ('building', 'evaluating', 'live', 'retired', 'failed')),
    spec_hash text not null, spec text not null, embedder_id text not null, dims integer not null,
    rows_ integer not null, scores text not null, created_us integer not null, live_us integer, retired_us integer,
    writing integer not null, primary key (idx, version)) without rowid;
create table rag_alias (seq integer primary key, idx text not null, version integer not null, set_by text not null,
    set_at integer not null, reason text not null);
create index rag_alias_index on rag_alias (idx, seq);
create trigger rag_alias_no_update before update on rag_alias
    begin select raise(abort, 'rag_alias rows are immutable'); end;
"""
    + ";\n".join(_VECTORS)
    + ";",
    {
        1: (
            "alter table rag_vector rename to rag_vector_1",
            "drop index rag_vector_used",
            *_VECTORS,
            "insert into rag_vector select embedder_id, text_hash, vector, used_us from rag_vector_1",
            "drop table rag_vector_1",
        )
    },
)
"""The manifest's tables."""

_BATCH = 500
_encode = msgspec.json.Encoder(order="sorted").encode
_words = msgspec.json.Decoder(tuple[str, ...]).decode
_texts = msgspec.json.Decoder(dict[str, str]).decode
_object = msgspec.json.Decoder(dict[str, object]).decode
_numbers = msgspec.json.Decoder(dict[str, float]).decode
_DOCUMENT = (
    "document_id, source, uri, size, mtime_ns, etag, content_hash, document_version, parse_key, parsed, title, status, "
    "error, principals, tenant, trust, metadata, synced_us"
)
_MEMBER = "document_id, document_version, parsed, payload_key, chunks"
_CHUNK = 'chunk_id, ordinal, path, start, "end", page_first, page_last, text_hash, tokens'
_VERSION = (
    "idx, version, state, spec_hash, spec, embedder_id, dims, rows_, scores, created_us, live_us, retired_us, writing"
)
_LIVE = "select version from rag_alias where idx = ? order by seq desc limit 1"
T = TypeVar("T")


def open_manifest(settings: SqliteSettings, state: Path) -> SqliteManifest:
    """Open the manifest, made when it is not there; ``indexes/manifest.db`` in the state folder without a url."""
    path = place_of(settings, state / "indexes" / "manifest.db")
    return SqliteManifest(Connections(path, settings, schema=MANIFEST))


class SqliteManifest:
    """Implements `mainspring.ports.manifest.Manifest`."""

    def __init__(self, db: Connections) -> None:
        self._db = db

    def documents(self, index: str) -> list[DocumentRow]:
        """Documents that are not gone."""
        sql = f"select {_DOCUMENT} from rag_document where idx = ? and status <> 'gone' order by source, uri"
        return [_document(row) for row in self._db.read(sql, (index,))]

    def document(self, index: str, document_id: str) -> DocumentRow | None:
        """The document of that id."""
        sql = f"select {_DOCUMENT} from rag_document where idx = ? and document_id = ? and status <> 'gone'"
        found = self._db.read(sql, (index, document_id))
        return _document(found[0]) if found else None

    def put_documents(self, index: str, rows: Sequence[DocumentRow]) -> None:
        """Write rows in place of those of the same id."""
        values = [(index, *_document_values(row)) for row in rows]
        with self._db.write() as db:
            db.executemany(f"insert or replace into rag_document values ({_marks(19)})", values)

    def members(self, index: str, version: int) -> dict[str, Member]:
        """The contents in a version."""
        sql = f"select {_MEMBER} from rag_member where idx = ? and version = ?"
        return {row[0]: Member(*row) for row in self._db.read(sql, (index, version))}

    def member(self, index: str, document_id: str, document_version: int) -> Member | None:
        """A content that is in any version."""
        sql = (
            f"select {_MEMBER} from rag_member where idx = ? and document_id = ? and document_version = ? "
            "order by version desc limit 1"
        )
        found = self._db.read(sql, (index, document_id, document_version))
        return Member(*found[0]) if found else None

    def put_members(self, index: str, version: int, rows: Sequence[MemberChunks]) -> None:
        """Write members with all their chunks."""
        ids = [(index, version, row.member.document_id) for row in rows]
        members = [(index, version, *msgspec.structs.astuple(row.member)) for row in rows]
        chunks = [
            (index, version, row.member.document_id, *_chunk_values(chunk)) for row in rows for chunk in row.chunks
        ]
        with self._db.write() as db:
            db.executemany("delete from rag_chunk where idx = ? and version = ? and document_id = ?", ids)
            db.executemany(f"insert or replace into rag_member values ({_marks(7)})", members)
            db.executemany(f"insert into rag_chunk (idx, version, document_id, {_CHUNK}) values ({_marks(12)})", chunks)

    def drop_members(self, index: str, version: int, document_ids: Iterable[str]) -> None:
        """Forget members and their chunks."""
        ids = [(index, version, one) for one in document_ids]
        with self._db.write() as db:
            for table in ("rag_chunk", "rag_member"):
                db.executemany(f"delete from {table} where idx = ? and version = ? and document_id = ?", ids)

    def chunks(self, index: str, version: int, document_ids: Iterable[str] | None = None) -> dict[str, list[ChunkRow]]:
        """The chunks in a version, by document."""
        sql = f"select document_id, {_CHUNK} from rag_chunk where idx = ? and version = ?"
        found: dict[str, list[ChunkRow]] = {}
        for extra, values in _parts(document_ids):
            for row in self._db.read(f"{sql}{extra} order by document_id, ordinal", (index, version, *values)):
                found.setdefault(row[0], []).append(ChunkRow(*_with(row[1:], {2: _words})))
        return found

    def vectors(self, embedder_id: str, text_hashes: Sequence[str]) -> dict[str, bytes]:
        """Vectors by text hash."""
        found: dict[str, bytes] = {}
        for part in _batches(text_hashes):
            sql = (
                f"select text_hash, vector from rag_vector where embedder_id = ? and text_hash in ({_marks(len(part))})"
            )
            found |= dict(self._db.read(sql, (embedder_id, *part)))
        return found

    def put_vectors(self, embedder_id: str, vectors: Mapping[str, bytes], used_us: int) -> None:
        """Keep vectors by text hash."""
        values = [(embedder_id, text, vector, used_us) for text, vector in vectors.items()]
        with self._db.write() as db:
            db.executemany("insert or replace into rag_vector values (?,?,?,?)", values)

    def trim_vectors(self, keep: int) -> int:
        """Forget those that were used longest ago."""
        with self._db.write() as db:
            (count,) = db.execute("select count(*) from rag_vector").fetchone()
            db.execute(
                "delete from rag_vector where (embedder_id, text_hash) in "
                "(select embedder_id, text_hash from rag_vector order by used_us limit ?)",
                (max(count - keep, 0),),
            )
            return max(int(count) - keep, 0)

    def versions(self, index: str) -> list[IndexVersion]:
        """All versions, the newest first."""
        sql = f"select {_VERSION} from rag_version where idx = ? order by version desc"
        return [_version(row) for row in self._db.read(sql, (index,))]

    def add_version(self, version: IndexVersion) -> bool:
        """Write a version if there is none of its number."""
        with self._db.write() as db:
            sql = f"insert into rag_version ({_VERSION}) values ({_marks(13)}) on conflict do nothing"
            return db.execute(sql, _version_values(version)).rowcount == 1

    def change_version(self, version: IndexVersion, was: VersionState) -> bool:
        """Compare-and-swap on state."""
        columns = _VERSION.split(", ")
        sets = ", ".join(f"{name} = ?{place}" for place, name in enumerate(columns, 1))
        sql = f"update rag_version set {sets} where idx = ?1 and version = ?2 and state = ?{len(columns) + 1}"
        with self._db.write() as db:
            return db.execute(sql, (*_version_values(version), was)).rowcount == 1

    def drop_version(self, index: str, version: int) -> None:
        """Forget a version with its members and chunks."""
        with self._db.write() as db:
            for table in ("rag_chunk", "rag_member", "rag_version"):
                db.execute(f"delete from {table} where idx = ? and version = ?", (index, version))

    def live(self, index: str) -> int | None:
        """The version that answers."""
        found = self._db.read(_LIVE, (index,))
        return int(found[0][0]) if found else None

    def set_live(self, index: str, version: int, *, was: int | None, by: str, at_us: int, reason: str) -> bool:
        """Compare-and-swap on the alias."""
        with self._db.write(durable=True) as db:
            last = db.execute(
                "select version from rag_alias where idx = ? order by seq desc limit 1", (index,)
            ).fetchone()
            if (None if last is None else last[0]) != was:
                return False
            values = (index, version, by, at_us, reason)
            db.execute("insert into rag_alias (idx, version, set_by, set_at, reason) values (?,?,?,?,?)", values)
            return True

    def moves(self, index: str) -> list[AliasMove]:
        """Every move of the alias, the newest first."""
        sql = "select version, set_by, set_at, reason from rag_alias where idx = ? order by seq desc"
        return [AliasMove(*row) for row in self._db.read(sql, (index,))]

    def close(self) -> None:
        """Close this process's connections."""
        self._db.close()


def _marks(count: int) -> str:
    return ",".join("?" * count)


def _batches(values: Iterable[T]) -> Iterator[list[T]]:
    left = iter(values)
    while part := list(itertools.islice(left, _BATCH)):
        yield part


def _parts(document_ids: Iterable[str] | None) -> Iterator[tuple[str, list[str]]]:
    if document_ids is None:
        yield "", []
        return
    for part in _batches(document_ids):
        yield f" and document_id in ({_marks(len(part))})", part


def _with(row: tuple[Any, ...], readers: Mapping[int, Callable[[Any], Any]]) -> list[Any]:
    """The values of a row, some of them read from what they are kept as."""
    return [readers[place](value) if place in readers else value for place, value in enumerate(row)]


def _document(row: tuple[Any, ...]) -> DocumentRow:
    return DocumentRow(*_with(row, {13: _words, 16: _texts}))


def _document_values(row: DocumentRow) -> tuple[object, ...]:
    values = list(msgspec.structs.astuple(row))
    values[13], values[16] = _encode(row.principals).decode(), _encode(row.metadata).decode()
    return tuple(values)


def _chunk_values(chunk: ChunkRow) -> tuple[object, ...]:
    values = list(msgspec.structs.astuple(chunk))
    values[2] = _encode(chunk.path).decode()
    return tuple(values)


def _version(row: tuple[Any, ...]) -> IndexVersion:
    return IndexVersion(*_with(row, {4: _object, 8: _numbers, 12: bool}))


def _version_values(version: IndexVersion) -> tuple[object, ...]:
    values = list(msgspec.structs.astuple(version))
    values[4], values[8] = _encode(version.spec).decode(), _encode(version.scores).decode()
    values[12] = int(version.writing)
    return tuple(values)
