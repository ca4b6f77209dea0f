"""How calls that wait for a model are scored together."""

from __future__ import annotations

from dataclasses import dataclass

from mainspring.declare.duration import Duration, microseconds
from mainspring.declare.options import number

__all__ = ["USUAL", "Batching"]


@dataclass(frozen=True, init=False)
class Batching:
    """How calls that wait for a model are scored together; the defaults are right for most models.

    A call that finds the model free is scored at once. Those that come meanwhile wait, and are scored together when
    the model is free again. Models that are fast enough are asked at once for every call, and nothing waits.

    Args:
        rows: most rows of several callers that are scored together; 1 scores every call alone. A call with more rows
            is scored alone.
        delay: how long a call may wait for others although the model is free; None does not wait.
        queue_rows: most rows that wait; beyond it calls are refused (429, RESOURCE_EXHAUSTED).
        queue_bytes: most bytes of them.

    Raises:
        DeclarationError: MS-1001, MS-1002, `delay` is no length of time; MS-1030, a number is out of range.
    """

    rows: int
    delay_us: int
    queue_rows: int
    queue_bytes: int

    def __init__(
        self,
        rows: int = 1024,
        *,
        delay: Duration | None = None,
        queue_rows: int = 16_384,
        queue_bytes: int = 67_108_864,
    ) -> None:
        for name, value in (("rows", rows), ("queue_rows", queue_rows), ("queue_bytes", queue_bytes)):
            number(name, value, least=1)
            object.__setattr__(self, name, value)
        object.__setattr__(self, "delay_us", 0 if delay is None else microseconds(delay, what="delay"))

    def with_rows(
        self, rows: int, *, delay_us: int | None = None, queue_rows: int | None = None, queue_bytes: int | None = None
    ) -> Batching:
        """The same with other bounds; what is left out stays."""
        found = Batching(rows, queue_rows=queue_rows or self.queue_rows, queue_bytes=queue_bytes or self.queue_bytes)
        object.__setattr__(found, "delay_us", self.delay_us if delay_us is None else delay_us)
        return found


USUAL = Batching()
"""What holds where nothing else is declared."""
