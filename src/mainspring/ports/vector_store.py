"""Vector stores: points with a vector, words and a payload; found by nearness, by words, or both, under a filter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, runtime_checkable

import msgspec

from mainspring.ports.vector_filter import (
    And,
    Any,
    Eq,
    Exists,
    FieldType,
    Filter,
    In,
    Not,
    Or,
    Range,
    Scalar,
    check_filter,
    filter_from_json,
    filter_to_json,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "And",
    "Any",
    "Capabilities",
    "Durability",
    "Eq",
    "Exists",
    "Field",
    "FieldType",
    "Filter",
    "Hit",
    "Hits",
    "In",
    "Leg",
    "Metric",
    "Not",
    "Note",
    "NoteCode",
    "Or",
    "Page",
    "Point",
    "Query",
    "Range",
    "Scalar",
    "Schema",
    "Sparse",
    "Stats",
    "Stored",
    "Vector",
    "VectorStore",
    "Where",
    "check_filter",
    "filter_from_json",
    "filter_to_json",
]

Vector: TypeAlias = "Sequence[float] | npt.NDArray[np.float32]"
Metric = Literal["cosine", "dot"]
Leg = Literal["dense", "sparse", "text"]
Durability = Literal["process_crash", "power_loss"]
NoteCode = Literal["fewer_than_k", "exact_fallback", "rerank_skipped"]
Where: TypeAlias = "Filter | Sequence[str]"
"""Points by a filter, or by their ids."""


class Field(msgspec.Struct, frozen=True):
    """A key of the payload that filters may name; other keys are stored and given back only.

    Attributes:
        name: a letter, then letters, digits, ``_``, ``-`` and ``.``; a dot does not nest.
        type: ``string``, ``integer`` (within 2^53), ``number``, ``boolean``, ``strings``, ``integers``.
    """

    name: str
    type: FieldType


class Schema(msgspec.Struct, frozen=True):
    """What an index holds; a different one is a different index.

    Attributes:
        dims: numbers of a dense vector.
        metric: ``cosine`` scales every vector to unit length; ``dot`` takes them as they are.
        fields: what filters may name.
        text: whether the words of points are indexed.
        language: of stop words and stemmer: ``english``; empty for none.
        words: mean number of words of a point's text, for BM25 in stores that do not count it themselves.
        sparse: whether points bring sparse vectors of their own.
        quantised: whether the store may search compact copies of the vectors, and judge what it finds by the true ones.
    """

    dims: int
    metric: Metric = "cosine"
    fields: tuple[Field, ...] = ()
    text: bool = True
    language: str = "english"
    words: float = 256.0
    sparse: bool = False
    quantised: bool = True

    @property
    def types(self) -> dict[str, FieldType]:
        """The type of each field, by its name."""
        return {field.name: field.type for field in self.fields}


class Sparse(msgspec.Struct, frozen=True):
    """A sparse vector: distinct indices below 2^32, a finite weight for each."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


class Point(msgspec.Struct, frozen=True):
    """A row of an index.

    Attributes:
        id: a UUID in its canonical text, such as the UUIDv5 of a chunk's id.
        vector: float32[dims].
        payload: keys like a field's name, JSON values; a null is as good as no value.
        text: what the words are taken from; it is indexed, not given back.
        sparse: where the schema says so.
    """

    id: str
    vector: Vector
    payload: Mapping[str, object] = {}
    text: str = ""
    sparse: Sparse | None = None


class Query(msgspec.Struct, frozen=True):
    """What is looked for; with several of dense, sparse and text, their ranks are fused.

    Attributes:
        dense: float32[dims], or None.
        sparse: a sparse vector, or None.
        text: words, at least one of which is in what is found; None for no such leg.
        filter: what every hit fulfils.
        k: how many hits, 1 to 10,000.
        recall_target: share of the true nearest that a dense leg should find; 1 searches exactly.
        candidates: how many of each leg are fused, at least k.
        fields: keys of the payload that are given back; None is all of it.
    """

    dense: Vector | None = None
    sparse: Sparse | None = None
    text: str | None = None
    filter: Filter | None = None
    k: int = 10
    recall_target: float = 0.95
    candidates: int = 100
    fields: tuple[str, ...] | None = None

    @property
    def legs(self) -> tuple[Leg, ...]:
        """The legs that are asked for, in the order dense, sparse, text."""
        given: tuple[tuple[Leg, object], ...] = (("dense", self.dense), ("sparse", self.sparse), ("text", self.text))
        return tuple(leg for leg, value in given if value is not None)


class Hit(msgspec.Struct, frozen=True):
    """A point that was found.

    Attributes:
        id: its id.
        score: of one leg, that leg's own (the greater the nearer); of several, the fused one.
        payload: what was asked for of it.
        ranks: its rank in each leg that has it, from 1.
    """

    id: str
    score: float
    payload: Mapping[str, object] = {}
    ranks: Mapping[str, int] = {}


class Note(msgspec.Struct, frozen=True):
    """Something about an answer that its reader should know."""

    code: NoteCode
    detail: str = ""


class Hits(msgspec.Struct, frozen=True):
    """What was found, the best first: `k` hits, or `complete` is false and a note says why."""

    hits: tuple[Hit, ...]
    complete: bool = True
    notes: tuple[Note, ...] = ()


class Stored(msgspec.Struct, frozen=True):
    """A point as it is stored; its vector (float32[dims], of unit length for cosine) where that was asked for."""

    id: str
    payload: Mapping[str, object]
    vector: Vector | None = None


class Page(msgspec.Struct, frozen=True):
    """Points in the order of their ids, and the cursor of the next page, or None."""

    points: tuple[Stored, ...]
    cursor: str | None = None


class Stats(msgspec.Struct, frozen=True):
    """How large an index is.

    Attributes:
        rows: points.
        unindexed: points that a dense leg reads one by one, because `optimize` has not seen them.
        bytes_allocated: disk that it takes, holes not counted.
    """

    rows: int
    unindexed: int
    bytes_allocated: int


class Capabilities(msgspec.Struct, frozen=True):
    """What a store can do, as data, so that plans choose and no code asks for its name.

    Attributes:
        metrics: what nearness may mean.
        max_dims: most numbers of a dense vector.
        quantisation: the compact copies that it may search: ``int8``, ``half``.
        sparse: whether points may bring sparse vectors.
        full_text: how it finds words: ``bm25``, ``rank`` (an order of its own), or empty when it cannot.
        fusion: where the ranks of several legs are fused: ``client`` or ``engine``.
        filter_ops: the parts of a filter that it carries out itself; any other is refused.
        field_types: the types that fields may have.
        payload_update: whether a payload changes without its vector.
        delete_by_filter: whether a filter may say what goes.
        native_alias: whether aliases are the store's own.
        snapshot: whether an index can be copied into one file and back.
        readers: processes that may read an index at once.
        writers: processes that may write one.
        durability: what survives after `flush`.
        tenancy: how tenants are kept apart.
        id_form: what its own ids are.
    """

    metrics: tuple[Metric, ...]
    max_dims: int
    quantisation: tuple[str, ...] = ()
    sparse: bool = False
    full_text: Literal["", "bm25", "rank"] = ""
    fusion: Literal["client", "engine"] = "client"
    filter_ops: tuple[str, ...] = ("and", "or", "not", "eq", "in", "range", "any", "exists")
    field_types: tuple[FieldType, ...] = ("string", "integer", "number", "boolean", "strings", "integers")
    payload_update: bool = True
    delete_by_filter: bool = True
    native_alias: bool = False
    snapshot: bool = True
    readers: Literal["one", "many"] = "one"
    writers: Literal["one", "many"] = "one"
    durability: Durability = "process_crash"
    tenancy: Literal["filter", "partition", "native"] = "filter"
    id_form: Literal["uuid", "string", "int"] = "uuid"


@runtime_checkable
class VectorStore(Protocol):
    """Indexes by name. Every method may be called from several threads; where an index is named, so may its alias be.

    Every method raises, beside what it says:
        UsageError: MS-2655, a name, id, key or number that cannot be.
        ServiceError: MS-4180, no such index; MS-4182, another process owns it; others as the adapter says.
    """

    def capabilities(self) -> Capabilities:
        """What it can do."""

    def indexes(self) -> tuple[str, ...]:
        """The names of all indexes, sorted; aliases are not among them."""

    def create(self, index: str, schema: Schema) -> None:
        """Make an empty index; nothing when there is one with that very schema.

        Raises:
            UsageError: MS-2657, the store cannot hold such a schema.
            StoreError: MS-4181, there is one with another schema, or an alias of that name.
        """

    def schema(self, index: str) -> Schema:
        """The schema that an index was made with."""

    def drop(self, index: str) -> None:
        """Remove an index; nothing when there is none.

        Raises:
            StoreError: MS-4184, an alias leads to it.
        """

    def upsert(self, index: str, points: Sequence[Point], version: int | None = None) -> int:
        """Write points whole, over those of the same ids; found by a search at once. Doing it again changes nothing.

        Args:
            index: the index or its alias.
            points: any number; of those with one id the last counts.
            version: where given, a point that was written with a greater one stays as it is.

        Returns:
            How many were written.

        Raises:
            UsageError: MS-2653, a payload does not fit; MS-2654, a vector does not.
        """

    def set_payload(self, index: str, where: Where, patch: Mapping[str, object]) -> None:
        """Put these keys into the payloads, None takes a key out; ids that are not there are passed over.

        Raises:
            UsageError: MS-2650 to MS-2653.
        """

    def delete(self, index: str, where: Where) -> None:
        """Remove points; ids that are not there are passed over.

        Raises:
            UsageError: MS-2650 to MS-2652, of the filter.
        """

    def search(self, index: str, query: Query) -> Hits:
        """The `k` best points, or `complete` false and why.

        Raises:
            UsageError: MS-2650 to MS-2652, of the filter; MS-2654, of a vector; MS-2656, what the store cannot carry
                out itself: never done afterwards.
        """

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
        """A page of points in the order of their ids.

        Args:
            index: the index or its alias.
            filter: what they fulfil.
            cursor: that of the page before; None for the first.
            limit: most points of the page, 1 to 10,000.
            fields: keys of the payload that are given back; None is all of it.
            vectors: whether vectors are, too.

        Raises:
            UsageError: MS-2650 to MS-2652, of the filter.
        """

    def count(self, index: str, filter: Filter | None = None) -> int:
        """How many points fulfil the filter, exactly.

        Raises:
            UsageError: MS-2650 to MS-2652, of the filter.
        """

    def flush(self, index: str) -> Durability:
        """Make all that was written so far survive; what it then survives."""

    def optimize(self, index: str) -> None:
        """Build what makes searches fast; searches and writes go on meanwhile."""

    def snapshot(self, index: str, file: Path) -> None:
        """Copy an index into a new file, as of one moment.

        Raises:
            StoreError: MS-4186, the file is there, or cannot be written.
        """

    def restore(self, index: str, file: Path) -> None:
        """Make an index of a snapshot that a store of this kind has written.

        Raises:
            StoreError: MS-4181, the index is there; MS-4186, the file is no such snapshot.
        """

    def alias(self, name: str, index: str) -> None:
        """Let a name lead to an index, from one moment to the next, wherever it led before.

        Raises:
            StoreError: MS-4181, an index has that name.
        """

    def aliases(self) -> Mapping[str, str]:
        """The index that each alias leads to."""

    def stats(self, index: str) -> Stats:
        """How large an index is."""

    def close(self) -> None:
        """Let go of every index; what was written stays."""
