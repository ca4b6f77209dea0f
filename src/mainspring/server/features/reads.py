"""How often features are read, and what became of it, by view."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mainspring.serving.telemetry import Metrics

__all__ = ["count_reads"]

_STATUSES = ("PRESENT", "MISSING", "EXPIRED")


def count_reads(metrics: Metrics, app: str, service: str) -> Callable[[Mapping[str, Sequence[str]]], None]:
    """A function that counts the answers of a feature service, given the statuses of all entities by view.

    Args:
        metrics: where they are counted.
        app: the app's name.
        service: the feature service's, or what stands for features that were asked for by their names.
    """
    counters: dict[tuple[str, str], Callable[[float], None]] = {}

    def count(statuses: Mapping[str, Sequence[str]]) -> None:
        for view, found in statuses.items():
            for status in _STATUSES:
                if number := found.count(status):
                    add = counters.get((view, status))
                    if add is None:
                        labels = {"app": app, "service": service, "view": view, "status": status}
                        add = counters[view, status] = metrics.counter("mainspring_feature_reads_total", **labels)
                    add(number)

    return count
