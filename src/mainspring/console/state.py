"""What the console is given: the open services, the plan, and what the running server knows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from mainspring.choose.services import Services
from mainspring.plan.graph import Plan

__all__ = ["ConsoleState"]


@dataclass(frozen=True, slots=True)
class ConsoleState:
    """The console's view of the process.

    Attributes:
        services: the project's ports and settings.
        plan: the graph that is loaded now.
        endpoints: a row for each endpoint: name, model, version, state, requests, errors, p50, p99 and the promised
            latency in milliseconds, and whether p99 is later than promised.
        ask: sends a request body to an endpoint and returns status and body, as HTTP would.
        now: the clock, UTC microseconds.
    """

    services: Services
    plan: Callable[[], Plan]
    endpoints: Callable[[], Sequence[Mapping[str, object]]]
    ask: Callable[[str, bytes], Awaitable[tuple[int, bytes]]]
    now: Callable[[], int]
