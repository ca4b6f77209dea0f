"""A monitor at work: counts the prediction log by blocks of event time, judges closed ones, raises and ends alarms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mainspring.catalog.ids import new_id, now_us
from mainspring.declare.model import MonitorSpec
from mainspring.declare.options import yearly_budget
from mainspring.lazy import lazy
from mainspring.metrics.classification import delong
from mainspring.metrics.intervals import poisson_resample
from mainspring.monitoring.alerts import Alerts, fingerprint
from mainspring.monitoring.stats.baseline import Baseline
from mainspring.monitoring.stats.decide import Finding, Thresholds, judge, rank, thresholds
from mainspring.monitoring.stats.reference import Reference, reference
from mainspring.monitoring.stats.register import count_table
from mainspring.monitoring.stats.state import BlockState, merge
from mainspring.monitoring.stats.threshold import alpha
from mainspring.ports.catalog import Alert, Block, Catalog, Event

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
else:
    np, pa = lazy("numpy"), lazy("pyarrow")

__all__ = ["Judgement", "MonitorWatch", "Retrain"]

_LATE = {"hour": 600_000_000, "day": 7_200_000_000}
_WINDOW = 7
_MATURE_BLOCKS = 1
_NEVER = -1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Retrain = Callable[[Alert], None]
"""Starts a training because of an alarm."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a closed block came to.

    Attributes:
        start: the block's start, UTC microseconds.
        findings: of all features, alarms first.
        alert: the alarm it raised or kept up, or None.
    """

    start: int
    findings: tuple[Finding, ...]
    alert: Alert | None


@dataclass(slots=True)
class _Predictions:
    ids: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)


class MonitorWatch:
    """One monitor over one prediction log.

    Args:
        app: the app's name.
        name: the monitor's name.
        spec: what was declared.
        catalog: where blocks, events and alerts are kept.
        baseline: the reference.
        metric: the model's metric, judged when labels arrive.
        retrain: starts a training, or None.
        clock: the time, UTC microseconds; blocks go by event time, alarms and mutes by the clock.
    """

    def __init__(
        self,
        app: str,
        name: str,
        spec: MonitorSpec,
        catalog: Catalog,
        baseline: Baseline,
        metric: str,
        retrain: Retrain | None = None,
        clock: Callable[[], int] = now_us,
    ) -> None:
        self.app = app
        self.name = name
        self._clock = clock
        self._alerts = Alerts(catalog, name, clock)
        self._spec = spec
        self._catalog = catalog
        self._metric = metric
        self._retrain = retrain
        self._late = _LATE[spec.block]
        self._newest = 0
        # What an earlier process has judged is counted again from the log, and not judged again.
        self._judged = self._last("monitor.evaluated", "block")
        self._measured = self._last("monitor.performance", "block")
        self._retrained = self._last("monitor.retrain", "since")
        self._predictions: dict[int, _Predictions] = {}
        self.rebase(baseline)

    def rebase(self, baseline: Baseline) -> None:
        """Take a new reference; blocks counted on the old one are judged no more."""
        self._baseline = baseline
        self._states: dict[int, dict[str, BlockState]] = {}
        names = [feature.name for feature in baseline.features]
        self.alpha = alpha(yearly_budget(self._spec.false_alarms), len(names), baseline.block_us)
        self._references: dict[str, Reference] = {name: reference(baseline, name) for name in names}
        self._limits: dict[str, Thresholds] = {name: thresholds(self._references[name], self.alpha) for name in names}
        self._judged = max(self._judged, self._newest // baseline.block_us * baseline.block_us if self._newest else -1)

    def _last(self, what: str, field: str) -> int:
        events = self._catalog.last_events(what=what, subject=f"/monitor/{self.name}", limit=1)
        return int(str(events[0].data[field])) if events else _NEVER

    @property
    def since(self) -> datetime:
        """From where on the log is needed: the blocks that the next judgement looks back on."""
        first = self._judged - _WINDOW * self._baseline.block_us
        return _EPOCH + timedelta(microseconds=max(first, 0))

    @property
    def facts(self) -> Mapping[str, object]:
        """What the monitor can see."""
        return {
            "reference_blocks": len(self._baseline.starts),
            "weak": any(item.weak for item in self._references.values()),
            "alpha": self.alpha,
            "features": len(self._references),
        }

    def take(self, rows: pa.Table) -> None:
        """Count new rows of the prediction log: ``at``, ``score``, ``prediction_id`` and the model's columns."""
        if not len(rows):
            return
        counted = count_table(rows, "at", self._baseline)
        touched: dict[int, dict[str, BlockState]] = {}
        for feature, blocks in counted.items():
            for start, state in blocks.items():
                known = self._states.setdefault(start, {})
                known[feature] = merge([known[feature], state]) if feature in known else state
                touched.setdefault(start, {})[feature] = known[feature]
        self._keep(touched)
        self._remember(rows)
        self._newest = max(self._newest, int(np.asarray(rows.column("at").cast(pa.int64())).max()))

    def _keep(self, touched: Mapping[int, Mapping[str, BlockState]]) -> None:
        at = self._clock()
        self._catalog.put_blocks(
            [
                Block(self.name, feature, "", start, "0", state.to_bytes(), at)
                for start, features in touched.items()
                for feature, state in features.items()
            ]
        )

    def _remember(self, rows: pa.Table) -> None:
        size = self._baseline.block_us
        starts = (np.asarray(rows.column("at").cast(pa.int64())) // size * size).tolist()
        ids, scores = rows.column("prediction_id").to_pylist(), rows.column("score").to_pylist()
        for start, identity, score in zip(starts, ids, scores, strict=True):
            block = self._predictions.setdefault(start, _Predictions())
            block.ids.append(identity)
            block.scores.append(score)

    def close_blocks(self) -> list[Judgement]:
        """Judge every block that has closed since the last call, in order of time."""
        size = self._baseline.block_us
        closed = sorted(
            start for start in self._states if start > self._judged and start + size + self._late <= self._newest
        )
        found = []
        for start in closed:
            found.append(self._judge(start))
            self._judged = start
        self._judge_labels()
        return found

    def _judge(self, start: int) -> Judgement:
        recent = sorted(at for at in self._states if at <= start)[-_WINDOW:]
        findings: list[Finding] = []
        for name, known in self._references.items():
            states = [(at, self._states[at][name]) for at in recent if name in self._states[at]]
            findings += judge(known, self._limits[name], states)
        ranked = rank(findings)
        alarms = [finding for finding in ranked if finding.state == "alarm"]
        alert = self._raise(start, alarms) if alarms else None
        self._alerts.settle("", {finding.feature for finding in alarms})
        shown = [_plain(finding) for finding in ranked if finding.state != "off"]
        self._event(
            "monitor.evaluated", {"block": start, "alarms": len(alarms), "findings": shown, "alpha": self.alpha}
        )
        return Judgement(start, ranked, alert)

    def _raise(self, start: int, alarms: list[Finding]) -> Alert:
        first = alarms[0]
        offered = Alert(
            new_id(),
            # One cause, one alarm: the feature that changed most is the cause.
            fingerprint(self.app, self.name, "", first.feature),
            self.name,
            "",
            first.kind,
            "firing",
            start,
            self._clock(),
            first.score,
            first.threshold,
            first.effect,
            tuple(dict.fromkeys(finding.feature for finding in alarms)),
            {"window": first.window, "findings": [_plain(finding) for finding in alarms[:8]]},
        )
        alert, new = self._alerts.offer(offered)
        if new:
            self._maybe_retrain(alert, start)
        return alert

    def _maybe_retrain(self, alert: Alert, start: int) -> None:
        waiting = self._retrained != _NEVER and start - self._retrained < self._spec.cooldown_us
        if self._retrain is None or waiting:
            return
        self._retrained = start
        data = {"alert": alert.id, "features": list(alert.features), "kind": alert.kind, "since": alert.since}
        self._event("monitor.retrain", data)
        self._retrain(alert)

    def _judge_labels(self) -> None:
        """Judge the blocks whose labels have had a block's time to arrive."""
        size = self._baseline.block_us
        for start in sorted(self._predictions):
            if start + size * (1 + _MATURE_BLOCKS) + self._late > self._newest:
                return
            block = self._predictions.pop(start)
            if start > self._measured:
                self._measured = start
                self._performance(start, block)

    def _performance(self, start: int, block: _Predictions) -> None:
        known = {label.prediction_id: label.value for label in self._catalog.labels(block.ids)}
        pairs = [(known[i], score) for i, score in zip(block.ids, block.scores, strict=True) if i in known]
        if not pairs:
            return
        y, p = np.array(pairs).T
        found = delong(y, p) if self._metric == "roc_auc" else poisson_resample(y, p, self._metric, n=200)
        data = {
            "block": start,
            "metric": self._metric,
            "value": _finite(found.value),
            "low": _finite(found.low),
            "high": _finite(found.high),
            "n": found.n,
            "coverage": len(pairs) / len(block.ids),
        }
        self._event("monitor.performance", data)

    def _event(self, what: str, data: dict[str, object]) -> None:
        self._catalog.add_event(Event(self._clock(), "monitor", what, f"/monitor/{self.name}", data))


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _plain(finding: Finding) -> dict[str, object]:
    return {
        "feature": finding.feature,
        "kind": finding.kind,
        "window": finding.window,
        "score": _finite(finding.score),
        "threshold": _finite(finding.threshold),
        "effect": _finite(finding.effect),
        "floor": _finite(finding.floor),
        "state": finding.state,
    }
