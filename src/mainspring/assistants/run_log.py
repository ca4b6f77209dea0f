"""Runs of assistants on disk: a row of numbers for each, for monitors, and its trace for as long as it may be kept.

Texts are redacted before they are written. Rows and traces are bounded by age and by number, so that the file stays as
large as it is after some weeks.
"""

from __future__ import annotations

import random
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from mainspring.assistants.events import Folded
from mainspring.assistants.trace import RunRecord
from mainspring.errors import StoreError
from mainspring.llm.store import REDACTION_VERSION, redacted

__all__ = ["RunCounts", "RunLog", "RunRow", "RunStatus", "redacted_run", "row_of_run", "status_of"]

RunStatus: TypeAlias = Literal["ok", "refused", "failed", "waiting", "stopped"]

_COLUMNS: Mapping[str, str] = {
    "run": "text not null unique",
    "assistant": "text not null",
    "tenant": "text not null",
    "at_us": "integer not null",
    "done_us": "integer not null",
    "status": "text not null",
    "error_kind": "text not null",
    "took_us": "integer not null",
    "prompt_tokens": "integer not null",
    "cached_tokens": "integer not null",
    "completion_tokens": "integer not null",
    "tool_calls": "integer not null",
    "tool_faults": "integer not null",
    "cost_micro": "integer",
    "sources": "integer not null",
    "score": "real",
    "citations": "integer not null",
    "dropped": "integer not null",
}
_SCHEMA = f"""
create table if not exists assistant_run({", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())});
create index if not exists assistant_run_done on assistant_run(assistant, done_us);
create table if not exists assistant_trace(
  run text not null unique, assistant text not null, thread text not null, body blob not null,
  redaction_version integer not null, expires_us integer not null);
create index if not exists assistant_trace_of on assistant_trace(assistant);
create index if not exists assistant_trace_in on assistant_trace(thread);
"""
_INSERT = f"insert or replace into assistant_run values ({', '.join('?' * len(_COLUMNS))})"
_DAY_US = 86_400_000_000
_COUNTED_US = 7 * _DAY_US
_SLOW_US = 10_000_000
_SWEEP = 256
"""Writes between two looks for what is too old or too much."""
_BEHIND = 4096
"""Runs that may wait to be written; when the disk stalls, later ones are dropped and counted."""
_REMEMBERED = 4096
"""Deleted threads that are remembered: a run that was going in one ends after it."""
_SECONDS = 5.0
_ENCODE = msgspec.json.Encoder(enc_hook=str).encode
_DECODE = msgspec.json.Decoder(RunRecord).decode


class RunRow(msgspec.Struct, frozen=True):
    """A run in numbers; the attributes are columns of ``assistant_run``.

    Attributes:
        run: its id.
        assistant: who answered.
        tenant: of whom.
        at_us: when it began, UTC microseconds since 1970.
        done_us: when it was over.
        status: ``ok``, ``refused`` (it says that it does not know), ``failed``, ``waiting`` (for a person) or
            ``stopped`` (by the client).
        error_kind: of the fault, or empty.
        took_us: microseconds.
        prompt_tokens: of all its calls of the model.
        cached_tokens: of those, reused.
        completion_tokens: generated.
        tool_calls: how many calls of tools there were.
        tool_faults: how many of them failed or were too late.
        cost_micro: micro-units of money, or None where the model has no price.
        sources: how many passages the model was shown.
        score: of the best of them, or None.
        citations: those that hold.
        dropped: those that did not, and were taken out.
    """

    run: str
    assistant: str
    tenant: str
    at_us: int
    done_us: int
    status: RunStatus
    error_kind: str
    took_us: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    tool_calls: int
    tool_faults: int
    cost_micro: int | None
    sources: int
    score: float | None
    citations: int
    dropped: int


class RunCounts(msgspec.Struct, frozen=True):
    """What became of an assistant's runs of seven days: all, by status, and those with a citation that holds."""

    runs: int = 0
    ok: int = 0
    refused: int = 0
    failed: int = 0
    cited: int = 0


def status_of(answer: Folded) -> RunStatus:
    """What became of a run."""
    if answer.error is not None:
        return "failed"
    if answer.interrupt is not None:
        return "waiting"
    if answer.end is None or answer.end.reason == "cancelled":
        return "stopped"
    return "refused" if answer.end.refused else "ok"


def row_of_run(record: RunRecord, cost_micro: int | None) -> RunRow:
    """A run in numbers."""
    answer, usage = record.answer, record.answer.usage
    took_us = record.spans[0].took_us if record.spans else 0
    numbered = {source.number: source for source in answer.sources}
    return RunRow(
        run=record.run,
        assistant=record.assistant,
        tenant=record.tenant,
        at_us=record.at_us,
        done_us=record.at_us + took_us,
        status=status_of(answer),
        error_kind="" if answer.error is None else answer.error.kind,
        took_us=took_us,
        prompt_tokens=0 if usage is None else usage.prompt,
        cached_tokens=0 if usage is None else usage.cached,
        completion_tokens=0 if usage is None else usage.completion,
        tool_calls=len(answer.calls),
        tool_faults=sum(result.status in ("error", "timeout") for result in answer.tools),
        cost_micro=cost_micro,
        sources=len(numbered),
        score=max((source.score for source in numbered.values()), default=None),
        citations=len(answer.citations),
        dropped=0 if answer.end is None else answer.end.dropped,
    )


def redacted_run(record: RunRecord) -> RunRecord:
    """A run without keys, addresses and long numbers of people in its texts; ids, places and numbers stay."""
    replace, answer = msgspec.structs.replace, record.answer
    error, interrupt = answer.error, answer.interrupt
    shown = replace(
        answer,
        text=redacted(answer.text),
        sources=tuple(replace(one, text=redacted(one.text)) for one in answer.sources),
        citations=tuple(
            replace(one, citation=replace(one.citation, quote=redacted(one.citation.quote))) for one in answer.citations
        ),
        calls=tuple(replace(one, arguments=_deep(one.arguments)) for one in answer.calls),
        tools=tuple(replace(one, content=redacted(one.content)) for one in answer.tools),
        error=None if error is None else replace(error, message=redacted(error.message)),
        interrupt=None if interrupt is None else replace(interrupt, action_requests=_deep(interrupt.action_requests)),
    )
    spans = tuple(
        replace(span, failed=redacted(span.failed), attributes=_deep(span.attributes)) for span in record.spans
    )
    return replace(record, owner=redacted(record.owner), question=redacted(record.question), answer=shown, spans=spans)


def _deep(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {name: _deep(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_deep(part) for part in value)
    return value


class RunLog:
    """Runs in a SQLite file that one thread writes; every method may be called in any thread.

    A run can be read from the moment at which it was put, while it is still on its way to the disk.

    Args:
        path: the file; made with its folder when the first run is put.
        price: what a run costs in micro-units of money, or None where that is not known.
        shares: the share of runs whose traces are kept, by assistant; 1 for others. Of a share above 0, what failed or
            was slow is always kept.
        told: told of a fault of the disk, once for each that begins.
        trace_days: how long traces are kept.
        row_days: how long rows are.
        most_traces: the most traces; the oldest go first.
        most_rows: the most rows.
        clock_us: UTC microseconds since 1970.
        draw: a number in [0, 1) a run.

    Attributes:
        dropped: runs that were not written, since the disk was too slow or full.
    """

    def __init__(
        self,
        path: Path,
        *,
        price: Callable[[RunRecord], int | None] = lambda record: None,
        shares: Mapping[str, float] | None = None,
        told: Callable[[str], None] = lambda line: None,
        trace_days: float = 30.0,
        row_days: float = 90.0,
        most_traces: int = 10_000,
        most_rows: int = 1_000_000,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._path = path
        self._price = price
        self._shares = shares or {}
        self._told = told
        self._trace_us = int(trace_days * _DAY_US)
        self._row_us = int(row_days * _DAY_US)
        self._most_traces = most_traces
        self._most_rows = most_rows
        self._clock_us = clock_us
        self._draw = draw
        self._thread = ThreadPoolExecutor(1, "mainspring-runs")
        self._lock = threading.Lock()
        self._pending: dict[str, RunRecord] = {}
        self._forgotten: deque[str] = deque(maxlen=_REMEMBERED)
        self._database: sqlite3.Connection | None = None
        self._writes = 0
        self._faulty = False
        self._closed = False
        self.dropped = 0

    def put(self, record: RunRecord) -> None:
        """Keep a run; never waits."""
        with self._lock:
            if self._closed or len(self._pending) >= _BEHIND:
                self.dropped += 1
                return
            self._pending[record.run] = record
            self._thread.submit(self._written, record)

    def forget(self, threads: Sequence[str]) -> None:
        """Erase the traces of threads that are deleted; their rows of numbers stay. Never waits."""
        with self._lock:
            if self._closed:
                return
            self._forgotten.extend(threads)
            for record in [one for one in self._pending.values() if one.thread in threads]:
                del self._pending[record.run]
            self._thread.submit(self._erased, tuple(threads))

    def flush(self) -> None:
        """Wait until all that was put is written."""
        self._thread.submit(lambda: None).result()

    def close(self) -> None:
        """Write what is on its way, and close the file; what is put later is dropped."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._thread.submit(self._close)
        self._thread.shutdown(wait=True)

    # -- reading -------------------------------------------------------------------------------------------------------

    def last(self, assistant: str = "", limit: int = 20) -> list[RunRecord]:
        """The last runs whose traces are kept, of one assistant or of all, the newest first.

        Raises:
            StoreError: MS-4306, the file cannot be read.
        """
        pending = self._waiting(assistant)
        which, values = ("where assistant = ?", [assistant]) if assistant else ("", [])
        rows = self._rows(f"select body from assistant_trace {which} order by rowid desc limit ?", [*values, limit])
        known = {record.run for record in pending}
        return [*pending, *(found for (body,) in rows if (found := _DECODE(body)).run not in known)][:limit]

    def find(self, run: str) -> RunRecord | None:
        """A run whose trace is kept, or None.

        Raises:
            StoreError: MS-4306.
        """
        with self._lock:
            waiting = self._pending.get(run)
        if waiting is not None:
            return redacted_run(waiting)
        rows = self._rows("select body from assistant_trace where run = ? and expires_us > ?", [run, self._clock_us()])
        return _DECODE(rows[0][0]) if rows else None

    def counts(self, assistant: str) -> RunCounts:
        """What became of an assistant's runs of the last seven days.

        Raises:
            StoreError: MS-4306.
        """
        columns = (
            "count(*), coalesce(sum(status = 'ok'), 0), coalesce(sum(status = 'refused'), 0), "
            "coalesce(sum(status = 'failed'), 0), coalesce(sum(citations > 0), 0)"
        )
        since = self._clock_us() - _COUNTED_US
        which = "where assistant = ? and done_us >= ?"
        rows = self._rows(f"select {columns} from assistant_run {which}", [assistant, since])
        found = RunCounts(*rows[0]) if rows else RunCounts()
        waiting = [row_of_run(record, None) for record in self._waiting(assistant)]
        statuses = [row.status for row in waiting]
        return RunCounts(
            found.runs + len(waiting),
            found.ok + statuses.count("ok"),
            found.refused + statuses.count("refused"),
            found.failed + statuses.count("failed"),
            found.cited + sum(row.citations > 0 for row in waiting),
        )

    def rows(self, assistant: str, since_us: int, until_us: int, limit: int = 100_000) -> list[RunRow]:
        """Runs of an assistant that were over in a span of time, in order; the end is left out.

        Raises:
            StoreError: MS-4306.
        """
        which = "assistant = ? and done_us >= ? and done_us < ? order by done_us limit ?"
        sql = f"select {', '.join(RunRow.__struct_fields__)} from assistant_run where {which}"
        return [RunRow(*row) for row in self._rows(sql, [assistant, since_us, until_us, limit])]

    def _waiting(self, assistant: str) -> list[RunRecord]:
        """What is not written yet, the newest first."""
        with self._lock:
            waiting = list(self._pending.values())
        return [redacted_run(one) for one in reversed(waiting) if not assistant or one.assistant == assistant]

    def _rows(self, sql: str, values: Sequence[object]) -> list[Any]:
        if not self._path.exists():
            return []
        try:
            address = f"{self._path.absolute().as_uri()}?mode=ro"
            with closing(sqlite3.connect(address, timeout=_SECONDS, uri=True)) as database:
                return database.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            if "no such table" in str(error):  # the file is being made
                return []
            raise StoreError(
                f"the log of assistants' runs cannot be read: {self._path.name}",
                code="MS-4306",
                why=str(error),
                fix="remove a damaged file: questions are answered without it",
            ) from error

    # -- in the thread -------------------------------------------------------------------------------------------------

    def _written(self, record: RunRecord) -> None:
        try:
            self._write(record)
            self._faulty = False
        except Exception as error:  # it costs this run's record, never a later one
            self.dropped += 1
            if not self._faulty:
                self._faulty = True
                self._told(f"runs of assistants are not written: {type(error).__name__}: {error}")
        finally:
            with self._lock:
                if self._pending.get(record.run) is record:
                    del self._pending[record.run]

    def _erased(self, threads: Sequence[str]) -> None:
        try:
            if self._path.exists():
                erase = "delete from assistant_trace where thread = ?"
                self._opened().executemany(erase, [(thread,) for thread in threads])
        except (OSError, sqlite3.Error) as error:
            self._told(f"traces of deleted threads are not erased: {type(error).__name__}: {error}")

    def _opened(self) -> sqlite3.Connection:
        if self._database is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            database = sqlite3.connect(self._path, timeout=30.0, isolation_level=None)
            database.execute("pragma journal_mode = wal")
            database.execute("pragma synchronous = normal")
            database.execute("pragma secure_delete = on")
            database.executescript(_SCHEMA)
            self._database = database
        return self._database

    def _write(self, record: RunRecord) -> None:
        database, now = self._opened(), self._clock_us()
        row = row_of_run(record, self._price(record))
        database.execute("begin immediate")
        try:
            database.execute(_INSERT, msgspec.structs.astuple(row))
            if self._keeps(row) and record.thread not in self._forgotten:
                trace, expires = _ENCODE(redacted_run(record)), now + self._trace_us
                values = (row.run, row.assistant, record.thread, trace, REDACTION_VERSION, expires)
                database.execute("insert or replace into assistant_trace values (?, ?, ?, ?, ?, ?)", values)
            if self._writes % _SWEEP == 0:
                self._sweep(database, now)
            self._writes += 1
        except BaseException:
            database.execute("rollback")
            raise
        database.execute("commit")

    def _keeps(self, row: RunRow) -> bool:
        share = self._shares.get(row.assistant, 1.0)
        if share <= 0:
            return False
        return row.status == "failed" or row.took_us >= _SLOW_US or self._draw() < share

    def _sweep(self, database: sqlite3.Connection, now: int) -> None:
        database.execute("delete from assistant_trace where expires_us <= ?", (now,))
        database.execute("delete from assistant_run where done_us <= ?", (now - self._row_us,))
        for table, most in (("assistant_trace", self._most_traces), ("assistant_run", self._most_rows)):
            newest = f"select rowid from {table} order by rowid desc limit 1 offset ?"
            database.execute(f"delete from {table} where rowid <= ({newest})", (most,))

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None
