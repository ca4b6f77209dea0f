"""Records of requests in a SQLite file, written in batches; texts only redacted, and only for as long as declared."""

from __future__ import annotations

import hashlib
import re
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import orjson

from mainspring.errors import StoreError
from mainspring.llm.fold import Answer
from mainspring.llm.record import CallRecord
from mainspring.ports.llm import Message

__all__ = ["CALL_COLUMNS", "REDACTION_VERSION", "CallStore", "fault_of", "open_log", "redacted", "row_of"]

CALL_COLUMNS: Mapping[str, str] = {
    "id": "text not null",
    "trace_id": "text not null",
    "span_id": "text not null",
    "parent_id": "text not null",
    "at_ns": "integer not null",
    "endpoint": "text not null",
    "api": "text not null",
    "tenant": "text not null",
    "key_id": "text not null",
    "user_hash": "text not null",
    "model_alias": "text not null",
    "model_version": "text not null",
    "upstream": "text not null",
    "prompt_id": "text not null",
    "stream": "integer not null",
    "status": "text not null",
    "error_kind": "text not null",
    "finish_reason": "text not null",
    "attempt": "integer not null",
    "hedged": "integer not null",
    "cache": "text not null",
    "similarity": "real",
    "prompt_tokens": "integer not null",
    "cached_tokens": "integer not null",
    "cache_write_tokens": "integer not null",
    "completion_tokens": "integer not null",
    "reasoning_tokens": "integer not null",
    "usage_source": "text not null",
    "queue_us": "integer not null",
    "ttft_us": "integer not null",
    "total_us": "integer not null",
    "cost_micro": "integer not null",
    "price_version": "text not null",
    "body_in": "text",
    "body_out": "text",
}
"""The columns of ``llm_call``, in order."""

REDACTION_VERSION = 1
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----", re.DOTALL), "[key]"),
    (re.compile(r"(?<![A-Za-z])(?:sk|pk|rk|ghp|gho|xox[abp]|AKIA)[-_A-Za-z0-9]{16,}"), "[key]"),
    (re.compile(r"Bearer\s+[-._~+/A-Za-z0-9]{16,}=*"), "[key]"),
    (re.compile(r"eyJ[-_A-Za-z0-9]{8,}\.[-_A-Za-z0-9]{8,}\.[-_A-Za-z0-9]{8,}"), "[key]"),
    (re.compile(r"[\w.+-]{1,64}@[\w-]{1,255}(?:\.[\w-]{1,63})+"), "[email]"),
    (re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), "[iban]"),
    (re.compile(r"(?<![\d.])\d(?:[ -]?\d){12,18}(?!\d)"), "[number]"),
    (re.compile(r"(?<![\d.])\+?\d[\d ()/-]{7,}\d(?![\d.]\d)"), "[number]"),
)
_SLOW_US = 10_000_000
_SCHEMA = f"""
create table if not exists llm_call({", ".join(f"{name} {kind}" for name, kind in CALL_COLUMNS.items())});
drop index if exists llm_call_id;
create index if not exists llm_call_key on llm_call(key_id, at_ns);
create table if not exists llm_body(
  hash text primary key, bytes blob not null, redaction_version integer not null, expires_at integer not null
) without rowid;
create index if not exists llm_body_expires on llm_body(expires_at);
"""
_INSERT = "insert into llm_call values "
_MARKS = f"({', '.join('?' * len(CALL_COLUMNS))})"
_AT_ONCE = 112
"""Rows of one statement, or as many as this SQLite takes the values of. A row of 112 costs two thirds of one of 28; and
the interpreter's lock is let go of once a statement: to get it back from a busy event loop costs both more than a row.
"""


def redacted(text: str) -> str:
    """A text without keys, addresses and long numbers of people."""
    for pattern, shown in _PATTERNS:
        text = pattern.sub(shown, text)
    return text


def row_of(record: CallRecord, body_in: str | None, body_out: str | None) -> tuple[Any, ...]:
    """A record as the columns of ``llm_call``."""
    caller, usage, target = record.caller, record.usage, record.target
    user = caller.user
    return (
        record.id,
        record.trace[0] or record.id.ljust(32, "0"),
        record.id[:16],
        record.trace[1],
        record.at_ns,
        record.lane,
        record.api,
        caller.tenant,
        caller.key.id if caller.key is not None else "",
        hashlib.blake2b(user.encode(), digest_size=16).hexdigest() if user else "",
        record.model,
        "" if target is None else f"{target.model}@{target.version}" if target.version else target.model,
        "" if target is None else target.name,
        record.prompt,
        int(record.stream),
        record.status,
        record.error_kind,
        record.finish_reason,
        record.attempt,
        int(record.hedged),
        record.cache,
        record.similarity,
        usage.prompt,
        usage.cached,
        usage.cache_write,
        usage.completion,
        usage.reasoning,
        usage.source,
        record.queue_us,
        record.ttft_us,
        record.total_us,
        record.cost_micro,
        record.price_version,
        body_in,
        body_out,
    )


def open_log(path: Path, schema: str) -> sqlite3.Connection:
    """A SQLite file that is written by one thread and read by any, with its tables.

    Raises:
        StoreError: MS-4175, the file cannot be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
        database.execute("pragma journal_mode = wal")
        database.execute("pragma synchronous = normal")
        database.executescript(schema)
    except (OSError, sqlite3.Error) as error:
        raise fault_of(path, error) from error
    return database


def fault_of(path: Path, error: Exception) -> StoreError:
    """What is said of a log that cannot be written."""
    return StoreError(
        f"the log of LLM requests cannot be written: {path.name}",
        code="MS-4175",
        why=str(error),
        fix="make room on the disk, or remove a damaged file: requests are answered without it",
    )


class CallStore:
    """The file, as one thread sees it.

    Args:
        path: the file; made with its folder.
        draw: a number in [0, 1) a request, for the share of texts that are kept.
        body_seconds: how long texts are kept.
        clock_ns: UTC nanoseconds since 1970.

    Raises:
        StoreError: MS-4175, the file cannot be opened or written.
    """

    def __init__(
        self,
        path: Path,
        draw: Callable[[], float],
        body_seconds: float = 30 * 86_400.0,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._path = path
        self._draw = draw
        self._body_s = body_seconds
        self._clock_ns = clock_ns
        self._database = open_log(path, _SCHEMA)
        values = self._database.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
        self._at_once = max(min(_AT_ONCE, values // len(CALL_COLUMNS)), 1)
        self._whole = _inserting(self._at_once)

    # -- a sink of the recorder ----------------------------------------------------------------------------------------

    def write(self, records: Sequence[CallRecord]) -> None:
        """Write a batch in one transaction.

        Raises:
            StoreError: MS-4175.
        """
        now = self._clock_ns()
        rows, bodies = [], []
        for record in records:
            hashes: list[str | None] = [None, None]
            if record.texts is not None and self._keeps(record):
                asked, answer = record.texts
                kept = [_body(asked.messages or asked.prompt), _body(_said(answer))]
                hashes = [hash for hash, _ in kept]
                bodies += [(hash, body, REDACTION_VERSION, now + int(self._body_s * 1e9)) for hash, body in kept]
            rows.append(row_of(record, hashes[0], hashes[1]))
        try:
            self._database.execute("begin immediate")
            try:
                self._insert(rows)
                self._database.executemany("insert or replace into llm_body values (?, ?, ?, ?)", bodies)
                self._database.execute("delete from llm_body where expires_at <= ?", (now,))
            except BaseException:
                self._database.execute("rollback")
                raise
            self._database.execute("commit")
        except sqlite3.Error as error:
            raise fault_of(self._path, error) from error

    def _insert(self, rows: Sequence[tuple[Any, ...]]) -> None:
        for start in range(0, len(rows), self._at_once):
            some = rows[start : start + self._at_once]
            sql = self._whole if len(some) == self._at_once else _inserting(len(some))
            self._database.execute(sql, tuple(chain.from_iterable(some)))

    def _keeps(self, record: CallRecord) -> bool:
        return record.status == "error" or record.total_us >= _SLOW_US or self._draw() < record.bodies

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    # -- read at the start ---------------------------------------------------------------------------------------------

    def spent(self, periods: Mapping[str, float], shown: Mapping[str, Sequence[str]] | None = None) -> dict[str, int]:
        """Micro-units that accounts have spent in the period that runs.

        Args:
            periods: the length of each account's period in seconds, by its name: ``key:web``, ``tenant:acme``,
                ``model:chat``.
            shown: the names under which clients use an account's model besides its own, by the account's name.
        """
        found = {}
        columns = {"key": "key_id", "tenant": "tenant", "model": "endpoint"}
        for name, seconds in periods.items():
            kind, _, value = name.partition(":")
            begin = int(self._clock_ns() / 1e9 // seconds * seconds * 1e9)
            values = {value, *(shown or {}).get(name, ())}
            among = f"{columns[kind]} in ({', '.join('?' * len(values))})"
            sql = f"select coalesce(sum(cost_micro), 0) from llm_call where {among} and at_ns >= ?"
            found[name] = int(self._database.execute(sql, (*values, begin)).fetchone()[0])
        return found


def _inserting(rows: int) -> str:
    return _INSERT + ", ".join([_MARKS] * rows)


def _said(answer: Answer) -> object:
    return [[{"kind": item.kind, "name": item.name, "text": item.text} for item in items] for items in answer.items]


def _body(value: object) -> tuple[str, bytes]:
    """A text's hash, and the text: redacted before anything else happens to it; of pictures only their size."""
    shown = [_turn(turn) for turn in value] if isinstance(value, tuple) else value
    body = orjson.dumps(_deep(shown))
    return hashlib.blake2b(body, digest_size=16).hexdigest(), body


def _turn(turn: object) -> object:
    if not isinstance(turn, Message):
        return turn
    content = [
        part if isinstance(part, str) else f"[{part.media_type}, {len(part.data)} bytes]" for part in turn.content
    ]
    calls = [{"name": call.name, "arguments": call.arguments} for call in turn.calls]
    return {"role": turn.role, "content": content, "calls": calls}


def _deep(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {name: _deep(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_deep(part) for part in value]
    return value
