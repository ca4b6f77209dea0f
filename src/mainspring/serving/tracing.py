"""Which requests become spans, and what is kept of them."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

import msgspec

from mainspring.ports.trace import CURRENT, Part, Trace, read_traceparent

__all__ = ["RequestSpan", "Tracing"]


class RequestSpan(msgspec.Struct, frozen=True):
    """A request that is over.

    Attributes:
        trace: the trace's id, 32 hexadecimal digits.
        span: its own, 16 digits.
        parent: the span of who asked, or nothing.
        name: what was asked, of few values.
        begun: nanoseconds since 1970.
        ended: the same.
        facts: attributes of OpenTelemetry's conventions, and our own.
        parts: what it spent its time on.
        fault: why it failed, or nothing.
    """

    trace: str
    span: str
    parent: str
    name: str
    begun: int
    ended: int
    facts: dict[str, object]
    parts: tuple[Part, ...]
    fault: str = ""


class Tracing:
    """Begins and ends the traces of requests; hands on those that failed, were slow, or are in the sample.

    Args:
        keep: takes a span at once, and never waits.
        share: of the other requests, in [0, 1]; those of a caller who keeps the trace are all kept.
        slow: seconds from which a request is slow.
        draw: numbers in [0, 1).
        clock: nanoseconds since 1970.
    """

    def __init__(
        self,
        keep: Callable[[RequestSpan], None],
        share: float,
        slow: float,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._keep = keep
        self._share = share
        self._slow_ns = round(slow * 1e9)
        self._draw = draw
        self._clock = clock

    def begin(self, traceparent: bytes | None) -> Trace:
        """The trace of a request, current from here on in its task.

        Args:
            traceparent: the header that it came with.
        """
        given = None if traceparent is None else read_traceparent(traceparent)
        if given is None:
            trace = Trace(f"{random.getrandbits(128) or 1:032x}", "", self._draw() < self._share, begun=self._clock())
        else:
            trace = Trace(given[0], given[1], given[2], begun=self._clock())
        CURRENT.set(trace)
        return trace

    def end(self, trace: Trace, name: str, facts: Mapping[str, object], fault: str = "") -> None:
        """The request is over.

        Args:
            trace: as `begin` gave it.
            name: what was asked, of few values.
            facts: attributes.
            fault: why it failed, or nothing.
        """
        ended = self._clock()
        if not (trace.kept or fault or ended - trace.begun >= self._slow_ns):
            return
        self._keep(
            RequestSpan(
                trace.trace,
                trace.span,
                trace.parent,
                name,
                trace.begun,
                ended,
                {**facts, **trace.facts},
                tuple(trace.parts),
                fault,
            )
        )
