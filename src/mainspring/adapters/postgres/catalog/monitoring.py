"""Block states, labels and alerts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, LiteralString

import msgspec

from mainspring.adapters.postgres.catalog.tables import Tables, alone, kept, many
from mainspring.ports.catalog import Alert, AlertState, Block, Label

__all__ = ["MonitoringTables"]

_ALERT: LiteralString = (
    "id, fingerprint, monitor, segment, kind, state, since, opened, score, threshold, effect, "
    "features, detail, resolved, acked_by, muted_until"
)
_LABEL: LiteralString = "prediction_id, name, value, at, received_at"
_encode = msgspec.json.Encoder(order="sorted").encode
_object = msgspec.json.Decoder(dict[str, object]).decode
_words = msgspec.json.Decoder(tuple[str, ...]).decode


def _alert(row: tuple[Any, ...]) -> Alert:
    return Alert(*[*row[:11], _words(row[11]), _object(row[12]), *row[13:]])


def _values(alert: Alert) -> tuple[object, ...]:
    values = list(msgspec.structs.astuple(alert))
    values[11], values[12] = _encode(alert.features).decode(), _encode(alert.detail).decode()
    return kept(values)


class MonitoringTables(Tables):
    """The part of the catalog that monitors write."""

    def put_blocks(self, blocks: Sequence[Block]) -> None:
        """Upsert block states."""
        rows = [(b.monitor, b.feature, b.segment, b.start, b.writer, b.state, b.updated) for b in blocks]
        sql: LiteralString = (
            "insert into monitor_block values (%s, %s, %s, %s, %s, %s, %s) "
            "on conflict (monitor, feature, segment, block_start, writer) "
            "do update set state = excluded.state, updated_at = excluded.updated_at"
        )
        with self.write() as cursor:
            many(cursor, sql, sorted(rows, key=lambda row: (row[0], row[1], row[2], row[3], row[4])))

    def blocks(self, monitor: str, since: int = 0) -> list[Block]:
        """Block states from a start on."""
        sql: LiteralString = (
            "select monitor, feature, segment, block_start, writer, state, updated_at from monitor_block "
            "where monitor = %s and block_start >= %s order by block_start, feature, segment, writer"
        )
        return [Block(*row) for row in self.read(sql, (monitor, since))]

    def add_labels(self, labels: Sequence[Label]) -> int:
        """Record labels; the latest `at` wins."""
        sql = (
            "insert into prediction_label as there (" + _LABEL + ") values (%s, %s, %s, %s, %s) "
            "on conflict (prediction_id, name) do update set value = excluded.value, at = excluded.at, "
            "received_at = excluded.received_at where excluded.at > there.at"
        )
        ordered = sorted(labels, key=lambda label: (label.prediction_id, label.name))
        with self.write() as cursor:
            return many(cursor, sql, [msgspec.structs.astuple(label) for label in ordered])

    def labels(self, prediction_ids: Iterable[str]) -> list[Label]:
        """The labels of these predictions."""
        wanted = list(prediction_ids)
        sql = "select " + _LABEL + " from prediction_label where prediction_id = any(%s)"
        return [Label(*row) for row in self.read(sql, (wanted,))] if wanted else []

    def labels_after(self, received: int, limit: int = 100_000, *, behind: Label | None = None) -> list[Label]:
        """Labels received after a moment, in order."""
        sql = (
            "select " + _LABEL + " from prediction_label where (received_at, prediction_id, name) > (%s, %s, %s) "
            "order by received_at, prediction_id, name limit %s"
        )
        start = (received + 1, "", "") if behind is None else (behind.received, behind.prediction_id, behind.name)
        return [Label(*row) for row in self.read(sql, (*start, limit))]

    def open_alert(self, alert: Alert) -> Alert:
        """Open an alert, or find the one that is open for the fingerprint."""
        with self.write() as cursor:
            alone(cursor, f"alert {alert.fingerprint}")
            sql = "select " + _ALERT + " from alert where fingerprint = %s and state <> 'resolved'"
            row = cursor.execute(sql, (alert.fingerprint,)).fetchone()
            if row is not None:
                return _alert(row)
            marks: LiteralString = ", ".join(["%s"] * 16)
            cursor.execute("insert into alert (" + _ALERT + ") values (" + marks + ")", _values(alert))
            return alert

    def move_alert(self, alert: Alert, was: AlertState) -> bool:
        """Compare-and-swap on state."""
        values = _values(alert)
        sql: LiteralString = (
            "update alert set state = %s, score = %s, threshold = %s, effect = %s, features = %s, detail = %s, "
            "resolved = %s, acked_by = %s, muted_until = %s where id = %s and state = %s and state <> 'resolved'"
        )
        return self.changed(sql, (values[5], *values[8:], alert.id, was))

    def alerts(self, *, open_only: bool = False, monitor: str = "", limit: int = 100) -> list[Alert]:
        """Alerts, the newest first."""
        sql = (
            "select " + _ALERT + " from alert where (not %s or state <> 'resolved') "
            "and (%s = '' or monitor = %s) order by opened desc, id desc limit %s"
        )
        return [_alert(row) for row in self.read(sql, (open_only, monitor, monitor, limit))]
