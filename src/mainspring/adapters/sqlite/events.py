"""Events, cursors, metrics, ticks and tags."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from mainspring.adapters.sqlite.connection import Connections
from mainspring.ports.catalog import Event, Metric

__all__ = ["EventTables", "append_event"]

_encode = msgspec.json.Encoder(order="sorted").encode
_object = msgspec.json.Decoder(dict[str, object]).decode
_EVENT = "at, actor, what, subject, data, seq, prev_hash"


def append_event(db: sqlite3.Connection, event: Event) -> int:
    """Append an event inside a transaction, chained to the one before by hash."""
    last = db.execute(f"select {_EVENT} from event order by seq desc limit 1").fetchone()
    before = hashlib.blake2b(_encode(last), digest_size=20).hexdigest() if last else ""
    done = db.execute(
        "insert into event (at, actor, what, subject, data, prev_hash) values (?,?,?,?,?,?)",
        (event.at, event.actor, event.what, event.subject, _encode(event.data).decode(), before),
    )
    return int(done.lastrowid or 0)


def _event(row: tuple[Any, ...]) -> Event:
    return Event(*[*row[:4], _object(str(row[4])), *row[5:]])


class EventTables:
    """The part of the catalog that only grows."""

    _db: Connections

    def add_event(self, event: Event) -> int:
        """Append an event."""
        with self._db.write() as db:
            return append_event(db, event)

    def events(self, after: int = 0, *, what: str = "", subject: str = "", limit: int = 100) -> list[Event]:
        """Events after a sequence number, in order."""
        return self._events("seq > ?4 order by seq", what, subject, limit, after)

    def last_events(self, *, what: str = "", subject: str = "", limit: int = 50) -> list[Event]:
        """The newest events, the newest first."""
        return self._events("?4 = 0 order by seq desc", what, subject, limit, 0)

    def _events(self, rest: str, what: str, subject: str, limit: int, after: int) -> list[Event]:
        sql = (
            f"select {_EVENT} from event where substr(what, 1, length(?1)) = ?1 "
            f"and (?2 = '' or subject = ?2 or substr(subject, 1, length(?2) + 1) = ?2 || '/') and {rest} limit ?3"
        )
        return [_event(row) for row in self._db.read(sql, (what, subject, limit, after))]

    def cursor(self, consumer: str) -> int:
        """How far a consumer has read."""
        rows = self._db.read("select seq from cursor where consumer = ?", (consumer,))
        return int(rows[0][0]) if rows else 0

    def set_cursor(self, consumer: str, seq: int) -> None:
        """Note how far a consumer has read."""
        with self._db.write() as db:
            db.execute("insert or replace into cursor values (?, ?)", (consumer, seq))

    def log_metrics(self, run_id: str, metrics: Sequence[Metric]) -> None:
        """Record numbers of a run."""
        rows = [(run_id, m.key, m.step, m.at, m.value, m.model_id) for m in metrics]
        with self._db.write() as db:
            db.executemany("insert into metric values (?,?,?,?,?,?)", rows)
            db.executemany(
                "insert into latest_metric values (?1,?2,?3,?4,?5,?6) on conflict (run_id, key, model_id) "
                "do update set step = ?3, ts = ?4, value = ?5 where (?3, ?4) >= (latest_metric.step, latest_metric.ts)",
                rows,
            )

    def metrics(self, run_id: str, *, latest: bool = True) -> list[Metric]:
        """A run's numbers."""
        table = "latest_metric" if latest else "metric"
        sql = f"select key, value, step, ts, model_id from {table} where run_id = ? order by key, step, ts"
        return [
            Metric(str(row[0]), float("nan") if row[1] is None else row[1], *row[2:])
            for row in self._db.read(sql, (run_id,))
        ]

    def tick(self, schedule: str, due: int, run_id: str) -> bool:
        """Insert a due time of a schedule."""
        with self._db.write(durable=True) as db:
            return db.execute("insert or ignore into tick values (?,?,?)", (schedule, due, run_id)).rowcount == 1

    def last_tick(self, schedule: str) -> int | None:
        """The latest due time that was taken."""
        found = self._db.read("select max(due) from tick where schedule = ?", (schedule,))[0][0]
        return None if found is None else int(found)

    def tag(self, subject: str, tags: Mapping[str, str]) -> None:
        """Set tags."""
        with self._db.write() as db:
            db.executemany(
                "insert or replace into tag values (?,?,?)", [(subject, key, value) for key, value in tags.items()]
            )

    def tags(self, subject: str) -> dict[str, str]:
        """A subject's tags."""
        rows = self._db.read("select key, value from tag where subject = ? order by key", (subject,))
        return {str(key): str(value) for key, value in rows}
