"""A monitor at work: counts the prediction log by blocks of event time, judges closed ones, raises and ends alarms."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec

from mainspring.catalog.ids import new_id, now_us
from mainspring.declare.model import MonitorSpec
from mainspring.declare.options import yearly_budget
from mainspring.lazy import lazy
from mainspring.monitoring.alerts import Alerts, fingerprint
from mainspring.monitoring.feeds import Arrivals, FeedJudge
from mainspring.monitoring.labels import measured
from mainspring.monitoring.references import reference_of
from mainspring.monitoring.scope import LOOK_BACK, Scope, States
from mainspring.monitoring.stats.baseline import Baseline
from mainspring.monitoring.stats.decide import Finding, rank
from mainspring.monitoring.stats.feed import mute
from mainspring.monitoring.stats.performance import mature
from mainspring.monitoring.stats.report import Known
from mainspring.monitoring.stats.segments import partition, segment_name, take
from mainspring.monitoring.stats.threshold import alpha
from mainspring.ports.catalog import Alert, Block, Catalog, Event

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from mainspring.metrics.arrays import Ints
else:
    np, pa = lazy("numpy"), lazy("pyarrow")

__all__ = ["Judged", "Judgement", "MonitorWatch", "Predictions", "Retrain"]

_LATE = {"hour": 600_000_000, "day": 7_200_000_000}
_NEVER = -1
_SHOWN = 8
_MANY = 400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Retrain = Callable[[Alert], None]
"""Starts a training because of an alarm."""

Predictions = Callable[[int, int], "pa.Table"]
"""The predictions of a span of event time, start inclusive, stop exclusive, in UTC microseconds: ``prediction_id``,
``score`` and ``weight``."""


class Judged(msgspec.Struct, frozen=True):
    """What labels are of, and how a model is judged on them.

    Attributes:
        metric: the model's metric.
        label: the label's column.
        predictions: reads the log when a block's labels are due, so that none are held until then.
    """

    metric: str
    label: str
    predictions: Predictions


class Judgement(msgspec.Struct, frozen=True):
    """What a closed block came to, over all rows or in one segment.

    Attributes:
        start: the block's start, UTC microseconds.
        segment: the segment's name; empty for all rows.
        findings: of all features, alarms first.
        alert: the alarm it raised or kept up, or None.
    """

    start: int
    segment: str
    findings: tuple[Finding, ...]
    alert: Alert | None


class MonitorWatch:
    """One monitor over one prediction log.

    Args:
        app: the app's name.
        name: the monitor's name.
        spec: what was declared.
        catalog: where blocks, events and alerts are kept.
        baseline: the reference.
        judged: how the model is judged when labels have arrived.
        retrain: starts a training, or None.
        came: what the sources behind the features have brought; without it they are not judged.
        clock: the time, UTC microseconds; blocks go by event time, alarms and mutes by the clock.
    """

    def __init__(
        self,
        app: str,
        name: str,
        spec: MonitorSpec,
        catalog: Catalog,
        baseline: Baseline,
        judged: Judged,
        retrain: Retrain | None = None,
        came: Arrivals | None = None,
        clock: Callable[[], int] = now_us,
    ) -> None:
        self.app = app
        self.name = name
        self._spec = spec
        self._catalog = catalog
        self._on_labels = judged
        self._retrain = retrain
        self._clock = clock
        self._came = came
        self.alerts = Alerts(catalog, name, clock)
        self._late = _LATE[spec.block]
        self._newest = 0
        # What an earlier process has judged is counted again from the log, and not judged again.
        self._judged = self._last("monitor.evaluated", "block")
        self._measured = self._last("monitor.performance", "block")
        self._retrained = self._last("monitor.retrain", "since")
        told = self._evaluations()
        self._unmeasured = {block for block in told if block > self._measured}
        self._spoilt = {block for block, data in told.items() if data.get("failing")}
        self.rebase(baseline)

    def rebase(self, baseline: Baseline) -> None:
        """Take a new reference; blocks counted on the old one are judged no more."""
        size = self._size = baseline.block_us
        self._horizon = baseline.horizon_us
        self._judged = max(self._judged, self._newest // size * size if self._newest else _NEVER)
        scopes = 1 + len(baseline.segments)
        watched = len(baseline.features) + (len(baseline.feeds) if self._came else 0)
        self.alpha = alpha(yearly_budget(self._spec.false_alarms), watched, size, segments=scopes)
        self._feeds = FeedJudge(baseline, self.alpha, self._came) if self._came else None
        self._all = Scope("", baseline, self.alpha, fine=self._spec.block == "day")
        self._apart: dict[str, dict[str | None, Scope]] = {found.column: {} for found in baseline.apart}
        for segment in baseline.segments:
            name = segment_name(segment.column, segment.value)
            self._apart[segment.column][segment.value] = Scope(name, segment.baseline, self.alpha)
        self._outside: dict[int, dict[str, dict[str, int]]] = {}
        self._facts = self._about(baseline)
        self._first = self._since_reference(baseline)

    def _about(self, baseline: Baseline) -> dict[str, object]:
        return {
            "reference_blocks": len(baseline.starts),
            "weak": any(scope.weak for scope in self._scopes()),
            "alpha": self.alpha,
            "features": len(baseline.features),
            "sources": [feed.source for feed in baseline.feeds] if self._came else [],
            "segments": [scope.segment for scope in self._scopes() if scope.segment],
            "not_watched_apart": {
                found.column: {"values": found.values - found.watched, "reference_rows": found.rows_left}
                for found in baseline.apart
                if found.values > found.watched
            },
        }

    def _since_reference(self, baseline: Baseline) -> int:
        """From which block on rows are counted on this reference, also over restarts."""
        digest = hashlib.blake2b(baseline.to_bytes(), digest_size=20).hexdigest()
        known = reference_of(self._catalog, self.name)
        if known is not None and known.data["reference"] == digest:
            return int(str(known.data["from"]))
        first = self._judged + self._size if self._newest else 0
        self._event("monitor.reference", {"reference": digest, "from": first, **self._facts})
        return first

    def _scopes(self) -> Iterator[Scope]:
        yield self._all
        for scopes in self._apart.values():
            yield from scopes.values()

    def _last(self, what: str, field: str) -> int:
        events = self._catalog.last_events(what=what, subject=f"/monitor/{self.name}", limit=1)
        return int(str(events[0].data[field])) if events else _NEVER

    def _evaluations(self) -> dict[int, dict[str, object]]:
        events = self._catalog.last_events(what="monitor.evaluated", subject=f"/monitor/{self.name}", limit=_MANY)
        return {int(str(event.data["block"])): event.data for event in events}

    @property
    def since(self) -> datetime:
        """From where on the log is needed: the blocks that the next judgement looks back on."""
        return _EPOCH + timedelta(microseconds=max(self._floor(), 0))

    def _floor(self) -> int:
        return max(self._judged - LOOK_BACK * self._size, self._first)

    @property
    def facts(self) -> Mapping[str, object]:
        """What the monitor can see, and which segments it does not watch apart."""
        return self._facts

    @property
    def held(self) -> int:
        """How many blocks are held, over all rows and segments."""
        return sum(len(scope.starts()) for scope in self._scopes())

    def take(self, rows: pa.Table) -> None:
        """Count new rows of the prediction log.

        Rows of blocks that no judgement looks back on any more are passed over.

        Args:
            rows: ``at``, ``score``, ``prediction_id``, the model's columns, and those that rows are told apart by; a
                column of the latter that is missing is null.
        """
        if not len(rows):
            return
        size = self._size
        at = np.asarray(rows.column("at").cast(pa.int64()))
        self._newest = max(self._newest, int(at.max()))
        starts = at // size * size
        kept = (starts >= self._floor()) | np.isin(starts, np.array(self._all.starts(), dtype=np.int64))
        if not kept.all():
            rows, starts = take(rows, np.flatnonzero(kept)), starts[kept]
        if not len(rows):
            return
        self._keep(self._all, self._all.count(rows))
        for column, scopes in self._apart.items():
            self._count_apart(rows, starts, column, scopes)
        self._unmeasured |= {start for start in np.unique(starts).tolist() if start > self._measured}

    def _count_apart(self, rows: pa.Table, starts: Ints, column: str, scopes: Mapping[str | None, Scope]) -> None:
        """Count the rows of each segment of a column; those of no watched one are told of by the block."""
        there = column in rows.column_names
        values, places = partition(rows.column(column) if there else pa.nulls(len(rows)))
        watched = {place: scopes[value] for place, value in enumerate(values) if value in scopes}
        for place, scope in watched.items():
            if len(mine := np.flatnonzero(places == place)):
                self._keep(scope, scope.count(take(rows, mine)))
        others = np.flatnonzero(~np.isin(places, np.array([*watched], dtype=np.int64)))
        for start, null in zip(starts[others].tolist(), (places[others] == len(values) - 1).tolist(), strict=True):
            told = self._outside.setdefault(start, {}).setdefault(column, {"null": 0, "other": 0})
            told["null" if null else "other"] += 1

    def _keep(self, scope: Scope, touched: States) -> None:
        at = self._clock()
        self._catalog.put_blocks(
            [
                Block(self.name, feature, scope.segment, start, "0", state.to_bytes(), at)
                for start, features in touched.items()
                for feature, state in features.items()
            ]
        )

    def close_blocks(self) -> list[Judgement]:
        """Judge every block that has closed since the last call, in order of time: all rows, then each segment."""
        size = self._size
        closed = [
            start for start in self._all.starts() if start > self._judged and start + size + self._late <= self._newest
        ]
        found: list[Judgement] = []
        for start in closed:
            found += self._judge(start)
            self._judged = start
            for scope in self._scopes():
                scope.forget(start)
            self._outside = {at: told for at, told in self._outside.items() if at > start}
        self._spoilt = {at for at in self._spoilt if at >= self._floor() or at in self._all.starts()}
        self._judge_labels()
        return found

    def _judge(self, start: int) -> list[Judgement]:
        feeds = self._judge_feeds(start)
        failing = [finding for finding in feeds if finding.state == "alarm"]
        if failing:
            self._spoilt.add(start)
        found = [self._judge_scope(scope, start, failing) for scope in self._scopes()]
        overall, *segments = found
        found[0] = overall = msgspec.structs.replace(overall, findings=(*feeds, *overall.findings))
        shown = [_plain(finding) for finding in overall.findings if finding.state != "off"]
        for judged in segments:
            passed = [finding for finding in judged.findings if finding.state in ("alarm", "recorded")]
            shown += [_plain(finding, judged.segment) for finding in passed]
        data: dict[str, object] = {
            "block": start,
            "alarms": sum(finding.state == "alarm" for judged in found for finding in judged.findings),
            "findings": shown,
            "alpha": self.alpha,
            "rows": self._all.rows(start),
            "failing": sorted({finding.feature for finding in failing}),
            "reported": {name: _reported(*found) for name, found in self._all.reported(start).items()},
        }
        if self._apart:
            data["segments"] = [
                _summary(scope, start, judged) for scope, judged in zip(self._scopes(), found, strict=True)
            ][1:]
            data["outside"] = self._outside.get(start, {})
        self._event("monitor.evaluated", data)
        return found

    def _judge_feeds(self, start: int) -> list[Finding]:
        """The findings on the sources; those that fail have an alarm each, which starts no training."""
        findings = self._feeds.judge(start, self._spoilt) if self._feeds is not None else []
        failing: dict[str, list[Finding]] = {}
        for finding in rank(findings):
            if finding.state == "alarm":
                failing.setdefault(finding.feature, []).append(finding)
        for alarms in failing.values():
            self._raise("", start, alarms)
        self.alerts.settle("", failing, feeds=True)
        return findings

    def _judge_scope(self, scope: Scope, start: int, failing: Sequence[Finding]) -> Judgement:
        if not scope.rows(start):  # nothing came: no alarm begins, and none ends
            return Judgement(start, scope.segment, (), None)
        ranked = rank(scope.judge(start, self._spoilt))
        if failing:  # what the features show now may be the sources' fault
            why = ", ".join(sorted({f"{finding.kind} of {finding.feature}" for finding in failing}))
            return Judgement(start, scope.segment, mute(ranked, why), None)
        alarms = [finding for finding in ranked if finding.state == "alarm"]
        alert = None
        if alarms:
            alert, new = self._raise(scope.segment, start, alarms)
            if new:
                self._maybe_retrain(alert, start)
        self.alerts.settle(scope.segment, {finding.feature for finding in alarms})
        return Judgement(start, scope.segment, ranked, alert)

    def _raise(self, segment: str, start: int, alarms: Sequence[Finding]) -> tuple[Alert, bool]:
        first = alarms[0]
        offered = Alert(
            new_id(),
            # One cause, one alarm: the feature that changed most is the cause.
            fingerprint(self.app, self.name, segment, first.feature),
            self.name,
            segment,
            first.kind,
            "firing",
            start,
            self._clock(),
            first.score,
            first.threshold,
            first.effect,
            tuple(dict.fromkeys(finding.feature for finding in alarms)),
            {"window": first.window, "findings": [_plain(finding, segment) for finding in alarms[:_SHOWN]]},
        )
        return self.alerts.offer(offered)

    def _maybe_retrain(self, alert: Alert, start: int) -> None:
        waiting = self._retrained != _NEVER and start - self._retrained < self._spec.cooldown_us
        if self._retrain is None or waiting:
            return
        self._retrained = start
        data = {"alert": alert.id, "features": list(alert.features), "kind": alert.kind, "since": alert.since}
        self._event("monitor.retrain", data)
        self._retrain(alert)

    def _judge_labels(self) -> None:
        """Judge the blocks whose labels are due: after a block's time, or what 99 % of the reference's took."""
        horizon = max(self._horizon, self._size) + self._late
        for start in sorted(self._unmeasured):
            if not mature(start + self._size, self._newest, horizon):
                return
            self._unmeasured.discard(start)
            self._measured = start
            judged = self._on_labels
            predictions = judged.predictions(start, start + self._size)
            if found := measured(self._catalog, predictions, judged.metric, judged.label):
                self._event("monitor.performance", {"block": start, **found})

    def _event(self, what: str, data: dict[str, object]) -> None:
        self._catalog.add_event(Event(self._clock(), "monitor", what, f"/monitor/{self.name}", data))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _plain(finding: Finding, segment: str = "") -> dict[str, object]:
    return {
        "feature": finding.feature,
        "segment": segment,
        "kind": finding.kind,
        "window": finding.window,
        "score": _finite(finding.score),
        "threshold": _finite(finding.threshold),
        "effect": _finite(finding.effect),
        "floor": _finite(finding.floor),
        "state": finding.state,
    }


def _reported(known: Known, moments: tuple[float, float]) -> dict[str, object]:
    mean, sd = moments
    numbers = {**msgspec.structs.asdict(known), "mean": mean, "sd": sd}
    return {name: number if isinstance(number, int) else _finite(number) for name, number in numbers.items()}


def _summary(scope: Scope, start: int, judged: Judgement) -> dict[str, object]:
    """A segment's block in a line: its rows, its alarms, and the score that is farthest on its way to its threshold."""
    scored = [finding for finding in judged.findings if finding.threshold > 0 and finding.state != "off"]
    worst = max(scored, key=lambda finding: finding.score / finding.threshold, default=None)
    return {
        "segment": judged.segment,
        "rows": scope.rows(start),
        "alarms": sum(finding.state == "alarm" for finding in judged.findings),
        "worst": None if worst is None else _plain(worst, judged.segment),
    }
