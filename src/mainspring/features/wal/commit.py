"""From the write-ahead log into the tables: each push once, in the order of its numbers."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import orjson

from mainspring.features.logs.log import (
    MADE_MARK,
    PUSH_MARK,
    PUSH_WRITER,
    SEQ_MARK,
    SourceTable,
    TableVersion,
    append_to_log,
    counter_after,
    numbered,
)
from mainspring.features.view import SEQ
from mainspring.features.wal.frames import VERSION, Head
from mainspring.features.wal.log import Kept, WriteAheadLog
from mainspring.features.wal.rows import aside_schema, kept_schema, logged_rows, rows_aside
from mainspring.lazy import lazy
from mainspring.ports.tables import TableStore, Txn

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

__all__ = [
    "BATCHES",
    "Committed",
    "commit_waiting",
    "count_waiting",
    "drain",
    "log_of",
    "logs_there",
    "pushed_through",
    "retire",
    "rows_waiting",
    "seq_of",
]

WAL_MARK = "wal"
"""The mark of a table that holds the last push of the write-ahead log whose rows are in it."""
BATCHES = "batches"
"""The note of a commit with the batches that it holds, as a JSON list."""

_PLACE = "_wal"


class Committed(msgspec.Struct, frozen=True):
    """What a commit brought to a source's log.

    Attributes:
        version: the log after it.
        before: the greatest `_seq` before it, or -1.
        rows: what was appended, in order.
    """

    version: TableVersion
    before: int
    rows: pa.Table


def log_of(tables: TableStore, source: SourceTable, most_bytes: int = 1 << 28) -> WriteAheadLog:
    """The write-ahead log of a source; close it."""
    return WriteAheadLog(
        tables.beside(f"{_PLACE}/{source.log}"), lambda: _reached(tables, _head_of(source)), most_bytes
    )


def logs_there(tables: TableStore) -> Iterator[WriteAheadLog]:
    """All logs of these tables that hold something, of sources that are declared no more too; each is closed after."""
    for lock in sorted(tables.beside(_PLACE).rglob("lock")):
        with contextlib.closing(_at(tables, lock.parent)) as log:
            log.newest()
            if log.head is not None:
                yield log


def _at(tables: TableStore, folder: Path) -> WriteAheadLog:
    """A log that is there."""
    log = WriteAheadLog(folder, lambda: _reached(tables, _seen(log)))
    return log


def _seen(log: WriteAheadLog) -> Head:
    assert log.head is not None
    return log.head


def _head_of(source: SourceTable) -> Head:
    rows, aside = (schema(source).serialize().to_pybytes() for schema in (kept_schema, aside_schema))
    return Head(VERSION, source.log, source.quarantine, rows, aside, 1, 0)


def _reached(tables: TableStore, head: Head) -> Head:
    """A log's head with the numbers that follow those of the tables."""
    n = max(_marks(tables, head)) + 1
    return msgspec.structs.replace(head, n=n, counter=counter_after(tables.mark(head.log, SEQ_MARK)))


def _marks(tables: TableStore, head: Head) -> tuple[int, int]:
    return tables.mark(head.log, WAL_MARK) or 0, tables.mark(head.quarantine, WAL_MARK) or 0


def seq_of(counter: int) -> int:
    """The `_seq` of a pushed row."""
    return int(numbered(counter, 1, PUSH_WRITER)[0].as_py())


def commit_waiting(tables: TableStore, log: WriteAheadLog, below: int | None = None) -> Committed | None:
    """Bring what waits in a write-ahead log into the tables; hold ``tables.writing`` of the source's log.

    Args:
        tables: the table store.
        log: the write-ahead log.
        below: leave pushes from this counter on where they are.

    Returns:
        What was appended, or None when nothing was.
    """
    log.newest()
    head = log.head
    if head is None:
        return None
    log_n, aside_n = _marks(tables, head)
    waiting = log.waiting(log_n, aside_n)
    if below is not None:
        waiting = list(itertools.takewhile(lambda kept: kept.entry.counter < below, waiting))
    _commit_aside(tables, head, log, [kept for kept in waiting if kept.entry.aside and kept.entry.n > aside_n])
    fresh = [kept for kept in waiting if kept.entry.rows and kept.entry.n > log_n]
    if not fresh:
        return None
    before = tables.mark(head.log, SEQ_MARK)
    rows = logged_rows(head.schema, [(kept.entry, log.bodies(kept)[0]) for kept in fresh])
    through = rows.column(SEQ)[-1].as_py()
    version = append_to_log(
        tables,
        head.log,
        rows,
        Txn(WAL_MARK, fresh[-1].entry.n),
        through=through,
        quarantined=sum(kept.entry.aside for kept in waiting if kept.entry.n > log_n),
        made=time.time_ns() // 1000,
        marks={PUSH_MARK: through},
    )
    return Committed(version, -1 if before is None else before, rows)


def _commit_aside(tables: TableStore, head: Head, log: WriteAheadLog, waiting: Sequence[Kept]) -> None:
    if not waiting:
        return
    rows = rows_aside(head.aside, [(kept.entry, log.bodies(kept)[1]) for kept in waiting])
    batches = orjson.dumps([kept.entry.batch for kept in waiting]).decode()
    tables.append(head.quarantine, rows, Txn(WAL_MARK, waiting[-1].entry.n), notes={BATCHES: batches})


def retire(tables: TableStore, log: WriteAheadLog) -> None:
    """Remove what the tables have; hold ``tables.writing`` of the source's log."""
    head = log.head
    if head is None:
        return

    def sync() -> None:
        tables.sync(head.log)
        tables.sync(head.quarantine)

    log.retire(*_marks(tables, head), sync)


def drain(tables: TableStore) -> list[Committed]:
    """Bring everything that was acknowledged into the tables, of all sources."""
    done = []
    for log in logs_there(tables):
        with tables.writing(_seen(log).log):
            if (committed := commit_waiting(tables, log)) is not None:
                done.append(committed)
            retire(tables, log)
    return done


def pushed_through(tables: TableStore, source: SourceTable) -> tuple[int, int] | None:
    """The greatest `_seq` of an acknowledged row and when the source's log was made, or None; no table is opened."""
    with contextlib.closing(log_of(tables, source)) as log:
        newest = log.newest()
    committed = tables.mark(source.log, PUSH_MARK)
    if newest is None and committed is None:
        return None
    reached = max(-1 if newest is None else seq_of(newest), -1 if committed is None else committed)
    return reached, tables.mark(source.log, MADE_MARK) or 0


def count_waiting(tables: TableStore, source: SourceTable) -> int:
    """How many acknowledged rows of a source are in no table yet."""
    with contextlib.closing(log_of(tables, source)) as log:
        log.newest()
        return sum(k.entry.rows for k in log.waiting(*_marks(tables, _seen(log)))) if log.head is not None else 0


def rows_waiting(tables: TableStore, source: SourceTable, after: int) -> pa.Table:
    """Acknowledged rows beyond a `_seq` that the write-ahead log still holds, as rows of the source's log."""
    with contextlib.closing(log_of(tables, source)) as log:
        log.newest()
        if log.head is None:
            return logged_rows(_head_of(source).schema, [])
        beyond = counter_after(after)
        waiting = [kept for kept in log.waiting(0, 0) if kept.entry.rows and kept.entry.counter >= beyond]
        return logged_rows(log.head.schema, [(kept.entry, log.bodies(kept)[0]) for kept in waiting])
