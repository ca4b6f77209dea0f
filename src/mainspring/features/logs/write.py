"""The one way rows get into a source's log: from files and from pushes, each batch exactly once."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from mainspring.errors import DataError
from mainspring.features.logs.difference import NewRows, difference, stamped
from mainspring.features.logs.digest import content_digest
from mainspring.features.logs.ingest import REASON, Prepared, prepare_rows
from mainspring.features.logs.log import (
    SEQ_MARK,
    SourceTable,
    TableVersion,
    append_to_log,
    counter_after,
    newest,
    noted,
    numbered,
    reaching,
    read_log,
    source_schema,
    standing,
)
from mainspring.features.logs.project import update_view
from mainspring.features.logs.stamp import constant, stamp, stored
from mainspring.features.logs.unheld import unheld
from mainspring.features.quality.known import known_in
from mainspring.features.quality.results import CheckResult
from mainspring.features.quality.screen import refuse_pushed
from mainspring.features.view import BATCH, EVENT, RETRACTS, SEQ, View
from mainspring.features.wal.commit import commit_waiting, log_of, retire, seq_of
from mainspring.features.wal.frames import Entry
from mainspring.features.wal.log import WriteAheadLog
from mainspring.features.wal.rows import drafted
from mainspring.lazy import lazy
from mainspring.ports.tables import Commit, HasTables, TableStore, Txn

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    np, pa, pc = lazy("numpy"), lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = [
    "Changes",
    "Increment",
    "PushResult",
    "append_increment",
    "append_rows",
    "has_batches",
    "holds_content",
    "ingest_batch",
    "seq_range",
]

_FILES = "files"
"""The writer of what files bring; it counts how often they brought something."""
_CONTENT = "content"


class PushResult(msgspec.Struct, frozen=True):
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
        behind: the views that were not brought up to date, with the reason: a check refuses rows that came before.
        results: what the source's checks of single rows found.
    """

    accepted: int
    quarantined: int
    report: Mapping[str, int]
    seq: tuple[int, int] | None
    source: TableVersion
    views: Mapping[str, TableVersion] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    logged: Mapping[str, pa.Table] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    repeated: bool = False
    behind: Mapping[str, str] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    results: tuple[CheckResult, ...] = ()


def append_rows(
    services: HasTables,
    source: SourceTable,
    rows: pa.Table,
    now_us: int,
    views: Sequence[View] = (),
    *,
    request_id: str | None = None,
) -> PushResult:
    """The offline half of a push, to the end: when it returns, the rows are in the tables.

    A server acknowledges sooner, when they are in the write-ahead log; the way there is the same.

    Args:
        services: where the table store is.
        source: the source that is pushed to.
        rows: its record's columns, as the client sent them.
        now_us: the moment of arrival, in microseconds since 1970.
        views: the views of declared aggregates of this source; their logs are brought up to date too.
        request_id: makes a repeated request harmless; it is of these rows, and of no others.

    Raises:
        DataError: MS-2110, MS-2111, the rows are not of the record's types; MS-2180, a check of the source or of a
            view refuses them; MS-2121, the `request_id` came with other
            rows before; nothing is appended.
        StoreError: as the table store raises; the same push with the same `request_id` then goes on where it stopped.
    """
    tables = services.tables
    tables.claim()
    prepared = prepare_rows(source, rows, known_in(tables))
    for view in views:
        refuse_pushed(view, prepared.rows)
    draft = drafted(source, prepared, now_us, request_id)
    with contextlib.closing(log_of(tables, source)) as log:
        entry, repeated = log.append(draft)
        with tables.writing(source.log):
            committed = commit_waiting(tables, log)
            retire(tables, log)
            version = _version_with(tables, source, entry, now_us)
    arrived = None if committed is None else (committed.before, committed.rows)
    done: dict[str, TableVersion] = {}
    logged: dict[str, pa.Table] = {}
    behind: dict[str, str] = {}
    for view in views:
        try:
            update = update_view(tables, view, source, version, arrived=arrived)
        except DataError as error:  # an earlier batch, which the view refused, is in its way
            behind[view.name] = f"{error.code} {error.what}"
            continue
        done[view.name], logged[view.name] = update.version, update.appended
        if repeated and not len(update.appended):
            logged[view.name] = tables.read(view.log, where=[(BATCH, "==", entry.batch)]).sort_by(SEQ)
    return PushResult(
        entry.rows,
        entry.aside,
        entry.report,
        seq_range(entry),
        version,
        done,
        logged,
        repeated=repeated,
        behind=behind,
        results=prepared.results,
    )


def _version_with(tables: TableStore, source: SourceTable, entry: Entry, now_us: int) -> TableVersion:
    """The first version of a source's log that has a push; a push of nothing makes the log."""
    if entry.rows:
        return reaching(tables, source.log, seq_of(entry.counter + entry.rows - 1))
    known = newest(tables, source.log)
    if known is not None:
        return known
    return append_to_log(
        tables, source.log, source_schema(source).empty_table(), Txn("made", 1), through=-1, made=now_us
    )


def seq_range(entry: Entry) -> tuple[int, int] | None:
    """The first and the last `_seq` of a push's rows, or None when it has none."""
    return (seq_of(entry.counter), seq_of(entry.counter + entry.rows - 1)) if entry.rows else None


def number_of(content: str) -> int:
    """A number for the content of files, as a mark holds it: above 0, below 2^62."""
    return int.from_bytes(hashlib.blake2b(content.encode(), digest_size=8).digest(), "big") >> 2 | 1


class Changes(msgspec.Struct, frozen=True):
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


def _unjudged(rows: pa.Table) -> None:
    """Let all rows in."""


def ingest_batch(
    tables: TableStore,
    source: SourceTable,
    prepared: Prepared,
    *,
    content: str,
    now_us: int,
    pushed: int = -1,
    tell: Callable[[Changes], None] = _unheard,
    judge: Callable[[pa.Table], None] | None = None,
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
        judge: is shown the rows that are new before anything is written; what it raises, refuses the batch.
    """
    batch = f"file/{content}"
    with tables.writing(source.log), contextlib.closing(log_of(tables, source)) as log:
        commit_waiting(tables, log)  # what was acknowledged before stands for rows of the files
        before = newest(tables, source.log)
        number = tables.mark(source.log, _FILES) or 0
        earlier = tables.commit_of(source.log, _FILES, number) if number else None
        if earlier is not None and earlier.notes.get(_CONTENT) == content:
            return _with_pushes(tables, source, earlier, pushed)
        rows, aside = NewRows(prepared.rows, prepared.release), prepared.set_aside
        if before is not None:
            rows = difference(tables, rows, source)
            aside = _unknown(tables, source.quarantine, aside, source) if len(aside) else aside
        if judge is not None:
            judge(rows.of())
        set_aside(tables, source, aside, batch)
        if before is not None and not rows.count and rows.gone is None:
            return before if earlier is None else _with_pushes(tables, source, earlier, pushed)
        # Pushed rows that came first do not make the files news: what they tell is older.
        count = rows.count + (0 if rows.gone is None else len(rows.gone))
        start = _apart(tables, source, log, count)
        tell(_changes(source, rows))
        return append_to_log(
            tables,
            source.log,
            stamped(source, rows, start, batch, now_us, known_from_event=not number),
            Txn(_FILES, number + 1),
            through=numbered(start + count - 1, 1)[0].as_py() if count else -1,
            quarantined=len(aside),
            files=number_of(content),
            made=now_us,
            notes={_CONTENT: content},
        )


def _apart(tables: TableStore, source: SourceTable, log: WriteAheadLog, count: int) -> int:
    """The first counter for rows of files; pushes below are in the table, those that come meanwhile get greater."""
    start = log.reserve(count, counter_after(tables.mark(source.log, SEQ_MARK)))
    commit_waiting(tables, log, below=start)
    return start


class Increment(msgspec.Struct, frozen=True):
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
    judge: Callable[[pa.Table], None] = _unjudged,
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
        judge: is shown the rows that are new before anything is written; what it raises, refuses them.
    """
    with tables.writing(source.log), contextlib.closing(log_of(tables, source)) as log:
        commit_waiting(tables, log)  # what was acknowledged before stands for rows of the source
        known, number = newest(tables, source.log), tables.mark(source.log, writer) or 0
        rows, aside = prepared.rows, prepared.set_aside
        if compared and known is not None:
            rows = _unheld_by_log(tables, source, rows)
            aside = _unknown(tables, source.quarantine, aside, source) if len(aside) else aside
        judge(rows)
        own, batch = marks(), f"{writer}/{number + 1}"
        set_aside(tables, source, aside, f"{batch}/{content_digest(aside)[:8]}")
        if len(rows) or known is None or own:
            seq = numbered(_apart(tables, source, log, len(rows)), len(rows))
            append_to_log(
                tables,
                source.log,
                stamp(source, rows, seq, batch, None if history else now_us),
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


def _changes(source: SourceTable, rows: NewRows) -> Changes:
    gone = rows.gone
    if gone is None:
        return Changes(rows.count)
    if source.id is None:
        return Changes(rows.count, 0, len(gone))
    new, old = rows.of([source.id]).column(0), gone.column(source.id)
    both = pc.unique(new.filter(pc.is_in(new, pc.unique(old)))).drop_null()
    kept = [len(ids) - (pc.sum(pc.is_in(ids, both)).as_py() or 0) for ids in (new, old)]
    return Changes(kept[0], len(both), kept[1])


def set_aside(tables: TableStore, source: SourceTable, rows: pa.Table, batch: str) -> None:
    """Keep rows that do not fit, with the reason of each; once a batch."""
    if not len(rows):
        return
    names = [*(item.name for item in source.fields), REASON, BATCH]
    tables.append(
        source.quarantine,
        pa.table([*stored(source, rows), rows.column(REASON), constant(batch, rows)], names=names),
        Txn(batch, 1),
    )


def _unknown(tables: TableStore, table: str, rows: pa.Table, source: SourceTable) -> pa.Table:
    """The rows that a table does not hold yet: as many copies of each as there are more, in the order they came."""
    if tables.version(table) is None:
        return rows
    return unheld(rows, tables.read(table, columns=[item.name for item in source.fields]), source.fields)
