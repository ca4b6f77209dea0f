"""The vectors port on a Qdrant server: a collection an index, its schema in the collection's metadata."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from mainspring.adapters.qdrant.collection import made, read_records, schema_in, schema_of, write_records
from mainspring.adapters.qdrant.filters import having, key_of, native
from mainspring.adapters.qdrant.legs import QdrantLegs, shown, wanted
from mainspring.adapters.qdrant.problems import no_answer, turned
from mainspring.adapters.qdrant.settings import QdrantSettings
from mainspring.adapters.qdrant.words import Words, sparse
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
    Stored,
    Where,
    check_filter,
)
from mainspring.vectors.checked import (
    MOST,
    between,
    check_schema,
    name_of,
    patch_of,
    payload_of,
    point_id,
    vectors_of,
)
from mainspring.vectors.faults import (
    aliased,
    bad_snapshot,
    closed,
    exists_otherwise,
    name_is_taken,
    no_index,
    not_pushed_down,
)
from mainspring.vectors.searching import find

if TYPE_CHECKING:
    import numpy as np
    import qdrant_client
    from qdrant_client import QdrantClient, models
else:
    np = lazy("numpy")
    qdrant_client = lazy("qdrant_client")
    models = lazy("qdrant_client.models")

__all__ = ["QdrantStore", "open_store"]

_CAPABILITIES = Capabilities(
    metrics=("cosine", "dot"),
    max_dims=65_536,
    quantisation=("int8",),
    sparse=True,
    full_text="bm25",
    native_alias=True,
    readers="many",
    writers="many",
)
_VERSION = "_version"
_BATCH = 500
_LOOK = 1.0
"""Seconds between two looks at the server's optimiser."""


class QdrantStore:
    """Indexes in a Qdrant server; threads and processes may share it.

    Args:
        client: the server's client.
        settings: how indexes are made.
    """

    def __init__(self, client: QdrantClient, settings: QdrantSettings) -> None:
        self._client, self._settings = client, settings
        self._naming = threading.Lock()
        self._closed = False

    def capabilities(self) -> Capabilities:
        """What it can do."""
        return _CAPABILITIES

    @contextlib.contextmanager
    def _asking(self) -> Iterator[QdrantClient]:
        if self._closed:
            raise closed("qdrant")
        try:
            yield self._client
        except Exception as error:
            raise turned(error) from error

    @contextlib.contextmanager
    def _using(self, name: str) -> Iterator[tuple[QdrantClient, Schema]]:
        name_of(name)
        with self._asking() as client:
            there = client.collection_exists(name) or name in self._aliases(client)
            schema = schema_of(client, name) if there else None
            if schema is None:
                raise no_index(name)
            yield client, schema

    # -- names --------------------------------------------------------------------------------------------------------

    def indexes(self) -> tuple[str, ...]:
        """The names of all indexes."""
        with self._asking() as client:
            names = sorted(one.name for one in client.get_collections().collections)
            return tuple(name for name in names if schema_of(client, name) is not None)

    def create(self, index: str, schema: Schema) -> None:
        """Make an empty index."""
        name_of(index)
        check_schema("qdrant", schema, _CAPABILITIES)
        if schema.text:
            Words(schema)
        with self._naming, self._asking() as client:
            if index in self._aliases(client):
                raise name_is_taken(index, "an alias")
            if not client.collection_exists(index):
                made(client, index, schema, self._settings)
            elif schema_of(client, index) != schema:
                raise exists_otherwise(index)

    def schema(self, index: str) -> Schema:
        """The schema that an index was made with."""
        with self._using(index) as (_, schema):
            return schema

    def drop(self, index: str) -> None:
        """Remove an index."""
        name_of(index)
        with self._naming, self._asking() as client:
            leading = sorted(name for name, led in self._aliases(client).items() if led == index)
            if leading:
                raise aliased(index, leading)
            if client.collection_exists(index):
                client.delete_collection(index)

    def alias(self, name: str, index: str) -> None:
        """Let a name lead to an index."""
        name_of(name)
        name_of(index)
        with self._naming, self._asking() as client:
            known = self._aliases(client)
            if name not in known and client.collection_exists(name):
                raise name_is_taken(name, "an index")
            target = known.get(index, index)
            if not client.collection_exists(target):
                raise no_index(index)
            gone = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=name))
            new = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=target, alias_name=name))
            client.update_collection_aliases([gone, new] if name in known else [new])

    def aliases(self) -> Mapping[str, str]:
        """The index that each alias leads to."""
        with self._asking() as client:
            return self._aliases(client)

    @staticmethod
    def _aliases(client: QdrantClient) -> dict[str, str]:
        return {one.alias_name: one.collection_name for one in client.get_aliases().aliases}

    # -- points -------------------------------------------------------------------------------------------------------

    def upsert(self, index: str, points: Sequence[Point], version: int | None = None) -> int:
        """Write points whole."""
        with self._using(index) as (client, schema):
            ready = self._ready(points, schema, version)
            written = 0
            for start in range(0, len(ready), _BATCH):
                batch = ready[start : start + _BATCH]
                newer = 0 if version is None else _newer(client, index, [str(one.id) for one in batch], version)
                # The server itself compares again, so that two writers at once end with the greater version.
                client.upsert(index, batch, update_filter=None if version is None else _not_over(version))
                written += len(batch) - newer
            return written

    @staticmethod
    def _ready(points: Sequence[Point], schema: Schema, version: int | None) -> list[models.PointStruct]:
        distinct = {point_id(point.id): point for point in points}
        unit = schema.metric == "cosine"
        vectors = vectors_of([point.vector for point in distinct.values()], schema.dims, unit=unit)
        if version is not None:
            between("version", version, 0, (1 << 53) - 1)
        words = Words(schema) if schema.text else None
        ready = []
        for (id, point), vector in zip(distinct.items(), vectors, strict=True):
            found: dict[str, list[float] | models.SparseVector] = {"dense": vector.tolist()}
            if words is not None and point.text:
                found["text"] = words.document(point.text)
            if point.sparse is not None:
                if not schema.sparse:
                    raise not_pushed_down("the index", "sparse vectors: it was made without them")
                found["sparse"] = sparse(point.sparse)
            payload = payload_of(point.payload, schema.types)
            extra = {} if version is None else {_VERSION: version}
            ready.append(models.PointStruct(id=id, vector=found, payload=payload | extra))  # type: ignore[arg-type]
        return ready

    def set_payload(self, index: str, where: Where, patch: Mapping[str, object]) -> None:
        """Put keys into payloads."""
        with self._using(index) as (client, schema):
            put, gone = patch_of(patch, schema.types)
            chosen = _chosen(where, schema)
            if gone:
                # By id where the filter reads what changes: the second step must find the same points.
                chosen = having(list(_ids(client, index, chosen)))
                client.delete_payload(index, keys=[key_of(key) for key in gone], points=chosen)
            if put:
                client.set_payload(index, payload=put, points=chosen)

    def delete(self, index: str, where: Where) -> None:
        """Remove points."""
        with self._using(index) as (client, schema):
            client.delete(index, points_selector=models.FilterSelector(filter=_chosen(where, schema)))

    def search(self, index: str, query: Query) -> Hits:
        """The best points."""
        with self._using(index) as (client, schema):
            chosen = None if query.filter is None else native(check_filter(query.filter, schema.types))
            return find(query, QdrantLegs(client, index, schema, query, chosen))

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
        between("limit", limit, 1, MOST)
        with self._using(index) as (client, schema):
            records, following = client.scroll(
                index,
                None if filter is None else native(check_filter(filter, schema.types)),
                limit=limit,
                offset=None if cursor is None else point_id(cursor),
                with_payload=wanted(fields),
                with_vectors=["dense"] if vectors else False,
            )
        points = tuple(Stored(str(r.id), shown(r.payload), _dense(r.vector) if vectors else None) for r in records)
        return Page(points, None if following is None else str(following))

    def count(self, index: str, filter: Filter | None = None) -> int:
        """How many points fulfil the filter."""
        with self._using(index) as (client, schema):
            chosen = None if filter is None else native(check_filter(filter, schema.types))
            return client.count(index, chosen, exact=True).count

    # -- keeping ------------------------------------------------------------------------------------------------------

    def flush(self, index: str) -> Durability:
        """Nothing is left to do: every write was awaited, and is in the server's log."""
        with self._using(index):
            return _CAPABILITIES.durability

    def optimize(self, index: str) -> None:
        """Wait until the server's own optimiser has come to an end."""
        until = time.monotonic() + self._settings.build_timeout
        with self._using(index) as (client, _):
            while client.get_collection(index).status != models.CollectionStatus.GREEN:
                if time.monotonic() > until:
                    raise no_answer(f"it still builds after {self._settings.build_timeout:g} seconds")
                time.sleep(_LOOK)

    def snapshot(self, index: str, file: Path) -> None:
        """Copy an index into a file; what others write meanwhile may be in it or not."""
        try:
            with self._using(index) as (client, schema), file.open("xb") as out:
                write_records(client, index, schema, out)
                out.flush()
                os.fsync(out.fileno())
        except OSError as error:
            raise bad_snapshot(str(error)) from error

    def restore(self, index: str, file: Path) -> None:
        """Make an index of a snapshot."""
        try:
            with file.open("rb") as source:
                schema = schema_in(source)
                with self._asking() as client:
                    if client.collection_exists(name_of(index)):
                        raise name_is_taken(index, "an index")
                    self.create(index, schema)
                    for page in read_records(source):
                        client.upsert(index, page)
        except (OSError, msgspec.DecodeError) as error:
            raise bad_snapshot(str(error)) from error

    def stats(self, index: str) -> Stats:
        """How large an index is; the server does not tell its disk, which is 0 here."""
        with self._using(index) as (client, schema):
            rows = client.count(index, exact=True).count
            indexed = client.get_collection(index).indexed_vectors_count or 0
            sparse = rows if schema.text else 0  # those count as indexed too
            return Stats(rows, rows - min(rows, max(0, indexed - sparse)), 0)

    def close(self) -> None:
        """Close all connections."""
        if not self._closed:
            self._closed = True
            self._client.close()


def _chosen(where: Where, schema: Schema) -> models.Filter:
    if isinstance(where, (list, tuple, set, frozenset)):
        return having([point_id(id) for id in where])
    return native(check_filter(cast(Filter, where), schema.types))


def _ids(client: QdrantClient, name: str, chosen: models.Filter) -> Iterator[str]:
    offset = None
    while True:
        records, offset = client.scroll(name, chosen, limit=MOST, offset=offset, with_payload=False)
        yield from (str(record.id) for record in records)
        if offset is None:
            return


def _not_over(version: int) -> models.Filter:
    greater = models.FieldCondition(key=key_of(_VERSION), range=models.Range(gt=version))
    return models.Filter(must_not=[greater])


def _newer(client: QdrantClient, name: str, ids: list[str], version: int) -> int:
    there = client.retrieve(name, list(ids), with_payload=[key_of(_VERSION)])
    return sum((record.payload or {}).get(_VERSION, -1) > version for record in there)


def _dense(vector: object) -> np.ndarray:
    return np.asarray(cast("Mapping[str, object]", vector)["dense"], dtype=np.float32)


def open_store(settings: QdrantSettings, place: Path) -> QdrantStore:
    """The store at the settings' URL; the state folder is not used, and nothing is connected before the first use.

    Raises:
        ServiceError: MS-4195 to MS-4197, at the first use.
    """
    scheme, _, rest = settings.url.partition("://")
    url = f"{ {'qdrant': 'http', 'qdrants': 'https'}.get(scheme, scheme) }://{rest}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that a key goes over plain HTTP: the settings say so
        client = qdrant_client.QdrantClient(
            url=url,
            api_key=settings.api_key,
            timeout=settings.timeout,
            check_compatibility=False,
            prefer_grpc=settings.grpc_port > 0,
            grpc_port=settings.grpc_port or 6334,
        )
    return QdrantStore(client, settings)
