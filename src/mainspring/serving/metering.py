"""What a model's queue is counted as: in the statistics of the Open Inference Protocol, and in the metrics."""

from __future__ import annotations

from collections.abc import Callable

from mainspring.serving.batching import Meter
from mainspring.serving.statistics import Statistics
from mainspring.serving.telemetry import Metrics

__all__ = ["ModelMeter"]


class ModelMeter(Meter):
    """Counts what happens in the queue of one model version.

    Args:
        statistics: of the version.
        metrics: where it is counted besides, or None.
        labels: the app, the model and the version.
    """

    def __init__(self, statistics: Statistics, metrics: Metrics | None = None, **labels: str) -> None:
        self._statistics = statistics
        self._rows: Callable[[float], None] = _nothing
        self._metrics = metrics
        self._labels = labels
        self._seconds: dict[str, Callable[[float], None]] = {}
        self._refused: Callable[[float], None] = _nothing
        self._expired: Callable[[float], None] = _nothing
        self._left: Callable[[float], None] = _nothing
        if metrics is None:
            return
        self._rows = metrics.row_histogram("mainspring_batch_rows", **labels)
        self._refused = metrics.counter("mainspring_queue_refused_total", **labels)
        self._expired = metrics.counter("mainspring_queue_expired_total", **labels)
        self._left = metrics.counter("mainspring_queue_left_total", **labels)

    def executed(self, rows: int, calls: int, input_ns: int, infer_ns: int, output_ns: int) -> None:
        """A batch was computed."""
        self._statistics.executed(rows, input_ns, infer_ns, output_ns)
        self._rows(rows)

    def waited(self, seconds: float, protocol: str) -> None:
        """A call that came by a wire waited that long."""
        if self._metrics is None:
            return
        observe = self._seconds.get(protocol)
        if observe is None:
            labels = self._labels | {"protocol": protocol}
            observe = self._seconds[protocol] = self._metrics.histogram("mainspring_queue_seconds", **labels)
        observe(seconds)

    def refused(self) -> None:
        """A call was refused: the queue is full."""
        self._refused(1.0)

    def expired(self) -> None:
        """A call's deadline was over before its answer was there."""
        self._expired(1.0)

    def left(self) -> None:
        """A caller has left before its answer was there."""
        self._left(1.0)


def _nothing(amount: float) -> None:
    return
