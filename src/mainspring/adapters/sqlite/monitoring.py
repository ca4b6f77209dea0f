"""Block states, labels and alerts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from mainspring.adapters.sqlite.connection import Connections
from mainspring.ports.catalog import Alert, AlertState, Block, Label

__all__ = ["MonitoringTables"]

_ALERT = (
    "id, fingerprint, monitor, segment, kind, state, since, opened, score, threshold, effect, "
    "features, detail, resolved, acked_by, muted_until"
)
_ALERT_MARKS = ",".join("?" * 16)
_LABEL = "prediction_id, name, value, at, received_at"
_BATCH = 500
_encode = msgspec.json.Encoder(order="sorted").encode
_object = msgspec.json.Decoder(dict[str, object]).decode
_words = msgspec.json.Decoder(tuple[str, ...]).decode


def _alert(row: tuple[Any, ...]) -> Alert:
    numbers = [math.nan if number is None else number for number in row[8:11]]  # SQLite keeps not-a-number as null
    return Alert(*[*row[:8], *numbers, _words(str(row[11])), _object(str(row[12])), *row[13:]])


def _values(alert: Alert) -> tuple[object, ...]:
    head = (alert.id, alert.fingerprint, alert.monitor, alert.segment, alert.kind, alert.state, alert.since)
    numbers = (alert.opened, alert.score, alert.threshold, alert.effect)
    texts = (_encode(alert.features).decode(), _encode(alert.detail).decode())
    return (*head, *numbers, *texts, alert.resolved, alert.acked_by, alert.muted_until)


class MonitoringTables:
    """The part of the catalog that monitors write."""

    _db: Connections

    def put_blocks(self, blocks: Sequence[Block]) -> None:
        """Upsert block states."""
        rows = [(b.monitor, b.feature, b.segment, b.start, b.writer, b.state, b.updated) for b in blocks]
        with self._db.write() as db:
            db.executemany("insert or replace into monitor_block values (?,?,?,?,?,?,?)", rows)

    def blocks(self, monitor: str, since: int = 0) -> list[Block]:
        """Block states from a start on."""
        sql = (
            "select monitor, feature, segment, block_start, writer, state, updated_at from monitor_block "
            "where monitor = ? and block_start >= ? order by block_start, feature, segment, writer"
        )
        return [Block(*row) for row in self._db.read(sql, (monitor, since))]

    def add_labels(self, labels: Sequence[Label]) -> int:
        """Record labels; the latest `at` wins."""
        sql = (
            "insert into prediction_label values (?1,?2,?3,?4,?5) on conflict (prediction_id, name) "
            "do update set value = ?3, at = ?4, received_at = ?5 where ?4 > prediction_label.at"
        )
        with self._db.write() as db:
            before = db.total_changes
            db.executemany(sql, [(x.prediction_id, x.name, x.value, x.at, x.received) for x in labels])
            return db.total_changes - before

    def labels(self, prediction_ids: Iterable[str]) -> list[Label]:
        """The labels of these predictions."""
        wanted, found = list(prediction_ids), []
        for start in range(0, len(wanted), _BATCH):
            part = wanted[start : start + _BATCH]
            marks = ",".join("?" * len(part))
            rows = self._db.read(f"select {_LABEL} from prediction_label where prediction_id in ({marks})", part)
            found += [Label(*row) for row in rows]
        return found

    def labels_after(self, received: int, limit: int = 100_000, *, behind: Label | None = None) -> list[Label]:
        """Labels received after a moment, in order."""
        sql = (
            f"select {_LABEL} from prediction_label where (received_at, prediction_id, name) > (?, ?, ?) "
            "order by received_at, prediction_id, name limit ?"
        )
        start = (received + 1, "", "") if behind is None else (behind.received, behind.prediction_id, behind.name)
        return [Label(*row) for row in self._db.read(sql, (*start, limit))]

    def open_alert(self, alert: Alert) -> Alert:
        """Open an alert, or find the one that is open for the fingerprint."""
        with self._db.write() as db:
            row = db.execute(
                f"select {_ALERT} from alert where fingerprint = ? and state <> 'resolved'", (alert.fingerprint,)
            ).fetchone()
            if row is not None:
                return _alert(row)
            db.execute(f"insert into alert ({_ALERT}) values ({_ALERT_MARKS})", _values(alert))
            return alert

    def move_alert(self, alert: Alert, was: AlertState) -> bool:
        """Compare-and-swap on state."""
        values = _values(alert)
        with self._db.write() as db:
            sql = (
                "update alert set state = ?, score = ?, threshold = ?, effect = ?, features = ?, detail = ?, "
                "resolved = ?, acked_by = ?, muted_until = ? where id = ? and state = ? and state <> 'resolved'"
            )
            return db.execute(sql, (values[5], *values[8:], alert.id, was)).rowcount == 1

    def alerts(self, *, open_only: bool = False, monitor: str = "", limit: int = 100) -> list[Alert]:
        """Alerts, the newest first."""
        rows = self._db.read(
            f"select {_ALERT} from alert where (not ?1 or state <> 'resolved') and (?2 = '' or monitor = ?2) "
            "order by opened desc, id desc limit ?3",
            (int(open_only), monitor, limit),
        )
        return [_alert(row) for row in rows]
