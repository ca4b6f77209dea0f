"""The monitors of served models: opened with a model's baseline, following its predictions, retraining when told to."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

import msgspec

from mainspring.choose.services import Services
from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.model import Monitor
from mainspring.deploy.ci.dispatch import Dispatcher, dispatch_of
from mainspring.errors import MainspringError
from mainspring.monitoring.feeds import Arrivals
from mainspring.monitoring.stats.decide import Finding
from mainspring.monitoring.steps import baseline_file
from mainspring.monitoring.watch import Judged, MonitorWatch, Predictions
from mainspring.plan.graph import Plan
from mainspring.ports.catalog import Alert, Event
from mainspring.server.trainings import Trainings
from mainspring.serving.endpoint import EndpointService
from mainspring.serving.predlog.reader import LogReader, compact
from mainspring.serving.telemetry import Metrics

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["ModelMonitors"]

_KEEP_SEGMENTS = 4
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Watched(msgspec.Struct):
    """A monitor at work, and the log it follows."""

    watch: MonitorWatch
    reader: LogReader
    endpoint: str
    baseline: str


class ModelMonitors:
    """The monitors of the models that a process serves.

    Args:
        services: the project's ports.
        plan: the app's graph.
        endpoints: those that answer, by name; their prediction logs are followed.
        metrics: where findings are shown.
        came: the event times of a source's rows in a span.
        told: told what a person should know, a line at a time.
    """

    def __init__(
        self,
        services: Services,
        plan: Plan,
        endpoints: Mapping[str, EndpointService],
        metrics: Metrics,
        came: Arrivals,
        told: Callable[[str], None],
    ) -> None:
        self._services = services
        self._plan = plan
        self._endpoints = endpoints
        self._metrics = metrics
        self._came = came
        self._watched: dict[str, _Watched] = {}
        self._judging = threading.Lock()
        self._trainings = Trainings(services, told)
        ask = dispatch_of(services.settings)
        self._dispatcher = None if ask is None else Dispatcher(ask, self._dispatched)

    def open(self, models: Sequence[str]) -> None:
        """Follow the predictions of models whose version has changed, from the baseline of that version."""
        for node in self._plan.of_kind("monitor", over="model"):
            spec = spec_of(cast(Monitor, node.declaration))
            model = name_of(spec.model)
            endpoint = next((s.name for s in self._endpoints.values() if s.model == model), None)
            digest = self._baseline_of(node.name)
            if model not in models or endpoint is None or digest is None:
                continue
            baseline = baseline_file(self._services.objects.get(digest))
            known = self._watched.get(node.name)
            if known is not None:
                with self._judging:
                    known.watch.rebase(baseline)
                    known.baseline = digest
                continue
            judged_by = spec_of(spec.model)
            retrain = self._retrain if spec.on_alarm == "retrain" else None
            folder = self._services.state / "predictions" / endpoint
            reader = LogReader(folder, endpoint, self._services.tables)
            judged = Judged(judged_by.metric, judged_by.label.name, _spans_of(reader))
            watch = MonitorWatch(
                self._plan.app, node.name, spec, self._services.catalog, baseline, judged, retrain, self._came
            )
            reader.since = watch.since
            self._watched[node.name] = _Watched(watch, reader, endpoint, digest)

    def _baseline_of(self, monitor: str) -> str | None:
        for step in self._services.catalog.step_history(f"baseline/{monitor}", limit=20):
            if step.status in ("ok", "hit") and step.outputs:
                return step.outputs[0].digest
        return None

    def once(self) -> int:
        """Follow the prediction logs, judge closed blocks, compact old segments; how many blocks were judged."""
        judged = 0
        with self._judging:
            for watched in self._watched.values():
                for rows in watched.reader.new_rows():
                    watched.watch.take(rows)
            for name, watched in self._watched.items():
                for judgement in watched.watch.close_blocks():
                    judged += not judgement.segment
                    self.show(name, judgement.segment, judgement.findings)
            for folder, endpoint in {(watched.reader.folder, watched.endpoint) for watched in self._watched.values()}:
                compact(folder, self._services.tables, endpoint, keep=_KEEP_SEGMENTS)  # when all have read them
        if self._watched:
            self._trainings.once()
        return judged

    def show(self, monitor: str, segment: str, findings: Sequence[Finding]) -> None:
        """Set the metrics of what a monitor has found in a block."""
        for finding in findings:
            if finding.state == "off" or finding.window != 1:
                continue
            labels = {
                "app": self._plan.app,
                "monitor": monitor,
                "feature": finding.feature,
                "segment": segment,
                "kind": finding.kind,
            }
            for part in ("score", "threshold", "effect", "floor"):
                self._metrics.set(f"mainspring_monitor_{part}", getattr(finding, part), **labels)
        self._metrics.set(
            "mainspring_monitor_evaluated_timestamp_seconds", time.time(), app=self._plan.app, monitor=monitor
        )

    def _retrain(self, alert: Alert) -> None:
        """Have a model trained by CI, else in a process of its own; one that is promoted is taken over."""
        model = alert.monitor
        node = self._plan.node(f"/monitor/{alert.monitor}")
        if node is not None:
            model = node.inputs[0].rpartition("/")[2]
        if self._dispatcher is not None:
            facts = {"app": self._plan.app, "model": model, "monitor": alert.monitor, "alert": alert.id}
            facts |= {"kind": alert.kind, "features": ", ".join(alert.features[:3])}
            if not self._dispatcher.offer(facts):
                self._dispatched(facts, "too many alarms wait to be told")
            return
        self._trainings.ask(model, f"alarm of {alert.monitor}: {alert.kind} of {', '.join(alert.features[:3])}")

    def _dispatched(self, facts: Mapping[str, str], why: str) -> None:
        """Note what became of an alarm that CI was told of."""
        what = "monitor.dispatch_failed" if why else "monitor.dispatched"
        data: dict[str, object] = {**facts, **({"why": why} if why else {})}
        with contextlib.suppress(MainspringError):  # the event is lost with the catalog, the alarm stays
            at = f"/monitor/{facts['monitor']}"
            self._services.catalog.add_event(Event(time.time_ns() // 1000, "monitor", what, at, data))

    def close(self) -> None:
        """Stop a training that is under way, and telling CI."""
        if self._dispatcher is not None:
            self._dispatcher.close()
        self._trainings.close()


def _spans_of(reader: LogReader) -> Predictions:
    def between(start: int, stop: int) -> pa.Table:
        first, last = (_EPOCH + timedelta(microseconds=moment) for moment in (start, stop))
        return reader.between(first, last)

    return between
