"""The manifest: which documents an index holds, in which versions, and what was computed for them already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

import msgspec

__all__ = [
    "AliasMove",
    "ChunkRow",
    "DocumentRow",
    "IndexVersion",
    "Manifest",
    "Member",
    "MemberChunks",
    "VersionState",
]

VersionState = Literal["building", "evaluating", "live", "retired", "failed"]


class DocumentRow(msgspec.Struct, frozen=True):
    """A document of an index as it was last seen.

    Attributes:
        document_id: stays the same over changes of content and moves; hex.
        source: the name of the declared documents it is of.
        uri: where it is, relative to them.
        size: in bytes.
        mtime_ns: when it was changed, in nanoseconds since 1970, as the place tells.
        etag: the place's own mark of its content, or empty.
        content_hash: blake2b-160 of its bytes, in hex.
        document_version: 1, and one more with each content.
        parse_key: the parser that read this content.
        parsed: digest of its text in the object store; empty when it could not be read.
        title: what it is called.
        status: ``ok``; ``quarantined``, it could not be read, and its last good content stays in the index;
            ``gone``, it was deleted.
        error: why it could not be read.
        principals: who may see it.
        tenant: whose it is; empty where there are no tenants.
        trust: what its text may be used for; ``data``.
        metadata: what it says of itself, and filters may ask for.
        synced_us: when it was last looked at, in microseconds since 1970.
    """

    document_id: str
    source: str
    uri: str
    size: int
    mtime_ns: int
    etag: str
    content_hash: str
    document_version: int
    parse_key: str
    parsed: str
    title: str
    status: Literal["ok", "quarantined", "gone"]
    error: str
    principals: tuple[str, ...]
    tenant: str
    trust: str
    metadata: Mapping[str, str]
    synced_us: int


class ChunkRow(msgspec.Struct, frozen=True):
    """A chunk that is in a version of an index.

    Attributes:
        chunk_id: blake2b-128 of document, path, text and occurrence, in hex.
        ordinal: its place in the document, from 0.
        path: the headings above it.
        start: first character in the document's text.
        end: one past its last.
        page_first: from 1, or None without pages.
        page_last: from 1, or None.
        text_hash: of the exact text that was embedded.
        tokens: of that text.
    """

    chunk_id: str
    ordinal: int
    path: tuple[str, ...]
    start: int
    end: int
    page_first: int | None
    page_last: int | None
    text_hash: str
    tokens: int


class Member(msgspec.Struct, frozen=True):
    """A document's content that is in a version of an index: its text's digest, and the payload that was written."""

    document_id: str
    document_version: int
    parsed: str
    payload_key: str
    chunks: int


class MemberChunks(msgspec.Struct, frozen=True):
    """A member with its chunks."""

    member: Member
    chunks: tuple[ChunkRow, ...]


class IndexVersion(msgspec.Struct, frozen=True):
    """A version of an index: one embedder, one way to make chunks, one collection of the vector store.

    Attributes:
        index: the index's name.
        version: 1, 2, ...
        state: ``building`` until all documents are in it, ``evaluating``, ``live`` once an alias was set to it,
            ``retired`` when another took over (it stays for a rollback), ``failed`` when its evaluation refused it.
        spec_hash: of `spec`; two equal ones are the same version.
        spec: everything that decides about its rows, as JSON.
        embedder_id: whose vectors it holds.
        dims: their length.
        rows: chunks in it, when it was last looked at.
        scores: what its evaluation found.
        created_us: when it was begun, in microseconds since 1970.
        live_us: when it was last set live, or None.
        retired_us: when another took over, or None.
        writing: whether a sync is writing to it, or was stopped while it did.
    """

    index: str
    version: int
    state: VersionState
    spec_hash: str
    spec: Mapping[str, object]
    embedder_id: str
    dims: int
    rows: int
    scores: Mapping[str, float]
    created_us: int
    live_us: int | None = None
    retired_us: int | None = None
    writing: bool = False


class AliasMove(msgspec.Struct, frozen=True):
    """That a version became the one that answers: by whom, when and why."""

    version: int
    by: str
    at_us: int
    reason: str


@runtime_checkable
class Manifest(Protocol):
    """What indexes hold. Each method is one transaction that survives kill -9; several processes may use it at once.

    Every method raises `StoreError`: MS-4101 disk full, and what the adapter's ``problems.py`` names.
    """

    def documents(self, index: str) -> list[DocumentRow]:
        """All documents of an index that are not gone, in order of source and uri."""

    def document(self, index: str, document_id: str) -> DocumentRow | None:
        """The document of that id, unless it is gone."""

    def put_documents(self, index: str, rows: Sequence[DocumentRow]) -> None:
        """Write rows, each in place of the one with its id."""

    def members(self, index: str, version: int) -> dict[str, Member]:
        """The contents that are in a version, by document id."""

    def member(self, index: str, document_id: str, document_version: int) -> Member | None:
        """A content that is in any version that is kept, or None."""

    def put_members(self, index: str, version: int, rows: Sequence[MemberChunks]) -> None:
        """Write members with all their chunks, in place of what the documents had there."""

    def drop_members(self, index: str, version: int, document_ids: Iterable[str]) -> None:
        """Forget members and their chunks; unknown ones are no error."""

    def chunks(self, index: str, version: int, document_ids: Iterable[str] | None = None) -> dict[str, list[ChunkRow]]:
        """The chunks in a version by document id, each document's in order; all documents when None."""

    def vectors(self, embedder_id: str, text_hashes: Sequence[str]) -> dict[str, bytes]:
        """The vectors that were computed for these texts, as little-endian float32, by text hash."""

    def put_vectors(self, embedder_id: str, vectors: Mapping[str, bytes], used_us: int) -> None:
        """Keep vectors by text hash."""

    def trim_vectors(self, keep: int) -> int:
        """Forget the vectors that were used longest ago, so that at most `keep` stay; how many were forgotten."""

    def versions(self, index: str) -> list[IndexVersion]:
        """All versions of an index, the newest first."""

    def add_version(self, version: IndexVersion) -> bool:
        """Write a version if there is none of its number; whether it was."""

    def change_version(self, version: IndexVersion, was: VersionState) -> bool:
        """Write a version if the one of its number is still in that state; whether it was."""

    def drop_version(self, index: str, version: int) -> None:
        """Forget a version with its members and chunks."""

    def live(self, index: str) -> int | None:
        """The version that answers, or None."""

    def set_live(self, index: str, version: int, *, was: int | None, by: str, at_us: int, reason: str) -> bool:
        """Let a version answer, if the one that does is still `was`; whether it was. The move is kept."""

    def moves(self, index: str) -> list[AliasMove]:
        """Every move of the alias, the newest first."""

    def close(self) -> None:
        """Close this process's connections."""
