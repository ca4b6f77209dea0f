"""The one way rows get into a source's log: from files and from pushes, each batch exactly once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from mainspring.errors import DataError
from mainspring.features.duck import connection, quoted
from mainspring.features.history import HasTables
from mainspring.features.ingest import REASON, Prepared, prepare_rows
from mainspring.features.log import (
    PUSH_WRITER,
    SEQ_MARK,
    WRITERS,
    SourceTable,
    TableVersion,
    append_to_log,
    content_digest,
    newest,
    noted,
    reaching,
    read_log,
    sequence,
    source_schema,
    standing,
)
from mainspring.features.project import update_view
from mainspring.features.unheld import unheld
from mainspring.features.view import BATCH, EVENT, RETRACTS, SEQ, View, stored_field
from mainspring.lazy import lazy
from mainspring.ports.tables import Commit, TableStore, Txn

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    np, pa, pc = lazy("numpy"), lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = [
    "PUSH_MARK",
    "Changes",
    "Increment",
    "PushResult",
    "append_increment",
    "append_rows",
    "has_batches",
    "holds_content",
    "ingest_batch",
]

PUSH_MARK = "push"
"""The mark of a source's log that holds the greatest `_seq` of a pushed row."""
_FILES = "files"
"""The writer of what files bring; it counts how often they brought something."""
_CONTENT = "content"
_REQUEST = "request"


@dataclass(frozen=True, slots=True)
class PushResult:
    """What became of pushed rows.

    Attributes:
        accepted: rows that the source's log took.
        quarantined: rows set aside.
        report: how many for each reason.
        seq: the first and the last `_seq` of the accepted rows, or None when there is none.
        source: the source's log after it.
        views: the logs of the views that were brought up to date, by name.
        logged: what the batch put into each view's log, by name, with the system columns: what goes online next.
        repeated: whether this request had been carried out before, so that nothing was appended now.
    """

    accepted: int
    quarantined: int
    report: Mapping[str, int]
    seq: tuple[int, int] | None
    source: TableVersion
    views: Mapping[str, TableVersion] = field(default_factory=lambda: MappingProxyType({}))
    logged: Mapping[str, pa.Table] = field(default_factory=lambda: MappingProxyType({}))
    repeated: bool = False


def append_rows(
    services: HasTables,
    source: SourceTable,
    rows: pa.Table,
    now_us: int,
    views: Sequence[View] = (),
    *,
    request_id: str | None = None,
) -> PushResult:
    """The offline half of a push: when it returns, the rows are in the tables.

    Args:
        services: where the table store is.
        source: the source that is pushed to.
        rows: its record's columns, as the client sent them.
        now_us: the moment of arrival, in microseconds since 1970.
        views: the views of declared aggregates of this source; their logs are brought up to date too.
        request_id: makes a repeated request harmless; it is of these rows, and of no others.

    Raises:
        DataError: MS-2110, MS-2111, the rows are not of the record's types; MS-2121, the `request_id` came with other
            rows before; nothing is appended.
        StoreError: as the table store raises; the same push with the same `request_id` then goes on where it stopped.
    """
    tables = services.tables
    prepared = prepare_rows(source, rows)
    with tables.writing(source.log):
        head = tables.mark(source.log, SEQ_MARK)
        before = -1 if head is None else head
        aside = tables.version(source.quarantine)
        batch = f"request/{request_id}" if request_id else f"push/{before}/{-1 if aside is None else aside}"
        earlier = tables.commit_of(source.log, batch, 1) if request_id else None
        asked = content_digest(prepared.rows) + content_digest(prepared.set_aside)
        if earlier is None:
            stamped = _stamp(source, prepared.rows, sequence(head, len(prepared.rows), PUSH_WRITER), batch, now_us)
            notes = {_REQUEST: asked} if request_id else {}
            version = _append_pushed(tables, source, prepared, stamped, batch, notes, now_us)
        elif earlier.notes.get(_REQUEST, asked) != asked:
            raise _another(source, str(request_id))
        else:
            stamped = tables.read(source.log, where=[(BATCH, "==", batch)]).sort_by(SEQ)
            version = noted(source.log, earlier) or TableVersion(source.log, earlier.version)
    done: dict[str, TableVersion] = {}
    logged: dict[str, pa.Table] = {}
    for view in views:
        update = update_view(tables, view, source, version, arrived=(before, stamped))
        done[view.name], logged[view.name] = update.version, update.appended
        if earlier is not None and not len(update.appended):
            logged[view.name] = tables.read(view.log, where=[(BATCH, "==", batch)]).sort_by(SEQ)
    seq = stamped.column(SEQ)
    return PushResult(
        len(stamped),
        len(prepared.set_aside),
        prepared.report,
        (seq[0].as_py(), seq[-1].as_py()) if len(stamped) else None,
        version,
        done,
        logged,
        repeated=earlier is not None,
    )


def _append_pushed(
    tables: TableStore,
    source: SourceTable,
    prepared: Prepared,
    stamped: pa.Table,
    batch: str,
    notes: Mapping[str, str],
    now_us: int,
) -> TableVersion:
    _set_aside(tables, source, prepared.set_aside, batch)
    known = newest(tables, source.log)
    if known is not None and not len(stamped):
        return known
    through = stamped.column(SEQ)[-1].as_py() if len(stamped) else -1
    return append_to_log(
        tables,
        source.log,
        stamped,
        _push_of(batch, through, request=bool(notes)),
        through=through,
        quarantined=len(prepared.set_aside),
        made=now_us,
        marks={PUSH_MARK: through} if len(stamped) else {},
        notes=notes,
    )


def _another(source: SourceTable, request_id: str) -> DataError:
    return DataError(
        f"request {request_id!r} was another one",
        code="MS-2121",
        why=f"other rows came to source {source.name!r} under this name before",
        fix="send each request under a name of its own (Idempotency-Key), and a repeated one as it was",
    )


def _push_of(batch: str, through: int, *, request: bool) -> Txn:
    """The save of a push: by its request's name, which may come again, or as the next of all pushes."""
    if through < 0:
        return Txn("made", 1)  # a push of nothing makes the table; its batch's name is free for the next push
    return Txn(batch, 1) if request else Txn(PUSH_MARK, through)


def number_of(content: str) -> int:
    """A number for the content of files, as a mark holds it: above 0, below 2^62."""
    return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "big") >> 2 | 1


@dataclass(frozen=True, slots=True)
class Changes:
    """What a source's files brought to its log.

    Attributes:
        added: rows that are new.
        corrected: events whose row is another one now; they are told by the source's ``id``.
        removed: rows that the files do not hold any more.
    """

    added: int = 0
    corrected: int = 0
    removed: int = 0


def _unheard(changes: Changes) -> None:
    """Tell nobody."""


def ingest_batch(
    tables: TableStore,
    source: SourceTable,
    prepared: Prepared,
    *,
    content: str,
    now_us: int,
    pushed: int = -1,
    tell: Callable[[Changes], None] = _unheard,
) -> TableVersion:
    """Append what a source's files hold and its log does not, take away what they do not hold any more; once.

    The first batch of a log is history: without an ``ingested`` column its rows count as known from their event
    time on, and are marked as assumed. Rows of later batches became known when they arrived. A row that an earlier
    batch brought and the files do not hold any more is taken away, from now on, by a row that names it in `RETRACTS`;
    who asks about a moment before still sees it. Pushed rows are never taken away. Rows are the same when all their
    columns are, and are counted; where the source has an ``id``, all rows of an event that lost one are written anew.

    Args:
        tables: the table store.
        source: the source.
        prepared: the rows of all its files.
        content: digest of the files.
        now_us: the moment of arrival, in microseconds since 1970.
        pushed: the `PUSH_MARK` that the version must reach.
        tell: is told what changed, if anything did.
    """
    batch = f"file/{content}"
    with tables.writing(source.log):
        before = newest(tables, source.log)
        number = tables.mark(source.log, _FILES) or 0
        earlier = tables.commit_of(source.log, _FILES, number) if number else None
        if earlier is not None and earlier.notes.get(_CONTENT) == content:
            return _with_pushes(tables, source, earlier, pushed)
        rows, gone, aside = prepared.rows, None, prepared.set_aside
        if before is not None:
            rows, gone = _difference(tables, rows, source)
            aside = _unknown(tables, source.quarantine, aside, source) if len(aside) else aside
        _set_aside(tables, source, aside, batch)
        if before is not None and not len(rows) and gone is None:
            return before if earlier is None else _with_pushes(tables, source, earlier, pushed)
        # Pushed rows that came first do not make the files news: what they tell is older.
        taken = 0 if gone is None else len(gone)
        seq = sequence(tables.mark(source.log, SEQ_MARK), taken + len(rows))
        stamped = _stamp(source, rows, seq[taken:], batch, now_us if number else None)
        if gone is not None:
            stamped = pa.concat_tables([_retracting(source, gone, seq[:taken], batch, now_us), stamped])
        tell(_changes(source, rows, gone))
        return append_to_log(
            tables,
            source.log,
            stamped,
            Txn(_FILES, number + 1),
            through=seq[-1].as_py() if len(seq) else -1,
            quarantined=len(aside),
            files=number_of(content),
            made=now_us,
            notes={_CONTENT: content},
        )


@dataclass(frozen=True, slots=True)
class Increment:
    """What became of one part of what a source outside has.

    Attributes:
        added: rows that are new.
        aside: rows that were set aside and had not been before.
    """

    added: int
    aside: int


def append_increment(
    tables: TableStore,
    source: SourceTable,
    prepared: Prepared,
    *,
    writer: str,
    now_us: int,
    history: bool,
    compared: bool,
    marks: Callable[[], Mapping[str, int]] = dict,
    notes: Callable[[], Mapping[str, str]] = dict,
) -> Increment:
    """Append rows of which nothing is taken away later: in one commit, or in none when there is nothing to say.

    Args:
        tables: the table store.
        source: the source.
        prepared: its rows.
        writer: who brings them; the mark of that name counts how often it brought something.
        now_us: the moment of arrival, in microseconds since 1970.
        history: whether the rows count as known from their event time on, and are marked as assumed.
        compared: whether rows that the log holds are left out: as many copies of each as it holds.
        marks: further marks of the commit, asked for while no one else writes; when there are some, it is made.
        notes: its notes, likewise; they alone make no commit.
    """
    with tables.writing(source.log):
        known, number = newest(tables, source.log), tables.mark(source.log, writer) or 0
        rows, aside = prepared.rows, prepared.set_aside
        if compared and known is not None:
            rows = _unheld_by_log(tables, source, rows)
            aside = _unknown(tables, source.quarantine, aside, source) if len(aside) else aside
        own, batch = marks(), f"{writer}/{number + 1}"
        _set_aside(tables, source, aside, f"{batch}/{content_digest(aside)[:8]}")
        if len(rows) or known is None or own:
            seq = sequence(tables.mark(source.log, SEQ_MARK), len(rows))
            append_to_log(
                tables,
                source.log,
                _stamp(source, rows, seq, batch, None if history else now_us),
                Txn(writer, number + 1),
                through=seq[-1].as_py() if len(seq) else -1,
                quarantined=len(aside),
                made=now_us,
                marks=own,
                notes=notes(),
            )
    return Increment(len(rows), len(aside))


def holds_content(tables: TableStore, source: SourceTable, content: str) -> bool:
    """Whether a source's log speaks of files of this content, as `ingest_batch` last took them."""
    number = tables.mark(source.log, _FILES)
    commit = tables.commit_of(source.log, _FILES, number) if number else None
    return commit is not None and commit.notes.get(_CONTENT) == content


def has_batches(tables: TableStore, source: SourceTable, writer: str) -> bool:
    """Whether a source's log had anything from files, or from this writer."""
    return any(tables.mark(source.log, name) for name in (_FILES, writer))


def _unheld_by_log(tables: TableStore, source: SourceTable, rows: pa.Table) -> pa.Table:
    """The rows that a log does not hold; a row and its copy happened at once, so only that stretch is looked at."""
    if not len(rows):
        return rows
    event = pc.min_max(rows.column(source.time)).as_py()
    columns = [*(item.name for item in source.fields), SEQ, RETRACTS]
    held = read_log(
        tables, source.log, columns=columns, where=[(EVENT, ">=", event["min"]), (EVENT, "<=", event["max"])]
    )
    return unheld(rows, standing(held), source.fields)


def _with_pushes(tables: TableStore, source: SourceTable, earlier: Commit, pushed: int) -> TableVersion:
    """The first version that has an earlier batch and the pushes up to a mark: the same at every call."""
    version = noted(source.log, earlier) or TableVersion(source.log, earlier.version)
    if pushed <= version.through:
        return version
    return reaching(tables, source.log, pushed)


def _stamp(source: SourceTable, rows: pa.Table, seq: pa.Array, batch: str, arrived_us: int | None) -> pa.Table:
    """The rows with the system columns; `arrived_us` None takes the event time where nothing says better."""
    moment = pa.timestamp("us", "UTC")
    event = rows.column(source.time)
    arrival = event if arrived_us is None else pa.scalar(arrived_us, pa.int64()).cast(moment)
    given = rows.column(source.ingested) if source.ingested else pa.chunked_array([pa.nulls(len(rows), moment)])
    deleted = pc.fill_null(rows.column(source.deleted), False) if source.deleted else _constant(False, rows)
    assumed = pc.is_null(given) if arrived_us is None else _constant(False, rows)
    system = [event, pc.coalesce(given, arrival), seq, deleted, assumed, _constant(batch, rows)]
    columns = [rows.column(item.name).cast(stored_field(item).type) for item in source.fields]
    retracts = pa.nulls(len(rows), pa.int64())
    return pa.table([*columns, *system, retracts], schema=source_schema(source))


def _retracting(source: SourceTable, gone: pa.Table, seq: pa.Array, batch: str, now_us: int) -> pa.Table:
    """Rows that take away others, from now on."""
    now = pa.repeat(pa.scalar(now_us, pa.int64()).cast(pa.timestamp("us", "UTC")), len(gone))
    columns = [gone.column(item.name) for item in source.fields]
    system = [gone.column(source.time), now, seq, _constant(True, gone), _constant(False, gone), _constant(batch, gone)]
    return pa.table([*columns, *system, gone.column(SEQ)], schema=source_schema(source))


def _changes(source: SourceTable, rows: pa.Table, gone: pa.Table | None) -> Changes:
    if gone is None:
        return Changes(len(rows))
    if source.id is None:
        return Changes(len(rows), 0, len(gone))
    new, old = rows.column(source.id), gone.column(source.id)
    both = pc.unique(new.filter(pc.is_in(new, pc.unique(old)))).drop_null()
    kept = [len(ids) - (pc.sum(pc.is_in(ids, both)).as_py() or 0) for ids in (new, old)]
    return Changes(kept[0], len(both), kept[1])


def _constant(value: object, rows: pa.Table) -> pa.Array:
    return pa.repeat(pa.scalar(value), len(rows))


def _set_aside(tables: TableStore, source: SourceTable, rows: pa.Table, batch: str) -> None:
    if not len(rows):
        return
    stored = [rows.column(item.name).cast(stored_field(item).type) for item in source.fields]
    names = [*(item.name for item in source.fields), REASON, BATCH]
    tables.append(
        source.quarantine,
        pa.table([*stored, rows.column(REASON), _constant(batch, rows)], names=names),
        Txn(batch, 1),
    )


def _difference(tables: TableStore, rows: pa.Table, source: SourceTable) -> tuple[pa.Table, pa.Table | None]:
    """What files hold and a log does not, and the log's rows that came from files and are not in them any more.

    Rows are compared with those that stand, each as often as it is there; a pushed row stands for one of the files.
    """
    names = [item.name for item in source.fields]
    held = standing(read_log(tables, source.log, columns=[*names, SEQ, RETRACTS]))
    stored = [rows.column(item.name).cast(stored_field(item).type) for item in source.fields]
    listed = ", ".join(quoted(name) for name in names)
    same = " and ".join(f"a.{quoted(name)} is not distinct from b.{quoted(name)}" for name in names)
    with connection() as opened:
        opened.register("incoming", pa.table([*stored, pa.array(np.arange(len(rows)))], names=[*names, "rid"]))
        opened.register("held", held.select([*names, SEQ]).append_column("place", pa.array(np.arange(len(held)))))
        new = opened.sql(
            f"with a as (select *, row_number() over (partition by {listed} order by rid) as copy from incoming), "
            f"b as (select {listed}, count(*) as copies from held group by all) "
            f"select a.rid from a left join b on {same} where a.copy > coalesce(b.copies, 0) order by a.rid"
        ).to_arrow_table()
        old = opened.sql(
            f"with a as (select *, row_number() over (partition by {listed} order by {SEQ}) as copy from held "
            f"where {SEQ} & {WRITERS} = 0), "
            f"b as (select {listed}, count(*) as copies from incoming group by all) "
            f"select a.place from a left join b on {same} where a.copy > coalesce(b.copies, 0) order by a.place"
        ).to_arrow_table()
    added, gone = rows.take(new.column("rid")), held.take(old.column("place"))
    if source.id is not None and len(gone):
        ids = pc.unique(gone.column(source.id)).drop_null()
        touched = pc.is_in(rows.column(source.id), ids)
        news = pc.is_in(pa.array(np.arange(len(rows))), new.column("rid").combine_chunks())
        added = rows.filter(pc.or_(touched, news))
        filed = pc.equal(pc.bit_wise_and(held.column(SEQ), WRITERS), 0)
        lost = pc.is_in(pa.array(np.arange(len(held))), old.column("place").combine_chunks())
        gone = held.filter(pc.or_(pc.and_(filed, pc.is_in(held.column(source.id), ids)), lost))
    return added, gone if len(gone) else None


def _unknown(tables: TableStore, table: str, rows: pa.Table, source: SourceTable) -> pa.Table:
    """The rows that a table does not hold yet: as many copies of each as there are more, in the order they came."""
    if tables.version(table) is None:
        return rows
    return unheld(rows, tables.read(table, columns=[item.name for item in source.fields]), source.fields)
