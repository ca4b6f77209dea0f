"""The life of an alarm: firing, acknowledged, muted, resolved; each step is a compare-and-swap with an event.

One cause has one alarm for as long as it lasts, whoever has acknowledged or muted it meanwhile. A muted alarm outlives
its cause until the mute has passed, so that a fault that comes and goes is not raised again before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection
from typing import Literal

import msgspec

from mainspring.errors import UsageError
from mainspring.ports.catalog import Alert, Catalog, Event

__all__ = ["OF_FEEDS", "Alerts", "fingerprint"]

OF_FEEDS = frozenset({"volume", "freshness"})
"""The kinds of alarm that a source has itself."""

_MANY = 10_000
_Change = Literal["alert.firing", "alert.acknowledged", "alert.muted", "alert.resolved"]


def fingerprint(app: str, monitor: str, segment: str, cause: str) -> str:
    """What makes two alarms the same one: 16 hex digits of the SHA-256 of app, monitor, segment and cause."""
    return hashlib.sha256(msgspec.json.encode([app, monitor, segment, cause])).hexdigest()[:16]


class Alerts:
    """The alarms of one monitor.

    Args:
        catalog: where they are kept.
        monitor: the monitor's name.
        clock: the time, UTC microseconds.
    """

    def __init__(self, catalog: Catalog, monitor: str, clock: Callable[[], int]) -> None:
        self._catalog = catalog
        self._monitor = monitor
        self._clock = clock

    def open(self) -> list[Alert]:
        """Those that are not resolved, the newest first."""
        return self._catalog.alerts(open_only=True, monitor=self._monitor, limit=_MANY)

    def offer(self, alert: Alert) -> tuple[Alert, bool]:
        """Raise an alarm, or find the one that its cause has already.

        Returns:
            The alarm of this cause, and whether it is a new one. One whose mute has passed fires again; it is no new
            alarm.
        """
        found = self._catalog.open_alert(alert)
        if found.id == alert.id:
            self._tell("alert.firing", found)
            return found, True
        if found.state == "muted" and not self._quiet(found):
            again = msgspec.structs.replace(found, state="firing", acked_by="", muted_until=None)
            if self._catalog.move_alert(again, "muted"):
                self._tell("alert.firing", again)
                return again, False
        return found, False

    def settle(self, segment: str, lasting: Collection[str], *, feeds: bool = False) -> None:
        """Resolve the alarms of a segment whose cause does not last; a muted one not before its mute has passed.

        Args:
            segment: whose alarms.
            lasting: the causes that are still there.
            feeds: whether the alarms of sources are meant, or those of features.
        """
        for alert in [found for found in self.open() if (found.kind in OF_FEEDS) is feeds]:
            while alert.segment == segment and alert.features[0] not in lasting and not self._quiet(alert):
                done = msgspec.structs.replace(alert, state="resolved", resolved=self._clock())
                if self._catalog.move_alert(done, alert.state):
                    self._tell("alert.resolved", done)
                    break
                # Somebody has acknowledged, muted or resolved it meanwhile.
                now = next((other for other in self.open() if other.id == alert.id), None)
                if now is None:
                    break
                alert = now

    def acknowledge(self, identity: str, by: str) -> Alert:
        """Note that somebody looks after an alarm; the first one who says so is kept.

        Raises:
            UsageError: MS-2613, no open alarm has this id.
        """
        return self._move(
            identity,
            "alert.acknowledged",
            by,
            lambda alert: (
                None
                if alert.state == "acknowledged"
                else msgspec.structs.replace(alert, state="acknowledged", acked_by=by, muted_until=None)
            ),
        )

    def mute(self, identity: str, until: int, by: str) -> Alert:
        """Keep an alarm quiet until a moment (clock, UTC microseconds); a later mute replaces an earlier one.

        Raises:
            UsageError: MS-2613, no open alarm has this id; MS-2614, the moment has passed.
        """
        if until <= self._clock():
            raise UsageError(
                "an alarm cannot be muted until a moment that has passed",
                code="MS-2614",
                fix="mute it for a length of time: 4h, 1d",
            )
        return self._move(
            identity,
            "alert.muted",
            by,
            lambda alert: msgspec.structs.replace(alert, state="muted", muted_until=until),
        )

    def _move(self, identity: str, what: _Change, by: str, change: Callable[[Alert], Alert | None]) -> Alert:
        """Change an open alarm; a swap that fails means that somebody else's has not, so it is tried on theirs."""
        while True:
            alert = next((alert for alert in self.open() if alert.id == identity), None)
            if alert is None:
                raise UsageError(
                    f"monitor {self._monitor!r} has no open alarm {identity!r}",
                    code="MS-2613",
                    why="there was none, or it has been resolved",
                    fix="mainspring show alert",
                )
            changed = change(alert)
            if changed is None:
                return alert
            if self._catalog.move_alert(changed, alert.state):
                self._tell(what, changed, by)
                return changed

    def _quiet(self, alert: Alert) -> bool:
        return alert.state == "muted" and alert.muted_until is not None and alert.muted_until > self._clock()

    def _tell(self, what: _Change, alert: Alert, by: str = "") -> None:
        data: dict[str, object] = {
            "alert": alert.id,
            "features": list(alert.features),
            "segment": alert.segment,
            "kind": alert.kind,
            "since": alert.since,
        }
        if by:
            data["by"] = by
        if alert.muted_until is not None:
            data["until"] = alert.muted_until
        self._catalog.add_event(Event(self._clock(), by or "monitor", what, f"/monitor/{self._monitor}", data))
