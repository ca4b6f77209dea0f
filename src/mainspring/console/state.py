"""What the console is given: the open services, the plan, and what the running server knows."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from mainspring.assistants.events import Event
from mainspring.assistants.run_log import RunCounts
from mainspring.assistants.service import Asked
from mainspring.assistants.trace import RunRecord
from mainspring.choose.services import Services
from mainspring.declare.identity import Identity
from mainspring.llm.call_log import CallRow, DayRow
from mainspring.plan.graph import Plan
from mainspring.rag.search import Searcher
from mainspring.server.answering.language import ModelRow

__all__ = ["Answering", "ConsoleState"]


class Answering(Protocol):
    """What of the process answers in words; `server.answering.talking.Talking` says what each method does."""

    def partners(self) -> Mapping[str, str]:
        """What can be talked to: the kind by the name."""

    def models(self) -> Sequence[ModelRow]:
        """The declared language models."""

    def searcher(self, index: str) -> Searcher | None:
        """An index to be searched."""

    def calls(self, names: Sequence[str], limit: int) -> Sequence[CallRow]:
        """The last requests that went by one of these names."""

    def days(self, names: Sequence[str], days: int) -> Sequence[DayRow]:
        """Their totals per day."""

    def runs(self, name: str = "", limit: int = 20) -> Sequence[RunRecord]:
        """The last runs that are over and kept."""

    def run(self, id: str) -> RunRecord | None:
        """A run that is kept."""

    def counts(self, name: str) -> RunCounts:
        """What became of the runs that are on record."""

    def ask(self, name: str, asked: Asked, caller: Identity) -> AsyncGenerator[Event, None]:
        """Ask a partner; closing the iterator stops it."""

    def decide(
        self, name: str, thread: str, interrupt: str, decisions: Sequence[Mapping[str, Any]], caller: Identity
    ) -> AsyncGenerator[Event, None]:
        """Go on with a run that waits for a person."""


class ConsoleState(msgspec.Struct, frozen=True):
    """The console's view of the process.

    Attributes:
        services: the project's ports and settings.
        plan: the graph that is loaded now.
        endpoints: a row for each endpoint: name, model, version, state, requests, errors, p50, p99 and the promised
            latency in milliseconds, and whether p99 is later than promised.
        ask: sends a request body to an endpoint and returns status and body, as HTTP would.
        answering: what answers in words.
        now: the clock, UTC microseconds.
    """

    services: Services
    plan: Callable[[], Plan]
    endpoints: Callable[[], Sequence[Mapping[str, object]]]
    ask: Callable[[str, bytes], Awaitable[tuple[int, bytes]]]
    answering: Answering
    now: Callable[[], int]
