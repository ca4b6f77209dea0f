"""Sources outside: where rows come from that are in no local file; three ways to read them, as each place allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, runtime_checkable

import msgspec

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

__all__ = [
    "NUMBER_AS_TEXT",
    "Bucket",
    "Messages",
    "Point",
    "Range",
    "Relation",
    "Relations",
    "Remote",
    "SourceSettings",
    "column_called",
]

Point = datetime | date | int | Decimal
"""A value of a cursor column, in the database's own terms: a time without a zone stays without one."""

NUMBER_AS_TEXT = {b"mainspring:number": b"text"}
"""Metadata of a batch's field whose numbers come as text, because nothing else holds them exactly."""


class SourceSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is set of any source that is outside: ``[sources.NAME]``.

    Attributes:
        url: where it is; its scheme chooses the adapter.
        path: of no meaning here.
        table: the table or view that is read.
        query: a query whose rows are read, or the file that holds it.
        cursor: the column that only grows, for increments.
        overlap: how far before the newest row an increment begins.
        commit_rows: rows of one commit of an increment.
        format: of files.
        truncate: whether nanoseconds are cut off times.
        timeout: seconds that one read may take.
        connect_timeout: seconds that connecting may take.
        options: further options, in the driver's words.
    """

    url: str
    path: str | None = None
    table: str | None = None
    query: str | None = None
    cursor: str | None = None
    overlap: str | None = None
    commit_rows: int | None = None
    format: str | None = None
    truncate: str | None = None
    timeout: Annotated[float, msgspec.Meta(gt=0)] = 3600.0
    connect_timeout: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    options: dict[str, str] = {}


# -- databases --------------------------------------------------------------------------------------------------------


class Relation(msgspec.Struct, frozen=True):
    """What is read of a database: a table, or the rows of a query; exactly one of the two.

    Attributes:
        source: the source's name, for errors.
        table: the table's name, with its schema if need be: ``public.orders``.
        query: a query without a semicolon.
    """

    source: str
    table: str | None = None
    query: str | None = None

    @property
    def origin(self) -> str:
        """The setting that says so."""
        return f"sources.{self.source}.{'table' if self.query is None else 'query'}"

    def __str__(self) -> str:
        return f"table {self.table}" if self.query is None else "the query"


class Range(msgspec.Struct, frozen=True):
    """A part of a relation: the rows whose column is in it, and those where it is null.

    Attributes:
        column: the column.
        least: the least value that is in it; None is open.
        most: the greatest value that is in it.
    """

    column: str
    least: Point | None
    most: Point


@runtime_checkable
class Relations(Protocol):
    """A database: capability ``reads = "relation"``.

    Every method raises `ServiceError` MS-4220, it does not answer; MS-4221, it does not let this user in or read that;
    MS-4222, it took too long; `DataError` MS-2150, the table is not there or the query is none; MS-2151, a value that
    no column can hold.
    """

    def columns(self, of: Relation) -> Mapping[str, str]:
        """The relation's columns and their types in the database's words; no row is read."""

    def newest(self, of: Relation, column: str) -> Point | None:
        """The greatest value of a column, or None when there is none."""

    def rows(self, of: Relation, schema: pa.Schema, within: Range | None) -> Iterator[pa.RecordBatch]:
        """The rows, in one batch or more; in the order of the range's column when there is one, nulls first or last.

        Args:
            of: what is read.
            schema: the columns that are wanted, by name and by the type that they will be brought into. Names differ
                from the relation's at most in case, and all are there. Batches have these names in this order, and
                the types that lose nothing: numbers may be text (`NUMBER_AS_TEXT`).
            within: the part that is wanted; all rows when left out.
        """

    def answers(self) -> Mapping[str, object]:
        """What the server says of itself when it is asked."""

    def close(self) -> None:
        """Let go of connections."""


def column_called(name: str, held: Sequence[str]) -> str | None:
    """The column of that name; else the only one whose name differs in case alone; else None."""
    if name in held:
        return name
    near = [one for one in held if one.casefold() == name.casefold()]
    return near[0] if len(near) == 1 else None


# -- object stores ----------------------------------------------------------------------------------------------------


class Remote(msgspec.Struct, frozen=True):
    """A file in an object store.

    Attributes:
        path: its path in the store.
        size: its size in bytes.
        tag: what changes when its content does: the version, the entity tag.
    """

    path: str
    size: int
    tag: str


@runtime_checkable
class Bucket(Protocol):
    """A place in an object store: capability ``reads = "files"``.

    Every method raises `ServiceError` MS-4220 to MS-4222, as above; `DataError` MS-2112, there is no such bucket.
    """

    def files(self) -> Sequence[Remote]:
        """The files below the URL's path, sorted; of a path with ``*`` in it, those that it stands for."""

    def fetch(self, file: Remote, to: Path) -> None:
        """Write a file's content to a local one, as it comes; `DataError` MS-2152, it has changed meanwhile."""

    def answers(self) -> Mapping[str, object]:
        """What the store says of itself when it is asked."""

    def close(self) -> None:
        """Let go of connections."""


# -- streams ----------------------------------------------------------------------------------------------------------


@runtime_checkable
class Messages(Protocol):
    """A topic of a log of messages: capability ``reads = "messages"``.

    Every method raises `ServiceError` MS-4220 to MS-4222, as above; `DataError` MS-2150, there is no such topic.
    """

    @property
    def topic(self) -> str:
        """The topic's name."""

    def ends(self) -> Mapping[int, tuple[int, int]]:
        """Of each partition the first offset that is still there, and the one after the last."""

    def messages(self, begin: Mapping[int, int], end: Mapping[int, int]) -> Iterator[pa.RecordBatch]:
        """The messages of each partition from one offset up to another, each partition's in order.

        Batches have ``partition`` int32, ``offset`` int64, ``at`` timestamp[us, UTC], ``key`` and ``value`` binary,
        and end when all partitions are at their ends. Offsets that hold no message (compacted away, transaction
        marks) are left out.
        """

    def answers(self) -> Mapping[str, object]:
        """What the server says of itself when it is asked."""

    def close(self) -> None:
        """Let go of connections."""
