"""The metrics of all workers of a server as one page, read from the file of each.

A worker counts in a mapped file of its own, and its replacement goes on in it, so that no count dies with a process.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from mainspring.serving.telemetry import Metrics, Series, is_gauge

__all__ = ["MOMENTARY", "WorkerMetrics", "numbers_in"]

_BY_WORKER = frozenset({"mainspring_model_version"})
_VERSION = "mainspring_model_version"
_ADDED = frozenset({"mainspring_inflight_requests", "mainspring_queue_rows"})
MOMENTARY = _BY_WORKER | _ADDED
"""Gauges that tell of one process: they are set to 0 when it has ended."""
_NUMBER = struct.Struct("d")


def numbers_in(path: Path) -> dict[Series, float]:
    """The numbers in the file of a worker, which may be at work or over; those whose names are not written yet are left
    out.
    """
    try:
        written, numbers = path.with_suffix(".names").read_bytes(), path.read_bytes()
    except FileNotFoundError:
        return {}
    found: dict[Series, float] = {}
    for slot, line in enumerate(written[: written.rfind(b"\n") + 1].splitlines()):
        name, labels = json.loads(line)
        found[name, tuple((key, value) for key, value in labels)] = _NUMBER.unpack_from(numbers, slot * 8)[0]
    return found


class WorkerMetrics:
    """The metrics of all workers, as one of them shows them.

    Args:
        own: of the worker that shows them.
        path: of its file, ``worker-N...bin``; the others lie beside it.
        workers: how many there are. Files of higher numbers are of a time when there were more: their counts count.
    """

    def __init__(self, own: Metrics, path: Path, workers: int) -> None:
        self._own = own
        self._workers = workers
        number, self._ending = _parts(path.name)
        self._number = number
        self._folder = path.parent

    def merged(self) -> dict[Series, float]:
        """Counts and histograms added up; of gauges the sum, the greatest, or each with the label ``worker``."""
        total: dict[Series, float] = {}
        for number, numbers in ((self._number, self._own.numbers()), *self._others()):
            for (name, labels), value in numbers.items():
                if not is_gauge(name):
                    total[name, labels] = total.get((name, labels), 0.0) + value
                elif number >= self._workers:
                    continue
                elif name in _BY_WORKER:
                    total[name, tuple(sorted((*labels, ("worker", str(number)))))] = value
                elif name in _ADDED:
                    total[name, labels] = total.get((name, labels), 0.0) + value
                else:
                    total[name, labels] = max(value, total.get((name, labels), value))
        return total

    def everywhere(self, model: str, version: str) -> bool:
        """Whether a version of a model answers in all workers; in one that is being replaced none does."""
        found = [
            value
            for (name, labels), value in self.merged().items()
            if name == _VERSION and ("model", model) in labels and value == float(version)
        ]
        return len(found) == self._workers

    def _others(self) -> Iterator[tuple[int, dict[Series, float]]]:
        for path in sorted(self._folder.glob("worker-*.bin")):
            number, ending = _parts(path.name)
            if ending == self._ending and number != self._number:
                yield number, numbers_in(path)


def _parts(name: str) -> tuple[int, str]:
    """The worker's number, and what follows it: the names of the endpoints that are served alone."""
    found = re.fullmatch(r"worker-(\d+)(.*)\.bin", name)
    return (-1, name) if found is None else (int(found[1]), found[2])
