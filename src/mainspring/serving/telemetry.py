"""Own counters and histograms in one mapped file a worker: a restart goes on where the last one stopped.

Text 0.0.4 and OpenMetrics 1.0 as Prometheus reads them; labels beyond 1,000 values become ``_other``.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from math import ceil, log2
from pathlib import Path
from typing import Protocol

__all__ = [
    "BUCKETS",
    "NOT_FINE",
    "PER_DOUBLING",
    "Labels",
    "Metrics",
    "Observe",
    "Series",
    "described",
    "is_gauge",
    "page",
]

BUCKETS: tuple[float, ...] = tuple(0.0005 * 2**power for power in range(16))
"""Upper bounds of the histograms, in seconds."""
ROW_BUCKETS: tuple[float, ...] = tuple(2.0**power for power in range(17))
"""Upper bounds of the histograms of rows."""
SCORE_BUCKETS: tuple[float, ...] = (
    *(-(4.0**power) for power in range(10, -1, -1)),
    *(0.0, 0.02, 0.05, *(tenth / 10 for tenth in range(1, 10)), 0.95, 0.98),
    *(2.0**power for power in range(21)),
)
"""Upper bounds of the histograms of scores: close together for chances, doubling for everything else."""

PER_DOUBLING = 8
"""Fine buckets in a doubling: each is 9 % wide, as Prometheus's native histograms of schema 3 have them."""
NOT_FINE = "lost"
"""The index under which is counted what is in no fine bucket, because there was no room, or it is of older times."""
_TORN = 16
"""How many observations a killed process may have counted in one place and not in the other."""

_SLOTS = 65_536
_MOST = 1000
_HELP: Mapping[str, tuple[str, str]] = {
    "mainspring_requests_total": ("counter", "requests answered"),
    "mainspring_grpc_requests_total": ("counter", "calls over gRPC that are over, by their status"),
    "mainspring_grpc_request_seconds": ("histogram", "time of a call over gRPC; of a stream, of all of it"),
    "mainspring_endpoint_latency_seconds": ("gauge", "the latency that an endpoint promises for 99 requests in 100"),
    "mainspring_request_seconds": ("histogram", "time from the first byte of a request to the last of its answer"),
    "mainspring_inferences_total": ("counter", "calls of a model by a protocol, answered and failed"),
    "mainspring_inference_seconds": ("histogram", "time that a model computed for a call"),
    "mainspring_inference_bytes_total": ("counter", "bytes of the numbers that calls brought, and of their scores"),
    "mainspring_wire_bytes_total": (
        "counter",
        "bytes of the bodies and messages of a model's calls",
    ),
    "mainspring_calls_total": ("counter", "requests of a model that are over, by their status on the wire"),
    "mainspring_predictions_total": ("counter", "rows scored"),
    "mainspring_prediction_score": ("histogram", "scores that were answered; of a large call, an even sample"),
    "mainspring_batch_rows": ("histogram", "rows that a model was asked for at once"),
    "mainspring_queue_seconds": ("histogram", "time that a call waited for its model"),
    "mainspring_queue_refused_total": ("counter", "calls refused because too much waited for their model"),
    "mainspring_queue_expired_total": ("counter", "calls whose deadline was over before their answer was there"),
    "mainspring_queue_left_total": ("counter", "calls whose caller left before their answer was there"),
    "mainspring_queue_rows": ("gauge", "rows that wait for a model"),
    "mainspring_predlog_rows_total": ("counter", "answers written to the prediction log"),
    "mainspring_model_definitions_lost": ("gauge", "definitions of the champion that the app has no more"),
    "mainspring_predlog_dropped_total": ("counter", "answers lost to the log: the disk was full or stalled"),
    "mainspring_spans_rejected_total": ("counter", "spans that the OpenTelemetry collector has answered and not taken"),
    "mainspring_labels_total": ("counter", "labels taken"),
    "mainspring_features_pushed_total": ("counter", "rows pushed"),
    "mainspring_feature_quarantined_total": ("counter", "pushed rows set aside"),
    "mainspring_feature_reads_total": ("counter", "entities that feature services answered for, by view and status"),
    "mainspring_feature_commits_total": ("counter", "commits of pushed rows into the tables"),
    "mainspring_feature_lag_rows": ("gauge", "acknowledged rows that are not in the tables yet"),
    "mainspring_feature_wal_bytes": ("gauge", "bytes of them in the write-ahead log"),
    "mainspring_feature_waiting_seconds": ("gauge", "how long the oldest of them has been waiting"),
    "mainspring_feature_age_seconds": (
        "gauge",
        "age of a view's newest event, and of its newest commit",
    ),
    "mainspring_feature_age_limit_seconds": ("gauge", "how old a view's newest event may be"),
    "mainspring_feature_replay_checked_total": ("counter", "online values that were computed again offline"),
    "mainspring_feature_replay_mismatch_total": (
        "counter",
        "those that differ, and no late row explains it",
    ),
    "mainspring_feature_replay_late_total": ("counter", "answers that a row explains which came about then"),
    "mainspring_feature_replay_dropped_total": ("counter", "sampled answers that were not computed again in time"),
    "mainspring_check_failures_total": ("counter", "rows that failed a check; of a check of the whole, batches"),
    "mainspring_llm_cache_total": ("counter", "requests to routes that keep answers, by cache and what it had"),
    "mainspring_llm_uncompared_total": ("counter", "questions that no vector could be made of"),
    "mainspring_monitor_score": ("gauge", "a monitor's score"),
    "mainspring_monitor_threshold": ("gauge", "what the score is compared with"),
    "mainspring_monitor_effect": ("gauge", "the size of the change"),
    "mainspring_monitor_floor": ("gauge", "the least size that alarms"),
    "mainspring_monitor_evaluated_timestamp_seconds": ("gauge", "when the monitor was evaluated last"),
    "mainspring_inflight_requests": ("gauge", "requests under way"),
    "mainspring_model_version": ("gauge", "the model version that answers"),
    "mainspring_rollout_share": ("gauge", "the share of callers that a version which is tried answers"),
    "mainspring_shadow_rows": ("gauge", "rows of a rollout that a shadow was asked too"),
    "mainspring_shadow_failed": ("gauge", "calls that a shadow has failed"),
    "mainspring_shadow_dropped": ("gauge", "calls that a shadow was not asked, because too many waited"),
    "mainspring_shadow_flips": ("gauge", "rows of which a shadow gives another label"),
    "mainspring_shadow_total": ("gauge", "sum of the differences of a shadow's scores"),
    "mainspring_shadow_greatest": ("gauge", "the greatest difference of a shadow's score"),
}


class Observe(Protocol):
    """Observes a value, once or several times."""

    def __call__(self, value: float, times: float = 1.0) -> None:
        """Once more, or so many times."""


Labels = tuple[tuple[str, str], ...]
Series = tuple[str, Labels]


class Metrics:
    """The numbers of one worker.

    Args:
        path: the mapped file; its names are in a file beside it.
        fine: where histograms count in fine buckets besides; None does not.
    """

    def __init__(self, path: Path, fine: Metrics | None = None) -> None:
        self.fine = fine
        path.parent.mkdir(parents=True, exist_ok=True)
        self._slots: dict[tuple[str, Labels], int] = {}
        self._values: dict[str, set[str]] = {}
        self._names = path.with_suffix(".names")
        self._unwritten: list[bytes] = []
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.posix_fallocate(descriptor, 0, _SLOTS * 8)  # a full disk must not take the room away later: SIGBUS
            self._map = memoryview(mmap.mmap(descriptor, _SLOTS * 8)).cast("d")
        finally:
            os.close(descriptor)
        self._gauges: list[tuple[str, Callable[[], Mapping[Labels, float]]]] = []
        self._resume()

    def _resume(self) -> None:
        """Take the names of the slots: line n names slot n. A last line that was cut short is removed."""
        if not self._names.exists():
            return
        written = self._names.read_bytes()
        whole = written[: written.rfind(b"\n") + 1]
        if len(whole) < len(written):
            os.truncate(self._names, len(whole))
        for line in whole.splitlines():
            name, labels = json.loads(line)
            self._slots[name, tuple(map(tuple, labels))] = len(self._slots)

    def counter(self, name: str, **labels: str) -> Callable[[float], None]:
        """A function that adds to a counter or gauge; keep it where it is called often."""
        slot = self._slot(name, tuple(sorted(labels.items())))
        numbers = self._map

        def add(amount: float = 1.0) -> None:
            numbers[slot] += amount

        return add

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._map[self._slot(name, tuple(sorted(labels.items())))] = value

    def histogram(self, name: str, **labels: str) -> Observe:
        """A function that observes seconds."""
        return self._histogram(name, BUCKETS, labels)

    def row_histogram(self, name: str, **labels: str) -> Observe:
        """A function that observes numbers of rows."""
        return self._histogram(name, ROW_BUCKETS, labels)

    def _histogram(self, name: str, bounds: Sequence[float], labels: Mapping[str, str]) -> Observe:
        key = tuple(sorted(labels.items()))
        slots = [self._slot(f"{name}_bucket", (*key, ("le", _bound(bound)))) for bound in (*bounds, float("inf"))]
        total, count = self._slot(f"{name}_sum", key), self._slot(f"{name}_count", key)
        numbers = self._map
        if self.fine is None:

            def observe(value: float, times: float = 1.0) -> None:
                numbers[slots[bisect_left(bounds, value)]] += times
                numbers[total] += value * times
                numbers[count] += times

            return observe

        known, add = self.fine.fine_buckets(name, key, numbers[count]), self.fine.add_fine_bucket
        fine = self.fine._map

        def observe_finely(value: float, times: float = 1.0) -> None:
            numbers[slots[bisect_left(bounds, value)]] += times
            numbers[total] += value * times
            numbers[count] += times
            index = ceil(log2(value) * PER_DOUBLING) if value > 0.0 else None
            slot = known.get(index)
            fine[add(name, key, index, known) if slot is None else slot] += times

        return observe_finely

    def fine_buckets(self, name: str, labels: Labels, count: float) -> dict[int | None, int]:
        """The slots of a histogram's fine buckets by their index; of what is not above 0 it is None.

        Args:
            name: the histogram's.
            labels: its own.
            count: what it has observed so far: what is in no fine bucket is of older times.
        """
        lost, found = self._slot(name, (*labels, ("index", NOT_FINE))), {}
        for (known, series), slot in self._slots.items():
            if known == name and series[:-1] == labels and series[-1][1] != NOT_FINE:
                found[int(series[-1][1]) if series[-1][1] else None] = slot
        if count - sum(self._map[slot] for slot in found.values()) > _TORN:
            self._map[lost] += 1.0
        return found

    def add_fine_bucket(self, name: str, labels: Labels, index: int | None, known: dict[int | None, int]) -> int:
        """The slot of a bucket that something falls into for the first time."""
        full = len(self._slots) >= _SLOTS
        text = NOT_FINE if full else "" if index is None else str(index)
        slot = known[index] = self._slot(name, (*labels, ("index", text)))
        return slot

    def score_histogram(self, name: str, **labels: str) -> Observe:
        """A function that observes scores."""
        return self._histogram(name, SCORE_BUCKETS, labels)

    def read(self, name: str, **labels: str) -> float:
        """The number under a name."""
        slot = self._slots.get((name, tuple(sorted(labels.items()))))
        return 0.0 if slot is None else float(self._map[slot])

    def gauge_from(self, name: str, read: Callable[[], Mapping[Labels, float]]) -> None:
        """A gauge that is asked for when the page is rendered."""
        self._gauges.append((name, read))

    def _slot(self, name: str, labels: Labels) -> int:
        slot = self._slots.get((name, labels))
        if slot is None:
            labels = self._bounded(name, labels)
            slot = self._slots.get((name, labels), len(self._slots))
            if slot == len(self._slots):
                if slot >= _SLOTS:
                    return _SLOTS - 1
                self._slots[name, labels] = slot
                self._map[slot] = 0.0
                self._unwritten.append(json.dumps([name, labels]).encode() + b"\n")
                self._write_names()
        return slot

    def _write_names(self) -> None:
        """Write down the names that are not yet, whole and in their order; on a full disk they wait for the next one.

        The numbers themselves need no room, so that a disk without any fails no request.
        """
        lines = b"".join(self._unwritten)
        with contextlib.suppress(OSError):
            descriptor = os.open(self._names, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            try:
                end = os.fstat(descriptor).st_size
                try:
                    if os.write(descriptor, lines) == len(lines):
                        self._unwritten.clear()
                finally:
                    if self._unwritten:
                        os.ftruncate(descriptor, end)
            finally:
                os.close(descriptor)

    def _bounded(self, name: str, labels: Labels) -> Labels:
        found = []
        for key, value in labels:
            seen = self._values.setdefault(f"{name}:{key}", set())
            if value not in seen and len(seen) >= _MOST:
                value = "_other"
            seen.add(value)
            found.append((key, value))
        return tuple(found)

    def quantile(self, name: str, share: float, **labels: str) -> float | None:
        """A quantile of a histogram, in seconds; None without observations.

        Within its bucket it is interpolated, as Prometheus's ``histogram_quantile`` does; beyond the last bound it is
        that bound.
        """
        key = tuple(sorted(labels.items()))
        slots = [self._slots.get((f"{name}_bucket", (*key, ("le", _bound(bound))))) for bound in BUCKETS]
        rank, below, lower = share * self.read(f"{name}_count", **labels), 0.0, 0.0
        if not rank:
            return None
        for bound, slot in zip(BUCKETS, slots, strict=True):
            count = 0.0 if slot is None else float(self._map[slot])
            if count and below + count >= rank:
                return lower + (bound - lower) * (rank - below) / count
            below, lower = below + count, bound
        return BUCKETS[-1]

    def total(self, name: str, **labels: str) -> dict[Labels, float]:
        """The numbers under a name of all series that have these labels, by all of their labels."""
        wanted = set(labels.items())
        return {
            series: float(self._map[slot])
            for (known, series), slot in list(self._slots.items())
            if known == name and wanted.issubset(series)
        }

    def numbers(self) -> dict[Series, float]:
        """All numbers by name and labels, those that are asked for too."""
        found = {series: float(self._map[slot]) for series, slot in list(self._slots.items())}
        asked = {name for name, _ in self._gauges}
        found = {series: value for series, value in found.items() if series[0] not in asked}
        for name, read in self._gauges:
            found |= {(name, labels): value for labels, value in read().items()}
        return found

    def publish(self) -> None:
        """Write what is asked for at a page into the file too, so that another worker can show it."""
        for name, read in self._gauges:
            for labels, value in read().items():
                self._map[self._slot(name, labels)] = value

    def clear(self, names: Collection[str]) -> None:
        """Set all series of some gauges to 0: what they told was over when their process ended."""
        for (name, _), slot in list(self._slots.items()):
            if name in names:
                self._map[slot] = 0.0

    def render(self, accept: bytes = b"") -> tuple[bytes, bytes]:
        """The page for an Accept header: content type and text."""
        return page(self.numbers(), accept)


def is_gauge(name: str) -> bool:
    """Whether a number may fall: everything else is counted, and the counts of workers add up."""
    known = _HELP.get(_family(name))
    if known is not None:
        return known[0] == "gauge"
    return not name.endswith(("_total", "_bucket", "_sum", "_count"))


def described(name: str) -> tuple[str, str, str]:
    """Of the name of a number its family, what kind that is, and what it counts."""
    family = _family(name)
    kind, text = _HELP.get(family, ("gauge" if is_gauge(name) else "counter", family.replace("_", " ")))
    return family, kind, text


def page(numbers: Mapping[Series, float], accept: bytes = b"") -> tuple[bytes, bytes]:
    """The page of some numbers for an Accept header: content type and text."""
    openmetrics = b"application/openmetrics-text" in accept
    families: dict[str, list[str]] = {}
    sums: dict[Series, float] = {}
    for (name, labels), number in sorted(numbers.items(), key=lambda item: (item[0][0], _order(item[0][1]))):
        value = number
        if name.endswith("_bucket"):  # buckets are kept apart and shown cumulated
            plain = tuple(pair for pair in labels if pair[0] != "le")
            value += sums.get((name, plain), 0.0)
            sums[name, plain] = value
        families.setdefault(_family(name), []).append(_line(name, labels, value))
    parts = []
    for family in sorted(families):
        kind, text = _HELP.get(family, ("untyped", family.replace("_", " ")))
        shown = family.removesuffix("_total") if openmetrics and kind == "counter" else family
        kind = "unknown" if openmetrics and kind == "untyped" else kind
        parts += [f"# HELP {shown} {text}", f"# TYPE {shown} {kind}", *families[family]]
    if openmetrics:
        text = "\n".join([*parts, "# EOF", ""])
        return b"application/openmetrics-text; version=1.0.0; charset=utf-8", text.encode()
    return b"text/plain; version=0.0.4; charset=utf-8", ("\n".join(parts) + "\n").encode()


def _bound(value: float) -> str:
    return "+Inf" if value == float("inf") else repr(value)


def _order(labels: Labels) -> tuple[tuple[str, str, float], ...]:
    """Buckets in the order of their bounds, not of their text."""
    return tuple((key, "" if key == "le" else value, float(value) if key == "le" else 0.0) for key, value in labels)


def _family(name: str) -> str:
    for ending in ("_bucket", "_sum", "_count"):
        if name.endswith(ending) and name.removesuffix(ending) in _HELP:
            return name.removesuffix(ending)
    return name


def _line(name: str, labels: Labels, value: float) -> str:
    inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
    return f"{name}{{{inside}}} {value!r}" if inside else f"{name} {value!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
