"""Logs: every row that ever arrived, in the order it did, with when it happened and when it became known.

One log a source (all columns of its record) and one a feature view (keys and what its features read). A log only
grows; each of its commits notes how much it holds and a digest of all of it, so that a version can be named by its
content.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import msgspec

from mainspring.declare.data import Source
from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.quality import Check
from mainspring.declare.record import FieldSpec
from mainspring.features.logs.digest import ContentDigest
from mainspring.features.online.keys import key_packer
from mainspring.features.quality.schemas import located
from mainspring.features.view import (
    ASSUMED,
    BATCH,
    DELETED,
    EVENT,
    INGEST,
    RETRACTS,
    SEQ,
    arrow_type,
    source_digest,
    stored_field,
)
from mainspring.lazy import lazy
from mainspring.ports.tables import Commit, RowStream, TableStore, Txn, Where

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    np, pa, pc = lazy("numpy"), lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = [
    "CONTENT_MARK",
    "MADE_MARK",
    "PUSH_MARK",
    "PUSH_WRITER",
    "SEQ_MARK",
    "WRITERS",
    "SourceTable",
    "TableVersion",
    "append_to_log",
    "counter_after",
    "key_hashes",
    "newest",
    "noted",
    "numbered",
    "reaching",
    "read_log",
    "record_schema",
    "rows_since",
    "sequence",
    "source_of",
    "source_schema",
    "standing",
]

SEQ_MARK = "seq"
"""The mark of a log that holds the greatest `_seq` it reaches."""

CONTENT_MARK = "content"
"""The mark of a source's log with a number for the content of the files that it speaks of."""

MADE_MARK = "made"
"""The mark of a source's log that says when it was made, and of a view's log, of which source's log it speaks: one that
was lost and made anew counts its rows from the beginning."""

PUSH_MARK = "push"
"""The mark of a source's log that holds the greatest `_seq` of a pushed row."""

PUSH_WRITER = 1
"""The writer in the low 15 bits of `_seq` for pushed rows; rows read from files have 0."""

_WRITER_BITS = 15
WRITERS = (1 << _WRITER_BITS) - 1
"""The bits of `_seq` that tell the writer."""
_VIEW_BYTES = 4


class TableVersion(msgspec.Struct, frozen=True):
    """A version of a log, by its content.

    Attributes:
        table: the log's name in the table store.
        version: its version there.
        rows: rows that stand in it: those that were taken away again, and what took them away, do not count.
        digest: of all rows up to this version, in the order they came, 32 hex digits.
        through: the greatest `_seq` that is in it, or -1; in a view's log, the greatest of its source's.
        max_event_us: the newest event in it, in microseconds, or None when it is empty.
        quarantined: rows set aside so far, in ``quarantine/NAME``.
        assumed: rows whose ingest time is not known, so that the event time stands for it.
        tidy: whether surely no row became known after it happened, and no two rows of an entity happened at once;
            such a log needs no search for the newest row known.
        files: a number for the content of the files that a source's log speaks of; 0 before it had any.
    """

    table: str
    version: int
    rows: int = 0
    digest: str = ""
    through: int = -1
    max_event_us: int | None = None
    quarantined: int = 0
    assumed: int = 0
    tidy: bool = False
    files: int = 0


class SourceTable(msgspec.Struct, frozen=True):
    """A source as a value: what its rows look like and what its columns mean.

    Attributes:
        name: the source's name.
        fields: its columns, in order.
        time: the column with the event time.
        ingested: the column with the moment a row became known, or None.
        valid_to: the column with the moment a row stops being valid, or None.
        id: the column that identifies an event over its corrections, or None.
        deleted: the boolean column that marks a deletion, or None.
        zone: the IANA zone of naive times, or None.
        origin: what to name as the cause of bad rows.
        digest: of all of this, so that a changed record gets a log of its own; the log of the old one stays.
        checks: what its rows must satisfy before they are committed; no part of the digest, for they judge what comes.
    """

    name: str
    fields: tuple[FieldSpec, ...]
    time: str
    ingested: str | None = None
    valid_to: str | None = None
    id: str | None = None
    deleted: str | None = None
    zone: str | None = None
    origin: str = ""
    digest: str = ""
    checks: tuple[Check, ...] = ()

    @property
    def unchecked(self) -> SourceTable:
        """The same without its checks, for what only reads its log."""
        return msgspec.structs.replace(self, checks=())

    @property
    def log(self) -> str:
        """The log's name in the table store."""
        return f"source/{self._place}"

    @property
    def quarantine(self) -> str:
        """The table of rows that were set aside."""
        return f"quarantine/{self._place}"

    @property
    def _place(self) -> str:
        return f"{self.name}/{self.digest[:16]}" if self.digest else self.name


def source_of(declaration: Source) -> SourceTable:
    """The value of a declared source."""
    spec = spec_of(declaration)
    return SourceTable(
        name_of(declaration),
        spec.fields,
        spec.time,
        spec.ingested,
        spec.valid_to,
        spec.id,
        spec.deleted,
        spec.zone,
        # Not the line it was declared on: that moves, and this is part of cache keys.
        f"record {spec.record.__name__}",
        source_digest(spec),
        tuple(_resolved(check) for check in spec.checks),
    )


def _resolved(check: Check) -> Check:
    """A check as a value that any process can hold: a reference by the name of the other source's log."""
    if check.to is None:
        return located(check)
    other = cast(Source, check.to)
    return dataclasses.replace(
        check, to=None, origin=None, log=source_of(other).log, name=f"{name_of(other)}.{check.to_column}"
    )


def record_schema(fields: Sequence[FieldSpec]) -> pa.Schema:
    """The Arrow schema of a record's rows, as users see them."""
    return pa.schema([pa.field(field.name, arrow_type(field.type), nullable=field.type.nullable) for field in fields])


def source_schema(source: SourceTable) -> pa.Schema:
    """The Arrow schema of a source's log: the record's columns, all nullable, then the system columns."""
    moment = pa.timestamp("us", "UTC")
    return pa.schema(
        [
            *(stored_field(field) for field in source.fields),
            pa.field(EVENT, moment, nullable=False),
            pa.field(INGEST, moment, nullable=False),
            pa.field(SEQ, pa.int64(), nullable=False),
            pa.field(DELETED, pa.bool_(), nullable=False),
            pa.field(ASSUMED, pa.bool_(), nullable=False),
            pa.field(BATCH, pa.string(), nullable=False),
            pa.field(RETRACTS, pa.int64()),
        ]
    )


def sequence(after: int | None, count: int, writer: int = 0) -> pa.Array:
    """The next `_seq` numbers after the greatest so far: ``counter << 15 | writer``, (count,) int64."""
    return numbered(counter_after(after), count, writer)


def counter_after(seq: int | None) -> int:
    """The counter that follows a `_seq`; 0 where there is none."""
    return 0 if seq is None or seq < 0 else (seq >> _WRITER_BITS) + 1


def numbered(counter: int, count: int, writer: int = 0) -> pa.Array:
    """The `_seq` numbers from a counter on, (count,) int64."""
    return pa.array(((np.arange(count, dtype=np.int64) + counter) << _WRITER_BITS) | writer)


def rows_since(
    tables: TableStore, log: str, version: int, after: int, columns: Sequence[str] | None = None
) -> pa.Table:
    """The rows of a version of a log beyond a `_seq`, in the order of `_seq`."""
    where = [(SEQ, ">", after)] if after >= 0 else []
    rows = read_log(tables, log, version, columns, where)
    seq = rows.column(SEQ).to_numpy()
    # A log of one file is in order, and sorting wide rows costs more than reading them.
    return rows if bool(np.all(seq[1:] > seq[:-1])) else rows.sort_by(SEQ)


def read_log(
    tables: TableStore,
    log: str,
    version: int | None = None,
    columns: Sequence[str] | None = None,
    where: Sequence[Where] = (),
) -> pa.Table:
    """The rows of a version of a log that meet all conditions, in no order; an old log's `RETRACTS` are nulls."""
    held = tables.schema(log, version).names
    if RETRACTS in held:
        return tables.read(log, version=version, columns=columns, where=where)
    known = None if columns is None else [name for name in columns if name != RETRACTS]
    rows = tables.read(log, version=version, columns=known, where=where)
    return rows.append_column(RETRACTS, pa.nulls(len(rows), pa.int64()))


def standing(rows: pa.Table) -> pa.Table:
    """The rows that nothing has taken away, without those that only take away; `rows` have `SEQ` and `RETRACTS`."""
    retracts = rows.column(RETRACTS)
    if retracts.null_count == len(rows):
        return rows
    gone = pc.is_in(rows.column(SEQ), pc.unique(retracts.drop_null()))
    return rows.filter(pc.and_(pc.is_null(retracts), pc.invert(gone)))


# -- versions by content ----------------------------------------------------------------------------------------------


def newest(tables: TableStore, table: str) -> TableVersion | None:
    """The newest version of a log, or None when there is no such log."""
    limit = 1
    while True:
        commits = tables.commits(table, limit)
        for commit in commits:
            if found := noted(table, commit):
                return found
        if len(commits) < limit:
            return None
        limit *= 8


def reaching(tables: TableStore, table: str, through: int) -> TableVersion:
    """The first version of a log that reaches a `_seq`.

    Raises:
        KeyError: the log does not reach it.
    """
    limit, found = 8, None
    while True:
        commits = tables.commits(table, limit)
        for commit in commits:
            version = noted(table, commit)
            if version is not None and version.through < through:
                break
            found = version or found
        else:
            if len(commits) == limit:
                limit, found = limit * 8, None
                continue
        if found is None:
            raise KeyError(through)
        return found


def append_to_log(
    tables: TableStore,
    table: str,
    rows: pa.Table | RowStream,
    txn: Txn,
    *,
    through: int,
    quarantined: int = 0,
    files: int | None = None,
    made: int = 0,
    marks: Mapping[str, int] | None = None,
    notes: Mapping[str, str] | None = None,
    keys: Sequence[str] = (),
) -> TableVersion:
    """Append rows to a log in one commit that notes the version's content; hold ``tables.writing(table)``.

    Args:
        tables: the table store.
        table: the log's name.
        rows: with the log's schema, in the order of `SEQ`.
        txn: makes it happen once.
        through: the greatest `_seq` that the log reaches then.
        quarantined: rows set aside with these.
        files: a number for the content of the files that the log speaks of then; as before when left out.
        made: the `MADE_MARK` of the log, if it has none yet. It is no part of the version, which is the same
            whenever it is made.
        marks: further marks of the commit.
        notes: further notes of the commit.
        keys: the columns that tell entities apart, in a view's log.
    """
    before = newest(tables, table) or TableVersion(table, -1, tidy=bool(keys))
    summed = _summed(rows)
    events = [moment for moment in (before.max_event_us, summed.newest) if moment is not None]
    after = TableVersion(
        table,
        before.version + 1,
        before.rows + summed.more,
        _rolled(before.digest, summed.digest) if summed.rows or not before.digest else before.digest,
        max(through, before.through),
        max(events, default=None),
        before.quarantined + quarantined,
        before.assumed + summed.assumed,
        before.tidy and not isinstance(rows, RowStream) and _stays_tidy(before, rows, keys),
        before.files if files is None else files,
    )
    # The marks that a driver asks for are in every commit, so that it need not look at more than the last.
    known = tables.mark(table, MADE_MARK)
    own = {MADE_MARK: made if before.version < 0 and known is None else known or 0}
    own |= {CONTENT_MARK: after.files} if after.files else {}
    own |= {SEQ_MARK: after.through} if after.through >= 0 else {}
    commit = tables.append(
        table,
        rows,
        txn,
        marks={**(marks or {}), **own},
        notes={**(notes or {}), "log": msgspec.json.encode(after).decode()},
    )
    return noted(table, commit) or after


class _Summed(msgspec.Struct):
    """What a commit notes of its rows: how many, how many more stand after them, the newest event, and so on."""

    rows: int = 0
    more: int = 0
    newest: int | None = None
    assumed: int = 0
    digest: str = ""


def _summed(rows: pa.Table | RowStream) -> _Summed:
    digest, found = ContentDigest(rows.schema), _Summed()
    parts = map(_table_of, rows.batches()) if isinstance(rows, RowStream) else [rows]
    for part in parts:
        digest.add(part)
        taken = len(part) - part.column(RETRACTS).null_count if RETRACTS in part.column_names else 0
        found.rows += len(part)
        found.more += len(part) - 2 * taken  # each that takes one away is one less
        found.assumed += pc.sum(part.column(ASSUMED)).as_py() or 0
        if len(part):
            event = pc.max(part.column(EVENT)).cast(pa.int64()).as_py()
            found.newest = event if found.newest is None else max(event, found.newest)
    found.digest = digest.hexdigest()
    return found


def _table_of(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])


def _rolled(before: str, digest: str) -> str:
    return hashlib.blake2b((before + digest).encode(), digest_size=16).hexdigest()


def _stays_tidy(before: TableVersion, rows: pa.Table, keys: Sequence[str]) -> bool:
    if not len(rows):
        return True
    if before.max_event_us is not None and pc.min(rows.column(EVENT)).cast(pa.int64()).as_py() <= before.max_event_us:
        return False
    if pc.any(pc.greater(rows.column(INGEST), rows.column(EVENT))).as_py():
        return False
    return bool(rows.select([*keys, EVENT]).group_by([*keys, EVENT]).aggregate([]).num_rows == len(rows))


def noted(table: str, commit: Commit) -> TableVersion | None:
    """The version that a commit of a log made, or None when it only rearranged files."""
    note = commit.notes.get("log")
    if note is None:
        return None
    return msgspec.structs.replace(msgspec.json.decode(note, type=TableVersion), table=table, version=commit.version)


# -- keys -------------------------------------------------------------------------------------------------------------


def key_hashes(rows: pa.Table, keys: Sequence[FieldSpec]) -> pa.Array:
    """blake2b-32 of each row's key bytes as int32, (rows,); the same in every process, version and engine."""
    codes = np.zeros(len(rows), np.int64)
    for key in keys:
        encoded = rows.column(key.name).combine_chunks().dictionary_encode()
        places = encoded.indices.cast(pa.int64()).to_numpy(zero_copy_only=False)
        codes = np.unique(codes * max(len(encoded.dictionary), 1) + places, return_inverse=True)[1]
    _, first, place = np.unique(codes, return_index=True, return_inverse=True)
    distinct = rows.select([key.name for key in keys]).take(pa.array(first)).to_pylist()
    pack = key_packer(0, keys)
    hashes = [hashlib.blake2b(pack(row)[_VIEW_BYTES:], digest_size=4).digest() for row in distinct]
    return pa.array(np.frombuffer(b"".join(hashes), ">i4").astype(np.int32)[place])
