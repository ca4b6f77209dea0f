"""What is counted of the calls of a model, a version and a wire; of a call that is traced it becomes a part of that."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from mainspring.ports.trace import CURRENT
from mainspring.serving.telemetry import Metrics, Observe

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ANSWERING", "CallCounts", "ModelCounts", "WireCounts"]

_MOST_SCORES = 256
"""Scores of one call that are counted: more cost more than they tell."""


class WireCounts:
    """Counts the calls of a wire as it carries them: their bytes and how they end.

    Args:
        metrics: where, or None.
        labels: the app, the model, its version, the wire and the version's role.
    """

    __slots__ = ("_came", "_codes", "_labels", "_metrics", "_went")

    def __init__(self, metrics: Metrics | None, labels: dict[str, str]) -> None:
        self._labels = labels
        self._metrics = metrics
        self._codes: dict[int | str, Callable[[float], None]] = {}
        self._came: Callable[[float], None] = _nothing
        self._went: Callable[[float], None] = _nothing
        if metrics is not None:
            self._came = metrics.counter("mainspring_wire_bytes_total", direction="in", **labels)
            self._went = metrics.counter("mainspring_wire_bytes_total", direction="out", **labels)

    def over(self, received: int, sent: int, code: int | str) -> None:
        """A request is over that was one body, as its answer was: `carried` and `ended` at once."""
        self._came(received)
        self._went(sent)
        found = self._codes.get(code)
        if found is None:
            self.ended(code)
        else:
            found(1.0)

    def carried(self, received: int, sent: int) -> None:
        """A body or a message was answered by another: the bytes of both, as they were sent."""
        self._came(received)
        self._went(sent)

    def ended(self, code: int | str) -> None:
        """A request is over, with a status of its wire."""
        found = self._codes.get(code)
        if found is None:
            metrics, name = self._metrics, "mainspring_calls_total"
            found = _nothing if metrics is None else metrics.counter(name, code=str(code), **self._labels)
            self._codes[code] = found
        found(1.0)


class CallCounts(WireCounts):
    """Counts the calls of one model, version, wire and role.

    Args:
        metrics: where, or None.
        labels: these.
    """

    __slots__ = ("_answered", "_failed", "_received", "_rows", "_scored", "_seconds", "_sent")

    def __init__(self, metrics: Metrics | None, labels: dict[str, str]) -> None:
        super().__init__(metrics, labels)
        nothing: Callable[[float], None] = _nothing
        self._answered = self._failed = self._rows = self._received = self._sent = nothing
        self._seconds: Observe = _nothing
        self._scored: Observe = _nothing
        if metrics is None:
            return
        self._answered = metrics.counter("mainspring_inferences_total", outcome="answered", **labels)
        self._failed = metrics.counter("mainspring_inferences_total", outcome="failed", **labels)
        self._rows = metrics.counter("mainspring_predictions_total", **labels)
        self._seconds = metrics.histogram("mainspring_inference_seconds", **labels)
        self._received = metrics.counter("mainspring_inference_bytes_total", direction="in", **labels)
        self._sent = metrics.counter("mainspring_inference_bytes_total", direction="out", **labels)
        apart = {name: value for name, value in labels.items() if name != "protocol"}
        self._scored = metrics.score_histogram("mainspring_prediction_score", **apart)

    def answered(self, calls: int, rows: int, compute_ns: int, received: int, sent: int) -> None:
        """Calls were answered just now, together.

        Args:
            calls: how many.
            rows: of all of them.
            compute_ns: how long the model computed for each, and for those that were scored together with it.
            received: bytes of the numbers that they brought.
            sent: bytes of the scores.
        """
        self._answered(calls)
        self._rows(rows)
        self._seconds(compute_ns / 1e9, calls)
        self._received(received)
        self._sent(sent)

    def traced(self, rows: int, queue_ns: int, compute_ns: int) -> None:
        """The call that is answered here was: it becomes a part of its trace.

        Args:
            rows: its rows.
            queue_ns: how long it waited for the model, in nanoseconds.
            compute_ns: how long the model computed for it.
        """
        if (trace := CURRENT.get()) is not None:
            now, labels = time.time_ns(), self._labels
            facts: dict[str, object] = {
                "mainspring.model": labels["model"],
                "mainspring.version": labels["version"],
                "mainspring.protocol": labels["protocol"],
                "mainspring.role": labels["role"],
                "mainspring.rows": rows,
            }
            trace.facts.update(facts)
            if queue_ns:
                trace.parts.append(("queue", now - compute_ns - queue_ns, now - compute_ns, {}))
            trace.parts.append(("compute", now - compute_ns, now, facts))

    def scored(self, scores: Sequence[float], calls: int = 1) -> None:
        """What calls were answered with, by the value: what a canary's scores are compared with its champion's by.

        Args:
            scores: one a row.
            calls: how many they are of.
        """
        observe = self._scored
        if observe is _nothing:
            return
        for score in scores[:: -(-len(scores) // (_MOST_SCORES * calls)) or 1]:
            if math.isfinite(score):
                observe(score)

    def failed(self) -> None:
        """A call was not."""
        self._failed(1.0)
        if (trace := CURRENT.get()) is not None:
            trace.facts["mainspring.model"] = self._labels["model"]
            trace.facts["mainspring.version"] = self._labels["version"]


class ModelCounts:
    """The counts of all models of a process.

    Args:
        metrics: where they are counted, or None.
        app: the app's name.
    """

    def __init__(self, metrics: Metrics | None, app: str) -> None:
        self._metrics = metrics
        self._app = app
        self._known: dict[tuple[str, str, str, str], CallCounts] = {}
        self._lost: dict[tuple[str, str], WireCounts] = {}

    def of(self, model: str, version: str, protocol: str, role: str) -> CallCounts:
        """Those of a model, a version, a wire and what the version is to a rollout."""
        found = self._known.get((model, version, protocol, role))
        if found is None:
            labels = {"app": self._app, "model": model, "version": version, "protocol": protocol, "role": role}
            found = self._known[model, version, protocol, role] = CallCounts(self._metrics, labels)
        return found

    def of_none(self, model: str, protocol: str) -> WireCounts:
        """Those of calls that come to no version: of a model that there is, or of none where it is empty."""
        found = self._lost.get((model, protocol))
        if found is None:
            labels = {"app": self._app, "model": model, "version": "", "protocol": protocol, "role": ""}
            found = self._lost[model, protocol] = WireCounts(self._metrics, labels)
        return found


ANSWERING: ContextVar[WireCounts | None] = ContextVar("answering", default=None)
"""The counts of who answers the request here; None where it has not come so far that one was looked for."""


def _nothing(value: float, times: float = 1.0) -> None:
    return
