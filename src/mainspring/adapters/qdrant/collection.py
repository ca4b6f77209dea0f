"""Collections: how one is made for a schema, and what goes into and out of a snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from mainspring.adapters.qdrant.filters import key_of
from mainspring.adapters.qdrant.settings import QdrantSettings
from mainspring.lazy import lazy
from mainspring.ports.vector_store import Schema
from mainspring.vectors.faults import bad_snapshot

if TYPE_CHECKING:
    from qdrant_client import QdrantClient, models
else:
    models = lazy("qdrant_client.models")

__all__ = ["SCHEMA", "made", "read_records", "schema_in", "schema_of", "write_records"]

SCHEMA = "mainspring"
"""Where a collection's metadata holds its schema; a collection without it is not ours."""

_MAGIC = b"mainspring-qdrant-1\n"
_PAGE = 500


class _Record(msgspec.Struct, array_like=True):
    """A point in a snapshot, with its sparse vectors as they were."""

    id: str
    payload: dict[str, Any]
    dense: list[float]
    sparse: dict[str, tuple[list[int], list[float]]]


def made(client: QdrantClient, name: str, schema: Schema, settings: QdrantSettings) -> None:
    """Make an empty collection with the indexes of its fields."""
    words = {"text": models.SparseVectorParams(modifier=models.Modifier.IDF)} if schema.text else {}
    own = {"sparse": models.SparseVectorParams()} if schema.sparse else {}
    int8 = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
    client.create_collection(
        name,
        vectors_config={"dense": models.VectorParams(size=schema.dims, distance=models.Distance.DOT)},
        sparse_vectors_config=words | own,
        hnsw_config=models.HnswConfigDiff(m=settings.m, ef_construct=settings.ef_construct, full_scan_threshold=1_000),
        quantization_config=models.ScalarQuantization(scalar=int8) if schema.quantised else None,
        metadata={SCHEMA: msgspec.json.encode(schema).decode()},
    )
    kinds = {
        "string": models.PayloadSchemaType.KEYWORD,
        "strings": models.PayloadSchemaType.KEYWORD,
        "integer": models.PayloadSchemaType.INTEGER,
        "integers": models.PayloadSchemaType.INTEGER,
        "number": models.PayloadSchemaType.FLOAT,
        "boolean": models.PayloadSchemaType.BOOL,
    }
    for field in schema.fields:
        client.create_payload_index(name, key_of(field.name), kinds[field.type])


def schema_of(client: QdrantClient, name: str) -> Schema | None:
    """The schema of a collection, or of the one that an alias leads to; None when it is not ours."""
    metadata = client.get_collection(name).config.metadata or {}
    return msgspec.json.decode(str(metadata[SCHEMA]), type=Schema) if SCHEMA in metadata else None


def write_records(client: QdrantClient, name: str, schema: Schema, out: BinaryIO) -> None:
    """Write all points, page by page; what others write meanwhile may be in it or not."""
    out.write(_MAGIC)
    _put(out, msgspec.json.encode(schema))
    offset = None
    while True:
        records, offset = client.scroll(name, limit=_PAGE, offset=offset, with_payload=True, with_vectors=True)
        if records:
            _put(out, msgspec.msgpack.encode([_record(record) for record in records]))
        if offset is None:
            return


def _record(record: models.Record) -> _Record:
    vectors = record.vector if isinstance(record.vector, dict) else {}
    sparse = {
        key: (list(value.indices), list(value.values))
        for key, value in vectors.items()
        if isinstance(value, models.SparseVector)
    }
    dense = vectors["dense"]
    assert isinstance(dense, list)
    return _Record(str(record.id), record.payload or {}, [float(number) for number in dense], sparse)  # type: ignore[arg-type]


def schema_in(source: BinaryIO) -> Schema:
    """The schema at the beginning of a snapshot.

    Raises:
        StoreError: MS-4186, it is none.
    """
    if source.read(len(_MAGIC)) != _MAGIC:
        raise bad_snapshot("it does not begin as one")
    found = _get(source)
    if found is None:
        raise bad_snapshot("it ends too early")
    return msgspec.json.decode(found, type=Schema)


def read_records(source: BinaryIO) -> Iterator[list[models.PointStruct]]:
    """The points of a snapshot, page by page."""
    while (page := _get(source)) is not None:
        yield [
            models.PointStruct(
                id=one.id,
                payload=one.payload,
                vector={
                    "dense": one.dense,
                    **{key: models.SparseVector(indices=at, values=by) for key, (at, by) in one.sparse.items()},
                },
            )
            for one in msgspec.msgpack.decode(page, type=list[_Record])
        ]


def _put(out: BinaryIO, content: bytes) -> None:
    out.write(len(content).to_bytes(8, "big") + content)


def _get(source: BinaryIO) -> bytes | None:
    head = source.read(8)
    if not head:
        return None
    size = int.from_bytes(head, "big")
    content = source.read(size) if len(head) == 8 and size < 1 << 31 else b""
    if len(content) != size:
        raise bad_snapshot("it ends too early")
    return content
