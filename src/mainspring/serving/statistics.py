"""What a model version has done since it was loaded, as the statistics of the Open Inference Protocol count it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

__all__ = ["BatchTimes", "Spent", "Statistics"]

_SIZES = 256
"""The most batch sizes that are told apart; a client that sends ever new ones makes no more."""


@dataclass(slots=True)
class Spent:
    """How often something was done, and how long it took altogether in nanoseconds."""

    count: int = 0
    ns: int = 0

    def add(self, ns: int) -> None:
        """Once more."""
        self.count += 1
        self.ns += ns


@dataclass(slots=True)
class BatchTimes:
    """Of batches of one size: decoding, computing, and logging with encoding."""

    compute_input: Spent = field(default_factory=Spent)
    compute_infer: Spent = field(default_factory=Spent)
    compute_output: Spent = field(default_factory=Spent)


@dataclass(slots=True)
class Statistics:
    """The counts of one version.

    Attributes:
        rows: rows that were scored.
        batches: calls of the model's runtime.
        last_ms: when it answered last, in milliseconds since 1970; 0 is never.
        success: calls with an answer, from their decoding on.
        fail: calls without.
        sizes: the times of batches by their number of rows.
    """

    rows: int = 0
    batches: int = 0
    last_ms: int = 0
    success: Spent = field(default_factory=Spent)
    fail: Spent = field(default_factory=Spent)
    times: BatchTimes = field(default_factory=BatchTimes)
    sizes: dict[int, BatchTimes] = field(default_factory=dict)

    def answered(self, rows: int, decode_ns: int, infer_ns: int, output_ns: int) -> None:
        """Count a call with an answer."""
        self.rows += rows
        self.batches += 1
        self.last_ms = time.time_ns() // 1_000_000
        self.success.add(decode_ns + infer_ns + output_ns)
        of_size = self.sizes.get(rows)
        if of_size is None and len(self.sizes) < _SIZES:
            of_size = self.sizes[rows] = BatchTimes()
        for times in (self.times, of_size):
            if times is not None:
                times.compute_input.add(decode_ns)
                times.compute_infer.add(infer_ns)
                times.compute_output.add(output_ns)
