"""Events, cursors, metrics, ticks and tags."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, LiteralString

import msgspec

from mainspring.adapters.postgres.catalog.tables import Cursor, Tables, alone, kept, many
from mainspring.ports.catalog import Event, Metric

__all__ = ["EventTables", "append_event"]

_encode = msgspec.json.Encoder(order="sorted").encode
_object = msgspec.json.Decoder(dict[str, object]).decode
_EVENT: LiteralString = "at, actor, what, subject, data, seq, prev_hash"
_ABOUT: LiteralString = (
    "select " + _EVENT + " from event where starts_with(what, %s) "
    "and (%s = '' or subject = %s or starts_with(subject, %s || '/')) "
)


def append_event(cursor: Cursor, event: Event) -> int:
    """Append an event inside a transaction, chained to the one before by hash.

    Appending is the last thing that a transaction does: until it ends nobody else appends, so numbers have no gap
    and readers see them in order.
    """
    alone(cursor, "event")
    last = cursor.execute("select " + _EVENT + " from event order by seq desc limit 1").fetchone()
    before = hashlib.blake2b(_encode(last), digest_size=20).hexdigest() if last else ""
    seq = last[5] + 1 if last else 1
    told = (event.at, event.actor, event.what, event.subject, _encode(event.data).decode(), seq, before)
    cursor.execute("insert into event (" + _EVENT + ") values (%s, %s, %s, %s, %s, %s, %s)", kept(told))
    return int(seq)


def _event(row: tuple[Any, ...]) -> Event:
    return Event(*[*row[:4], _object(row[4]), *row[5:]])


class EventTables(Tables):
    """The part of the catalog that only grows."""

    def add_event(self, event: Event) -> int:
        """Append an event."""
        with self.write() as cursor:
            return append_event(cursor, event)

    def events(self, after: int = 0, *, what: str = "", subject: str = "", limit: int = 100) -> list[Event]:
        """Events after a sequence number, in order."""
        sql = _ABOUT + "and seq > %s order by seq limit %s"
        return [_event(row) for row in self.read(sql, (what, subject, subject, subject, after, limit))]

    def last_events(self, *, what: str = "", subject: str = "", limit: int = 50) -> list[Event]:
        """The newest events, the newest first."""
        sql = _ABOUT + "order by seq desc limit %s"
        return [_event(row) for row in self.read(sql, (what, subject, subject, subject, limit))]

    def cursor(self, consumer: str) -> int:
        """How far a consumer has read."""
        rows = self.read("select seq from event_cursor where consumer = %s", (consumer,))
        return int(rows[0][0]) if rows else 0

    def set_cursor(self, consumer: str, seq: int) -> None:
        """Note how far a consumer has read."""
        self.changed(
            "insert into event_cursor values (%s, %s) on conflict (consumer) do update set seq = excluded.seq",
            (consumer, seq),
        )

    def log_metrics(self, run_id: str, metrics: Sequence[Metric]) -> None:
        """Record numbers of a run."""
        rows = [(run_id, m.key, m.step, m.at, m.value, m.model_id) for m in metrics]
        with self.write() as cursor:
            many(cursor, "insert into metric values (%s, %s, %s, %s, %s, %s)", rows)
            many(
                cursor,
                "insert into latest_metric as there values (%s, %s, %s, %s, %s, %s) "
                "on conflict (run_id, key, model_id) do update set step = excluded.step, ts = excluded.ts, "
                "value = excluded.value where (excluded.step, excluded.ts) >= (there.step, there.ts)",
                sorted(rows, key=lambda row: (row[1], row[5])),
            )

    def metrics(self, run_id: str, *, latest: bool = True) -> list[Metric]:
        """A run's numbers."""
        table: LiteralString = "latest_metric" if latest else "metric"
        sql = "select key, value, step, ts, model_id from " + table + " where run_id = %s order by key, step, ts"
        return [Metric(*row) for row in self.read(sql, (run_id,))]

    def tick(self, schedule: str, due: int, run_id: str) -> bool:
        """Insert a due time of a schedule."""
        return self.changed("insert into tick values (%s, %s, %s) on conflict do nothing", (schedule, due, run_id))

    def last_tick(self, schedule: str) -> int | None:
        """The latest due time that was taken."""
        found = self.read("select max(due) from tick where schedule = %s", (schedule,))[0][0]
        return None if found is None else int(found)

    def tag(self, subject: str, tags: Mapping[str, str]) -> None:
        """Set tags."""
        sql: LiteralString = (
            "insert into tag values (%s, %s, %s) on conflict (subject, key) do update set value = excluded.value"
        )
        with self.write() as cursor:
            many(cursor, sql, [(subject, key, tags[key]) for key in sorted(tags)])

    def tags(self, subject: str) -> dict[str, str]:
        """A subject's tags."""
        return dict(self.read("select key, value from tag where subject = %s order by key", (subject,)))
