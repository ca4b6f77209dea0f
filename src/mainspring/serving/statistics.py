"""What a model version has done since it was loaded, as the statistics of the Open Inference Protocol count it."""

from __future__ import annotations

import time

import msgspec

__all__ = ["BatchTimes", "Spent", "Statistics"]

_SIZES = 256
"""The most batch sizes that are told apart; a client that sends ever new ones makes no more."""


class Spent(msgspec.Struct, frozen=True):
    """How often something was done, and how long it took altogether in nanoseconds."""

    count: int
    ns: int


_NOTHING = Spent(0, 0)


class BatchTimes(msgspec.Struct):
    """How often calls or batches were computed, and how long each part of that took altogether, in nanoseconds.

    Attributes:
        count: how often.
        input_ns: decoding; of a batch, bringing its calls together.
        infer_ns: computing.
        output_ns: logging; of a batch, parting it.
    """

    count: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0

    def add(self, input_ns: int, infer_ns: int, output_ns: int, times: int = 1) -> None:
        """So many more, which took so long altogether."""
        self.count += times
        self.input_ns += input_ns
        self.infer_ns += infer_ns
        self.output_ns += output_ns

    @property
    def compute_input(self) -> Spent:
        """Decoding."""
        return Spent(self.count, self.input_ns)

    @property
    def compute_infer(self) -> Spent:
        """Computing."""
        return Spent(self.count, self.infer_ns)

    @property
    def compute_output(self) -> Spent:
        """Logging and encoding."""
        return Spent(self.count, self.output_ns)


class Statistics(msgspec.Struct):
    """The counts of one version.

    Attributes:
        rows: rows that were scored.
        batches: what the model's runtime was asked at once, by one caller or by several.
        last_ms: when it answered last, in milliseconds since 1970; 0 is never.
        fail: calls without an answer.
        queue_ns: how long calls with an answer waited for the model.
        times: the times of calls with an answer.
        sizes: the times of batches by their number of rows.
    """

    rows: int = 0
    batches: int = 0
    last_ms: int = 0
    fail: Spent = _NOTHING
    queue_ns: int = 0
    times: BatchTimes = msgspec.field(default_factory=BatchTimes)
    sizes: dict[int, BatchTimes] = msgspec.field(default_factory=dict)

    @property
    def success(self) -> Spent:
        """Calls with an answer, from their decoding on."""
        times = self.times
        return Spent(times.count, times.input_ns + self.queue_ns + times.infer_ns + times.output_ns)

    @property
    def queue(self) -> Spent:
        """How long calls with an answer waited for the model."""
        return Spent(self.times.count, self.queue_ns)

    def failed(self, ns: int) -> None:
        """Count a call without an answer, and how long it took in nanoseconds."""
        self.fail = Spent(self.fail.count + 1, self.fail.ns + ns)

    def answered(
        self, rows: int, decode_ns: int, infer_ns: int, output_ns: int, *, queue_ns: int = 0, calls: int = 1
    ) -> None:
        """Count calls with an answer; the times are those of all of them together.

        Args:
            rows: theirs.
            decode_ns: how long their bytes took to become arrays.
            infer_ns: how long the model computed for each, and for those that were scored together with it.
            output_ns: how long logging took.
            queue_ns: how long they waited for the model.
            calls: how many.
        """
        self.rows += rows
        self.last_ms = time.time_ns() // 1_000_000
        self.queue_ns += queue_ns
        self.times.add(decode_ns, infer_ns, output_ns, calls)

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
        times.add(input_ns, infer_ns, output_ns)
