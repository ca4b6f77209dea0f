"""What a serving process tells of its endpoints: their rows in the console, and what their logs have counted."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from mainspring.serving.endpoint import EndpointService
from mainspring.serving.predlog.writer import PredictionLog
from mainspring.serving.table import ModelTable
from mainspring.serving.telemetry import Metrics

__all__ = ["LogCounts", "endpoint_rows"]

_SECONDS = "mainspring_request_seconds"


class LogCounts:
    """Brings into the metrics what prediction logs have written and dropped.

    Args:
        metrics: where it is counted.
        app: the app's name.
        logs: the logs by endpoint; they may come later.
    """

    def __init__(self, metrics: Metrics, app: str, logs: Mapping[str, PredictionLog]) -> None:
        self._metrics = metrics
        self._app = app
        self._logs = logs
        self._lock = threading.Lock()
        self._counted: dict[tuple[str, str], int] = {}

    def count(self) -> None:
        """Add what has come since the last time."""
        with self._lock:
            for endpoint, log in self._logs.items():
                for part, count in (("rows", log.rows), ("dropped", log.dropped)):
                    add = self._metrics.counter(f"mainspring_predlog_{part}_total", app=self._app, endpoint=endpoint)
                    add(count - self._counted.get((endpoint, part), 0))
                    self._counted[endpoint, part] = count


def endpoint_rows(
    app: str,
    endpoints: Mapping[str, EndpointService],
    models: ModelTable,
    metrics: Metrics,
    promised: Mapping[str, float],
) -> list[dict[str, object]]:
    """A row for each endpoint, as the console shows it.

    Args:
        app: the app's name.
        endpoints: by name.
        models: what they answer with.
        metrics: where their requests are counted.
        promised: milliseconds that an endpoint's 99th percentile is promised to stay below, by its name.
    """
    rows: list[dict[str, object]] = []
    for service in endpoints.values():
        live = models.get(service.model)
        labels = {"app": app, "endpoint": service.name}
        seconds = (metrics.quantile(_SECONDS, share, route="endpoint", **labels) for share in (0.5, 0.99))
        p50, p99 = (None if found is None else found * 1e3 for found in seconds)
        answered = metrics.total("mainspring_requests_total", **labels)
        done = sum(count for series, count in answered.items() if ("code", "200") in series)
        most = promised.get(service.name)
        rows.append(
            {
                "name": service.name,
                "model": service.model,
                "version": "" if live is None else live.version,
                "state": "ok" if live is not None else "pending",
                "requests": int(done),
                "errors": int(sum(answered.values()) - done),
                "p50": p50,
                "p99": p99,
                "promised": most,
                "late": most is not None and p99 is not None and p99 > most,
            }
        )
    return rows
