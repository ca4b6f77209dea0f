"""The table store: append-only tables with versions that can be read again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

__all__ = ["Commit", "HasTables", "Limits", "Owner", "RowStream", "TableStore", "Txn", "Where"]

Where = tuple[str, str, object]
"""A condition on a column: ``("_seq", ">", 40)``; the operators are ``== != < <= > >= in``."""


class Txn(msgspec.Struct, frozen=True):
    """What makes an append exactly-once: the n-th save of one writer.

    Attributes:
        app_id: the writer: ``wal/3``, ``file/1c0ffee``, ``kafka/orders/0``.
        n: grows with each save of that writer; a save whose n was reached is not repeated.
    """

    app_id: str
    n: int


class Commit(msgspec.Struct, frozen=True):
    """One version of a table.

    Attributes:
        version: the table's version after it.
        rows: how many rows it appended.
        at_us: when it was made, in microseconds since 1970, by the clock of the machine that made it.
        operation: what it did, in the store's words: ``WRITE``, ``OPTIMIZE``.
        txn: the save it was, or None.
        notes: what the writer noted with it.
        repeated: whether the save had been made before, so that nothing was appended now.
    """

    version: int
    rows: int
    at_us: int
    operation: str
    txn: Txn | None = None
    notes: Mapping[str, str] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    repeated: bool = False


class RowStream(msgspec.Struct, frozen=True):
    """Rows that are made as they are written, so that they need not be held at once.

    Attributes:
        schema: of all batches.
        rows: how many there are in all.
        batches: makes them, the same at each call; it may be called in another thread, and uses no table.
    """

    schema: pa.Schema
    rows: int
    batches: Callable[[], Iterator[pa.RecordBatch]]


class Limits(msgspec.Struct, frozen=True):
    """What those who query tables may take of the machine.

    Attributes:
        memory: what a query may hold, as ``1GiB``, or None for as much as the engine sees fit.
        spill: a folder for what does not fit, or None for the engine's own.
    """

    memory: str | None = None
    spill: str | None = None


class Owner(msgspec.Struct, frozen=True):
    """The state folder that alone may write tables, because the log of what was pushed and the locks are in it.

    Attributes:
        id: tells it from all others.
        place: where it is, for people.
        epoch: which one it is: 1 is the first, and each that took over is one more.
    """

    id: str
    place: str
    epoch: int


@runtime_checkable
class TableStore(Protocol):
    """Tables by name (``source/flights``). A commit that was returned survives kill -9; each version stays readable.

    Every method raises `StoreError`: MS-4101 disk full, MS-4130 unreadable or unwritable, MS-4131 no such table or
    version, MS-4132 rows that do not fit, MS-4133 a damaged or newer table, MS-4134 other writers are in the way.
    """

    @property
    def limits(self) -> Limits:
        """What a query of these tables may take of the machine."""

    def claim(self) -> None:
        """See that tables may be written from here, before anything is promised that needs it; quick.

        Raises:
            StoreError: MS-4311, others alone may.
        """

    def owner(self) -> Owner | None:
        """Who alone may write, or None where nobody has written yet or whoever gets there may write."""

    def take(self, owner: str) -> tuple[Owner, Path | None]:
        """Write from here in the place of another, for good: what that one tries to commit from now on is refused.

        Args:
            owner: the `Owner.id` of that one, or six or more letters that it begins with.

        Returns:
            What is here, and the folder into which all was put that lay `beside` these tables here from an earlier
            time as their writer, if there was such a thing: pushes in it may have been committed there or not.

        Raises:
            StoreError: MS-4271, it is another; MS-4273, nobody alone may write.
        """

    def tables(self, below: str = "") -> tuple[str, ...]:
        """The names of all tables, or of those below a name (``source/flights/..``), sorted."""

    def version(self, table: str) -> int | None:
        """The newest version, or None when there is no such table."""

    def has(self, table: str, version: int) -> bool:
        """Whether a version can still be read, as far as a look without opening the table tells; quick."""

    def schema(self, table: str, version: int | None = None) -> pa.Schema:
        """The Arrow schema of a version, the newest when left out."""

    def append(
        self,
        table: str,
        rows: pa.Table | RowStream,
        txn: Txn,
        *,
        marks: Mapping[str, int] = MappingProxyType({}),
        notes: Mapping[str, str] = MappingProxyType({}),
    ) -> Commit:
        """Append rows in one commit, exactly once for each `txn`; the first append makes the table.

        Args:
            table: its name.
            rows: fitting the table's columns; new columns are added to it and are null in older rows.
            txn: which save this is.
            marks: further numbers that the same commit sets; read them with `mark`.
            notes: kept with the commit.

        Returns:
            The commit, or the earlier one with ``repeated`` when the save had been made.
        """

    def mark(self, table: str, app_id: str) -> int | None:
        """The greatest n saved under that name, or None; also when there is no such table."""

    def commit_of(self, table: str, app_id: str, n: int | None = None) -> Commit | None:
        """The newest commit of that writer with that n (any n when None), or None."""

    def commits(self, table: str, limit: int | None = None) -> tuple[Commit, ...]:
        """The newest commits, newest first, all of them without a limit; of a table that is not there, none."""

    def files(self, table: str, version: int | None = None) -> tuple[str, ...]:
        """The Parquet files that make up a version, as paths for `duckdb.read_parquet` (glob signs escaped)."""

    def read(
        self,
        table: str,
        *,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        where: Sequence[Where] = (),
    ) -> pa.Table:
        """The rows of a version that meet all conditions, in no order; columns a file lacks are null."""

    def writing(self, table: str) -> AbstractContextManager[None]:
        """Hold off other writers of a table, so that what is read here is still true when it is appended to."""

    def beside(self, name: str) -> Path:
        """A folder for what all writers of these tables share, such as the log of pushes; it need not be there yet.

        Locks on its files hold for all of them, and what they have synced survives a loss of power.
        """

    def sync(self, table: str) -> None:
        """Make all that was committed survive a loss of power too; nothing when the table is not there."""

    def compact(self, table: str) -> Commit | None:
        """Rewrite small files as large ones; same rows, a new version. None when there was nothing to do."""

    def vacuum(self, table: str, *, keep: Collection[int], retention_hours: float = 168.0) -> int:
        """Delete files that only old versions use, save the kept ones; how many were deleted.

        Args:
            table: its name.
            keep: versions that stay readable: those that training sets and caches have pinned.
            retention_hours: files removed from the table less than this ago stay.
        """

    def drop(self, table: str) -> None:
        """Delete a table and its history; nothing when it is not there."""

    def close(self) -> None:
        """Let go of open handles."""


class HasTables(Protocol):
    """Anything that has the table store: the project's `Services`."""

    @property
    def tables(self) -> TableStore:
        """The offline tables."""
