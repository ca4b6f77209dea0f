"""The manifest of indexes in Postgres, for several machines that serve the same indexes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, LiteralString, cast

import msgspec
import psycopg

from mainspring.adapters.postgres.connections import Connections
from mainspring.adapters.postgres.settings import PostgresSettings
from mainspring.ports.manifest import (
    AliasMove,
    ChunkRow,
    DocumentRow,
    IndexVersion,
    Member,
    MemberChunks,
    VersionState,
)

__all__ = ["PostgresManifest", "open_manifest"]

_LOCK = 0x6D616E6966  # "manif": one process makes the tables
_WRITING = 0x6D616E69
# Texts are compared byte by byte, as in every other manifest.
_TABLES: tuple[LiteralString, ...] = (
    """create table if not exists rag_document (
        idx text collate "C" not null, document_id text collate "C" not null, source text collate "C" not null,
        uri text collate "C" not null, size bigint not null, mtime_ns bigint not null, etag text not null,
        content_hash text not null, document_version bigint not null, parse_key text not null, parsed text not null,
        title text not null, status text not null check (status in ('ok', 'quarantined', 'gone')),
        error text not null, principals text[] not null, tenant text not null, trust text not null,
        metadata text not null, synced_us bigint not null, primary key (idx, document_id))""",
    """create table if not exists rag_member (
        idx text collate "C" not null, version bigint not null, document_id text collate "C" not null,
        document_version bigint not null, parsed text not null, payload_key text not null, chunks bigint not null,
        primary key (idx, version, document_id))""",
    "create index if not exists rag_member_document on rag_member (idx, document_id, document_version)",
    """create table if not exists rag_chunk (
        idx text collate "C" not null, version bigint not null, document_id text collate "C" not null,
        ordinal bigint not null, chunk_id text not null, path text[] not null, start bigint not null,
        "end" bigint not null, page_first bigint, page_last bigint, text_hash text not null, tokens bigint not null,
        primary key (idx, version, document_id, ordinal))""",
    """create table if not exists rag_vector (
        embedder_id text collate "C" not null, text_hash text collate "C" not null, vector bytea not null,
        used_us bigint not null, primary key (embedder_id, text_hash))""",
    "create index if not exists rag_vector_used on rag_vector (used_us)",
    """create table if not exists rag_version (
        idx text collate "C" not null, version bigint not null,
        state text not null check (state in ('building', 'evaluating', 'live', 'retired', 'failed')),
        spec_hash text not null, spec text not null, embedder_id text not null, dims bigint not null,
        rows_ bigint not null, scores text not null, created_us bigint not null, live_us bigint, retired_us bigint,
        writing boolean not null, primary key (idx, version))""",
    """create table if not exists rag_alias (
        seq bigint generated always as identity primary key, idx text collate "C" not null, version bigint not null,
        set_by text not null, set_at bigint not null, reason text not null)""",
    "create index if not exists rag_alias_index on rag_alias (idx, seq)",
)
_DOCUMENT: LiteralString = (
    "document_id, source, uri, size, mtime_ns, etag, content_hash, document_version, parse_key, parsed, title, status, "
    "error, principals, tenant, trust, metadata, synced_us"
)
_MEMBER: LiteralString = "document_id, document_version, parsed, payload_key, chunks"
_CHUNK: LiteralString = 'chunk_id, ordinal, path, start, "end", page_first, page_last, text_hash, tokens'
_VERSION: LiteralString = (
    "idx, version, state, spec_hash, spec, embedder_id, dims, rows_, scores, created_us, live_us, retired_us, writing"
)
_LIVE: LiteralString = "select version from rag_alias where idx = %s order by seq desc limit 1"
_CHANGED: LiteralString = (
    "state = %s, spec_hash = %s, spec = %s, embedder_id = %s, dims = %s, rows_ = %s, scores = %s, created_us = %s, "
    "live_us = %s, retired_us = %s, writing = %s"
)
_encode = msgspec.json.Encoder(order="sorted").encode
_texts = msgspec.json.Decoder(dict[str, str]).decode
_object = msgspec.json.Decoder(dict[str, object]).decode
_numbers = msgspec.json.Decoder(dict[str, float]).decode


def open_manifest(settings: PostgresSettings, state: Path) -> PostgresManifest:
    """The manifest in the database that ``manifest.url`` names; its tables are made when they are not there.

    Raises:
        ServiceError: MS-4201, it does not answer; MS-4202, it does not allow that.
    """
    return PostgresManifest(settings)


class PostgresManifest:
    """Implements `mainspring.ports.manifest.Manifest`.

    Args:
        settings: where it is.

    Attributes:
        database: the connections to it.
    """

    def __init__(self, settings: PostgresSettings) -> None:
        self.database = Connections(settings, "manifest")
        self.database.make(_LOCK, _TABLES)

    def documents(self, index: str) -> list[DocumentRow]:
        """Documents that are not gone."""
        sql = "select " + _DOCUMENT + " from rag_document where idx = %s and status <> 'gone' order by source, uri"
        return [_document(row) for row in self._read(sql, (index,))]

    def document(self, index: str, document_id: str) -> DocumentRow | None:
        """The document of that id."""
        sql = "select " + _DOCUMENT + " from rag_document where idx = %s and document_id = %s and status <> 'gone'"
        found = self._read(sql, (index, document_id))
        return _document(found[0]) if found else None

    def put_documents(self, index: str, rows: Sequence[DocumentRow]) -> None:
        """Write rows in place of those of the same id."""
        with self._alone(index) as cursor:
            cursor.execute(
                "delete from rag_document where idx = %s and document_id = any(%s)",
                (index, [row.document_id for row in rows]),
            )
            with cursor.copy("copy rag_document (idx, " + _DOCUMENT + ") from stdin") as copy:
                for row in rows:
                    copy.write_row((index, *_document_values(row)))

    def members(self, index: str, version: int) -> dict[str, Member]:
        """The contents in a version."""
        sql = "select " + _MEMBER + " from rag_member where idx = %s and version = %s"
        return {row[0]: Member(*row) for row in self._read(sql, (index, version))}

    def member(self, index: str, document_id: str, document_version: int) -> Member | None:
        """A content that is in any version."""
        sql = (
            "select " + _MEMBER + " from rag_member where idx = %s and document_id = %s and document_version = %s "
            "order by version desc limit 1"
        )
        found = self._read(sql, (index, document_id, document_version))
        return Member(*found[0]) if found else None

    def put_members(self, index: str, version: int, rows: Sequence[MemberChunks]) -> None:
        """Write members with all their chunks."""
        with self._alone(index) as cursor:
            _drop_members(cursor, index, version, [row.member.document_id for row in rows])
            with cursor.copy("copy rag_member (idx, version, " + _MEMBER + ") from stdin") as copy:
                for row in rows:
                    copy.write_row((index, version, *msgspec.structs.astuple(row.member)))
            with cursor.copy("copy rag_chunk (idx, version, document_id, " + _CHUNK + ") from stdin") as copy:
                for row in rows:
                    for chunk in row.chunks:
                        copy.write_row((index, version, row.member.document_id, *_chunk_values(chunk)))

    def drop_members(self, index: str, version: int, document_ids: Iterable[str]) -> None:
        """Forget members and their chunks."""
        with self._alone(index) as cursor:
            _drop_members(cursor, index, version, list(document_ids))

    def chunks(self, index: str, version: int, document_ids: Iterable[str] | None = None) -> dict[str, list[ChunkRow]]:
        """The chunks in a version, by document."""
        sql = (
            "select document_id, " + _CHUNK + " from rag_chunk where idx = %s and version = %s "
            "and (%s::text[] is null or document_id = any(%s)) order by document_id, ordinal"
        )
        ids = None if document_ids is None else list(document_ids)
        found: dict[str, list[ChunkRow]] = {}
        for document_id, chunk_id, ordinal, path, *others in self._read(sql, (index, version, ids, ids)):
            found.setdefault(document_id, []).append(ChunkRow(chunk_id, ordinal, tuple(path), *others))
        return found

    def vectors(self, embedder_id: str, text_hashes: Sequence[str]) -> dict[str, bytes]:
        """Vectors by text hash."""
        sql: LiteralString = "select text_hash, vector from rag_vector where embedder_id = %s and text_hash = any(%s)"
        return dict(self._read(sql, (embedder_id, list(text_hashes))))

    def put_vectors(self, embedder_id: str, vectors: Mapping[str, bytes], used_us: int) -> None:
        """Keep vectors by text hash."""
        with self.database.transaction() as cursor:
            cursor.execute(
                "insert into rag_vector select %s, text_hash, vector, %s "
                "from unnest(%s::text[], %s::bytea[]) as given (text_hash, vector) order by text_hash "
                "on conflict (embedder_id, text_hash) do update set vector = excluded.vector, "
                "used_us = excluded.used_us",
                (embedder_id, used_us, list(vectors), list(vectors.values())),
            )

    def trim_vectors(self, keep: int) -> int:
        """Forget those that were used longest ago."""
        with self.database.transaction() as cursor:
            counted = cursor.execute("select count(*) from rag_vector").fetchone()
            surplus = max(int(cast("tuple[int]", counted)[0]) - keep, 0)
            if surplus:
                cursor.execute(
                    "delete from rag_vector where (embedder_id, text_hash) in "
                    "(select embedder_id, text_hash from rag_vector order by used_us limit %s)",
                    (surplus,),
                )
            return surplus

    def versions(self, index: str) -> list[IndexVersion]:
        """All versions, the newest first."""
        sql = "select " + _VERSION + " from rag_version where idx = %s order by version desc"
        return [_version(row) for row in self._read(sql, (index,))]

    def add_version(self, version: IndexVersion) -> bool:
        """Write a version if there is none of its number."""
        sql = (
            "insert into rag_version (" + _VERSION + ") values (" + ", ".join(["%s"] * 13) + ") on conflict do nothing"
        )
        return self._write(sql, _version_values(version)) == 1

    def change_version(self, version: IndexVersion, was: VersionState) -> bool:
        """Compare-and-swap on state."""
        index, number, *values = _version_values(version)
        sql = "update rag_version set " + _CHANGED + " where idx = %s and version = %s and state = %s"
        return self._write(sql, (*values, index, number, was)) == 1

    def drop_version(self, index: str, version: int) -> None:
        """Forget a version with its members and chunks."""
        tables: tuple[LiteralString, ...] = ("rag_chunk", "rag_member", "rag_version")
        with self.database.transaction() as cursor:
            for table in tables:
                cursor.execute("delete from " + table + " where idx = %s and version = %s", (index, version))

    def live(self, index: str) -> int | None:
        """The version that answers."""
        found = self._read(_LIVE, (index,))
        return int(found[0][0]) if found else None

    def set_live(self, index: str, version: int, *, was: int | None, by: str, at_us: int, reason: str) -> bool:
        """Compare-and-swap on the alias."""
        with self._alone(index) as cursor:
            last = cursor.execute(_LIVE, (index,)).fetchone()
            if (None if last is None else last[0]) != was:
                return False
            cursor.execute(
                "insert into rag_alias (idx, version, set_by, set_at, reason) values (%s, %s, %s, %s, %s)",
                (index, version, by, at_us, reason),
            )
            return True

    def moves(self, index: str) -> list[AliasMove]:
        """Every move of the alias, the newest first."""
        sql: LiteralString = "select version, set_by, set_at, reason from rag_alias where idx = %s order by seq desc"
        return [AliasMove(*row) for row in self._read(sql, (index,))]

    def close(self) -> None:
        """Close this process's connections."""
        self.database.close()

    @contextmanager
    def _alone(self, index: str) -> Iterator[psycopg.Cursor[Any]]:
        """A transaction in which nobody else writes to that index."""
        with self.database.transaction() as cursor:
            cursor.execute("select pg_advisory_xact_lock(%s, hashtext(%s))", (_WRITING, index))
            yield cursor

    def _read(self, sql: LiteralString, values: Sequence[object]) -> list[tuple[Any, ...]]:
        return self.database.asked(lambda connection: connection.execute(sql, values).fetchall())

    def _write(self, sql: LiteralString, values: Sequence[object]) -> int:
        with self.database.connection() as connection:
            return connection.execute(sql, values).rowcount


def _drop_members(cursor: psycopg.Cursor[Any], index: str, version: int, document_ids: list[str]) -> None:
    tables: tuple[LiteralString, ...] = ("rag_chunk", "rag_member")
    for table in tables:
        cursor.execute(
            "delete from " + table + " where idx = %s and version = %s and document_id = any(%s)",
            (index, version, document_ids),
        )


def _document(row: tuple[Any, ...]) -> DocumentRow:
    values = list(row)
    values[13], values[16] = tuple(values[13]), _texts(values[16])
    return DocumentRow(*values)


def _document_values(row: DocumentRow) -> list[object]:
    values = list(msgspec.structs.astuple(row))
    values[13], values[16] = list(row.principals), _encode(row.metadata).decode()
    return values


def _chunk_values(chunk: ChunkRow) -> list[object]:
    values = list(msgspec.structs.astuple(chunk))
    values[2] = list(chunk.path)
    return values


def _version(row: tuple[Any, ...]) -> IndexVersion:
    values = list(row)
    values[4], values[8] = _object(values[4]), _numbers(values[8])
    return IndexVersion(*values)


def _version_values(version: IndexVersion) -> tuple[object, ...]:
    values = list(msgspec.structs.astuple(version))
    values[4], values[8] = _encode(version.spec).decode(), _encode(version.scores).decode()
    return tuple(values)
