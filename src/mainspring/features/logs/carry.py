"""Pushed rows pass on to the log of a changed record: no file and no database has them.

A record that is declared otherwise has a log of its own, made from what the source holds now, in the columns of now.
What was pushed is in the log of the record before alone, and comes with it: as rows that were pushed, known since they
came, null in columns that are new. A record that is declared as it was before gets what was pushed meanwhile.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mainspring.declare.record import ColumnType, FieldSpec, Kind
from mainspring.errors import DataError
from mainspring.features.logs.ingest import Prepared, Seen, prepare
from mainspring.features.logs.log import (
    PUSH_MARK,
    PUSH_WRITER,
    SEQ_MARK,
    WRITERS,
    SourceTable,
    append_to_log,
    counter_after,
    numbered,
    read_log,
    source_schema,
)
from mainspring.features.logs.stamp import stamp
from mainspring.features.logs.write import set_aside
from mainspring.features.sources.files import RawFile
from mainspring.features.view import BATCH, INGEST, SEQ
from mainspring.features.wal.commit import commit_waiting, log_of, logs_there, seq_of
from mainspring.lazy import lazy
from mainspring.ports.tables import TableStore, Txn

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    pa, pc = lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = ["Carried", "carry_pushed", "left_behind", "told"]

_CARRIED = "carried"
_SINCE = "_carried_ingest_time"


class Carried(msgspec.Struct, frozen=True):
    """What came from the log of an earlier record.

    Attributes:
        log: that log.
        rows: how many pushed rows came.
        aside: how many were set aside, because they break a rule of the record.
        why: why none could come, or empty.
    """

    log: str
    rows: int
    aside: int = 0
    why: str = ""


def left_behind(tables: TableStore, source: SourceTable) -> bool:
    """Whether something was pushed under another record of a source that its log may not have yet; no table is read."""
    others = _others(tables, source)
    if any(_news(tables, source, log) is not None for log in others):
        return True
    for log in logs_there(tables) if others else ():
        newest, head = log.newest(), log.head
        known = -1 if head is None else tables.mark(head.log, PUSH_MARK) or -1
        if newest is not None and head is not None and head.log in others and seq_of(newest) > known:
            return True
    return False


def _others(tables: TableStore, source: SourceTable) -> list[str]:
    """The logs of the source under other records."""
    return [log for log in tables.tables(f"source/{source.name}") if log != source.log] if source.digest else []


def _news(tables: TableStore, source: SourceTable, log: str) -> tuple[int, int] | None:
    """From beyond which `_seq` to which one a log has pushed rows that were not looked at yet."""
    through, done = tables.mark(log, PUSH_MARK), tables.mark(source.log, _mark_of(log))
    if through is None or (done is not None and done >= through):
        return None
    return -1 if done is None else done, through


def _mark_of(log: str) -> str:
    return f"{_CARRIED}/{log.rpartition('/')[2]}"


def carry_pushed(tables: TableStore, source: SourceTable, now_us: int) -> list[Carried]:
    """Bring what was pushed under other records of a source into its log; each row once.

    Args:
        tables: the table store.
        source: the source, as it is declared now.
        now_us: the present, in microseconds since 1970.

    Returns:
        What came, from each log that had news.
    """
    if not source.digest:
        return []
    below = f"source/{source.name}"
    for log in logs_there(tables):
        if log.head is not None and log.head.log != source.log and log.head.log.rpartition("/")[0] == below:
            with tables.writing(log.head.log):
                commit_waiting(tables, log)
    found = (_carried_from(tables, source, log, now_us) for log in _others(tables, source))
    return [carried for carried in found if carried is not None]


def _carried_from(tables: TableStore, source: SourceTable, log: str, now_us: int) -> Carried | None:
    news = _news(tables, source, log)
    if news is None:
        return None
    (done, through), mark = news, _mark_of(log)
    rows = _pushed(tables, log, done)
    try:
        prepared = _fitting(source, log, rows)
    except DataError as error:
        return Carried(log, 0, why=f"{error.what}: {error.why}")
    aside = prepared.set_aside
    if not len(rows) and tables.version(source.log) is None:
        return None
    set_aside(tables, source, aside, f"{mark}/{through}")
    count = len(prepared.rows)
    with tables.writing(source.log), contextlib.closing(log_of(tables, source)) as wal:
        commit_waiting(tables, wal)
        start = wal.reserve(count, counter_after(tables.mark(source.log, SEQ_MARK)))
        commit_waiting(tables, wal, below=start)
        kept = _stamped(source, prepared.rows, start, mark)
        reached = kept.column(SEQ)[-1].as_py() if count else -1
        append_to_log(
            tables,
            source.log,
            kept,
            Txn(mark, through),
            through=reached,
            quarantined=len(aside),
            made=now_us,
            marks={PUSH_MARK: reached} if count else {},
        )
    return Carried(log, count, len(aside)) if len(rows) else None


def _pushed(tables: TableStore, log: str, after: int) -> pa.Table:
    """The rows beyond a `_seq` that were pushed to a log itself, in order."""
    rows = read_log(tables, log, where=[(SEQ, ">", after)])
    writer = pc.bit_wise_and(rows.column(SEQ), WRITERS)
    came = pc.starts_with(rows.column(BATCH), f"{_CARRIED}/")
    return rows.filter(pc.and_(pc.equal(writer, PUSH_WRITER), pc.invert(came))).sort_by(SEQ)


def _fitting(source: SourceTable, log: str, rows: pa.Table) -> Prepared:
    """The rows in the record's columns and by its rules; its checks have judged them when they came."""
    names = [field.name for field in source.fields if field.name in rows.column_names]
    given = rows.select(names).append_column(_SINCE, rows.column(INGEST))
    return prepare(_with_since(source), [RawFile(Path(log), given, False, tuple(names))], seen=Seen())


def _with_since(source: SourceTable) -> SourceTable:
    since = FieldSpec(_SINCE, ColumnType(Kind.TIMESTAMP))
    return msgspec.structs.replace(source, fields=(*source.fields, since), ingested=_SINCE, checks=())


def _stamped(source: SourceTable, rows: pa.Table, start: int, batch: str) -> pa.Table:
    seq = numbered(start, len(rows), PUSH_WRITER)
    return stamp(_with_since(source), rows, seq, batch, 0).drop_columns([_SINCE]).cast(source_schema(source))


def told(carried: Sequence[Carried]) -> list[str]:
    """What came, and what could not, for people."""
    lines = []
    for one in carried:
        if one.why:
            lines.append(f"pushed rows of {one.log} stay there: {one.why}")
        elif one.rows or one.aside:
            aside = f", {one.aside:,} set aside" if one.aside else ""
            lines.append(f"{one.rows:,} pushed rows of the record before{aside}")
    return lines
