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
        batches: what the model's runtime was asked at once, by one caller or by several.
        last_ms: when it answered last, in milliseconds since 1970; 0 is never.
        success: calls with an answer, from their decoding on.
        fail: calls without.
        queue: how long calls with an answer waited for the model.
        sizes: the times of batches by their number of rows.
    """

    rows: int = 0
    batches: int = 0
    last_ms: int = 0
    success: Spent = field(default_factory=Spent)
    fail: Spent = field(default_factory=Spent)
    queue: Spent = field(default_factory=Spent)
    times: BatchTimes = field(default_factory=BatchTimes)
    sizes: dict[int, BatchTimes] = field(default_factory=dict)

    def answered(
        self, rows: int, decode_ns: int, infer_ns: int, output_ns: int, *, queue_ns: int = 0, alone: bool = True
    ) -> None:
        """Count a call with an answer.

        Args:
            rows: its own.
            decode_ns: how long its bytes took to become arrays.
            infer_ns: how long the model computed for it, and for those that were scored together with it.
            output_ns: how long logging took.
            queue_ns: how long it waited for the model.
            alone: whether it was a batch of its own, which nobody else counts.
        """
        self.rows += rows
        self.last_ms = time.time_ns() // 1_000_000
        self.success.add(decode_ns + queue_ns + infer_ns + output_ns)
        self.queue.add(queue_ns)
        self.times.compute_input.add(decode_ns)
        self.times.compute_infer.add(infer_ns)
        self.times.compute_output.add(output_ns)
        if alone:
            self.executed(rows, decode_ns, infer_ns, output_ns)

    def executed(self, rows: int, input_ns: int, infer_ns: int, output_ns: int) -> None:
        """Count a batch that the model has computed.

        Args:
            rows: its rows.
            input_ns: how long its input took to be made.
            infer_ns: how long the model computed.
            output_ns: how long its output took to be handed out.
        """
        self.batches += 1
        times = self.sizes.get(rows)
        if times is None:
            if len(self.sizes) >= _SIZES:
                return
            times = self.sizes[rows] = BatchTimes()
        times.compute_input.add(input_ns)
        times.compute_infer.add(infer_ns)
        times.compute_output.add(output_ns)
