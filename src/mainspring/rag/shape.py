"""What a version of an index is made by, and what its points carry."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath
from typing import Any

import msgspec

from mainspring.declare.documents import Mode
from mainspring.ports.manifest import DocumentRow
from mainspring.ports.vector_store import Field, Schema
from mainspring.rag.chunk import ChunkSpec

__all__ = [
    "ACL",
    "DOCUMENT",
    "META",
    "OWN",
    "TENANT",
    "VERSION",
    "IndexShape",
    "VersionShape",
    "collection",
    "payload_of",
]

ACL, DOCUMENT, TENANT, VERSION, META = "acl", "doc", "tenant", "dv", "meta."
"""Keys of a point's payload: who may see it, its document's id, its tenant, its document's version; of metadata."""
OWN = frozenset(
    (
        ACL,
        DOCUMENT,
        TENANT,
        VERSION,
        "source",
        "uri",
        "folders",
        "title",
        "trust",
        "chunk",
        "path",
        "start",
        "end",
        "text",
    )
)
"""Keys that every point has, so that the others need a look."""

_FIELDS = (
    Field(DOCUMENT, "string"),
    Field(VERSION, "integer"),
    Field("source", "string"),
    Field("uri", "string"),
    Field("folders", "strings"),
    Field("title", "string"),
    Field(ACL, "strings"),
    Field(TENANT, "string"),
)


class IndexShape(msgspec.Struct, frozen=True):
    """An index as declared, without its documents.

    Attributes:
        name: the declaration's.
        tokens: most tokens of a chunk, or None for the embedder's limit.
        mode: of queries that do not say.
        rerank: whether the reranker sorts what is found.
        language: of stop words and stemmer.
        filters: keys of metadata that queries may filter by.
    """

    name: str
    tokens: int | None = None
    mode: Mode = "hybrid"
    rerank: bool = False
    language: str = "english"
    filters: tuple[str, ...] = ()


class VersionShape(msgspec.Struct, frozen=True):
    """All that decides about a version's rows; another one is another version.

    Attributes:
        embedder: the embedder's id.
        dims: of its vectors.
        chunks: how documents are cut.
        language: of stop words and stemmer.
        filters: keys of metadata that are indexed.
        store: the adapter that holds it.
        words: mean words of a chunk, measured when the version was begun and kept; not a part of its identity.
    """

    embedder: str
    dims: int
    chunks: ChunkSpec
    language: str
    filters: tuple[str, ...]
    store: str
    words: float = 0.0

    @property
    def hash(self) -> str:
        """Of all but `words`."""
        return hashlib.blake2b(
            msgspec.json.encode(msgspec.structs.replace(self, words=0.0)), digest_size=16
        ).hexdigest()

    def schema(self) -> Schema:
        """The vector store's."""
        fields = (*_FIELDS, *(Field(f"{META}{key}", "string") for key in self.filters))
        return Schema(self.dims, fields=fields, language=self.language, words=self.words or 256.0)


def collection(index: str, version: int) -> str:
    """The vector store's name of a version."""
    return f"{index}-v{version}"


def payload_of(row: DocumentRow) -> dict[str, Any]:
    """What every point of a document carries of it."""
    folders = [str(folder) for folder in PurePosixPath(row.uri).parents if str(folder) != "."]
    return {
        DOCUMENT: row.document_id,
        "source": row.source,
        "uri": row.uri,
        "folders": folders,
        "title": row.title,
        ACL: list(row.principals),
        TENANT: row.tenant,
        "trust": row.trust,
        **{f"{META}{key}": value for key, value in row.metadata.items() if _is_key(key)},
    }


def _is_key(key: str) -> bool:
    return key.replace("_", "").replace("-", "").isalnum() and key.isascii()
