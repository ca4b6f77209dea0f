"""The replay check at work: sampled answers computed again offline, counted, and an alarm when they do not agree."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import msgspec

from mainspring.catalog.ids import new_id
from mainspring.catalog.ids import now_us as present
from mainspring.choose.services import Services
from mainspring.features.offline.recalculate import recalculate
from mainspring.features.offline.replay import Replayed, replay
from mainspring.features.online.sampled import Calculated, Sample, Samples
from mainspring.features.quality.gate import REPLAYED
from mainspring.monitoring.alerts import Alerts, fingerprint
from mainspring.ports.catalog import Alert, Event
from mainspring.serving.telemetry import Metrics

__all__ = ["ReplayWatch"]

_SETTLED_US = 10_000_000
"""How old an answer is before it is computed again: rows that were on their way are in the log then."""
_MARGIN_US = 1_000_000
"""An answer may have seen a push that came while it was given."""
_BATCH = 500
_IDLE = 60.0
"""After a look that took a second of a core, the next waits sixty, a minute at most."""
_LONGEST = 60.0
_WINDOW = 1000
_LASTS_US = 3_600_000_000
_FEWEST = 20
_SHOWN = 3
_TOLD_US = 60_000_000


class _Recent(msgspec.Struct):
    """The last answers of a view or an on-demand function: when each was asked and whether it is a mismatch."""

    answers: deque[tuple[int, bool]] = msgspec.field(default_factory=lambda: deque(maxlen=_WINDOW))
    told_us: int = 0
    open: bool = False


class ReplayWatch:
    """Follows the samples of a server.

    Args:
        app: the app's name.
        services: the project's ports.
        samples: the answers.
        metrics: where numbers go.
        waits_since: when the oldest push was made that is online and not yet in the tables, or None: answers since then
            are computed again when it is.
        clock: the time, UTC microseconds.
        settled_us: how old an answer must be.
    """

    def __init__(
        self,
        app: str,
        services: Services,
        samples: Samples,
        metrics: Metrics,
        waits_since: Callable[[], int | None] = lambda: None,
        clock: Callable[[], int] = present,
        settled_us: int = _SETTLED_US,
    ) -> None:
        self._app = app
        self._services = services
        self._samples = samples
        self._metrics = metrics
        self._waits_since = waits_since
        self._clock = clock
        self._settled = settled_us
        self._recent: dict[str, _Recent] = {}
        self._dropped = 0
        self._rest_until = 0.0

    def once(self) -> int:
        """Compute answers again that have settled; how many there were."""
        started = time.thread_time()
        if time.monotonic() < self._rest_until:
            return 0
        until, waiting = self._clock() - self._settled, self._waits_since()
        samples = self._samples.take(until if waiting is None else min(until, waiting - _MARGIN_US), _BATCH)
        looked_up = [one for one in samples if isinstance(one, Sample)]
        found = replay(self._services.tables, looked_up) if looked_up else []
        found += recalculate([one for one in samples if isinstance(one, Calculated)])
        by_url: dict[str, list[Replayed]] = {url: [] for url in self._recent}
        for one in found:
            by_url.setdefault(f"{one.kind}/{one.view}", []).append(one)
        for url, again in by_url.items():
            self._judge(url, again)
        dropped = self._samples.dropped
        self._metrics.counter("mainspring_feature_replay_dropped_total", app=self._app)(dropped - self._dropped)
        self._dropped = dropped
        self._rest_until = time.monotonic() + min((time.thread_time() - started) * _IDLE, _LONGEST)
        return len(samples)

    def _judge(self, url: str, found: Sequence[Replayed]) -> None:
        recent, now = self._recent.get(url) or self._begun(url), self._clock()
        for one in found:
            self._count(one)
            recent.answers.append((now, one.verdict == "mismatch"))
        while recent.answers and recent.answers[0][0] < now - _LASTS_US:
            recent.answers.popleft()
        wrong = [one for one in found if one.verdict == "mismatch"]
        if wrong and now - recent.told_us >= _TOLD_US:
            recent.told_us = now
            shown = [_plain(one) for one in wrong[:_SHOWN]]
            self._services.catalog.add_event(
                Event(now, "replay", REPLAYED, f"/{url}", {"mismatches": len(wrong), "answers": shown})
            )
        self._alarm(url, recent, wrong, now)

    def _begun(self, url: str) -> _Recent:
        """A view's or function's window, with the alarm that an earlier process may have left open."""
        alerts = Alerts(self._services.catalog, url, self._clock)
        found = self._recent[url] = _Recent(open=any(alert.kind == "replay" for alert in alerts.open()))
        return found

    def _count(self, one: Replayed) -> None:
        labels = {"app": self._app, "view": one.view}
        if one.verdict == "late":
            self._metrics.counter("mainspring_feature_replay_late_total", **labels)(1.0)
        for feature in one.features:
            self._metrics.counter("mainspring_feature_replay_checked_total", **labels, feature=feature)(1.0)
        for feature in one.differing if one.verdict == "mismatch" else ():
            self._metrics.counter("mainspring_feature_replay_mismatch_total", **labels, feature=feature)(1.0)

    def _alarm(self, url: str, recent: _Recent, wrong: Sequence[Replayed], now: int) -> None:
        """One mismatch is a fault: those that late rows explain are none. It ends when the window has no more of them.

        The window is the last 1,000 answers of the last hour; fewer than 20 end no alarm.
        """
        mismatches = sum(mismatch for _, mismatch in recent.answers)
        if not wrong and not recent.open:
            return
        alerts = Alerts(self._services.catalog, url, self._clock)
        if wrong:
            rate = mismatches / len(recent.answers)
            features = dict.fromkeys(feature for one in wrong for feature in one.differing)
            first = wrong[0]
            why = f"{mismatches} of {len(recent.answers)} answers that were computed again offline are others"
            alerts.offer(
                Alert(
                    new_id(),
                    fingerprint(self._app, url, "", "replay"),
                    url,
                    "",
                    "replay",
                    "firing",
                    first.at_us,
                    now,
                    rate,
                    0.0,
                    rate,
                    (url, *features),
                    {"why": why, "answer": _plain(first)},
                )
            )
            recent.open = True
        elif not mismatches and len(recent.answers) >= _FEWEST:
            alerts.settle("", ())
            recent.open = False


def _plain(one: Replayed) -> dict[str, object]:
    return {
        "keys": _texts(one.keys),
        "at": one.at_us,
        "differing": list(one.differing),
        "online": _texts(one.online or {}),
        "offline": _texts(one.offline or {}),
    }


def _texts(values: Mapping[str, object]) -> dict[str, str | None]:
    return {name: None if value is None else str(value)[:80] for name, value in values.items()}
