"""What a run carries that is never part of a thread's state: the caller, the sources, the trace, the counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from mainspring.assistants.events import Spent
from mainspring.assistants.sources import Sources
from mainspring.assistants.trace import Trace
from mainspring.declare.identity import Identity
from mainspring.ports.llm import Event, Generation
from mainspring.ports.threads import CallState

__all__ = ["Ledger", "Pace", "RunContext", "Spending"]


@dataclass
class Spending:
    """Tokens and calls so far."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    model_calls: int = 0
    tool_calls: int = 0

    def told(self) -> Spent:
        """As an event."""
        return Spent(
            prompt=self.prompt,
            completion=self.completion,
            cached=self.cached,
            model_calls=self.model_calls,
            tool_calls=self.tool_calls,
        )


class Pace:
    """Holds the model back while its reader is behind, as LangGraph keeps what it streams without a bound.

    Args:
        most: pieces that may be under way.

    Attributes:
        count: pieces so far.
    """

    def __init__(self, most: int = 64) -> None:
        self._most = most
        self._ahead = 0
        self.count = 0
        self._free = asyncio.Event()

    async def given(self) -> None:
        """A piece has been generated; returns when the next may be."""
        self._ahead += 1
        self.count += 1
        while self._ahead > self._most:
            self._free.clear()
            await self._free.wait()

    def taken(self) -> None:
        """A piece has been passed on."""
        self._ahead -= 1
        self._free.set()


@dataclass(frozen=True)
class Ledger:
    """Notes approved calls of one thread, so that each is made once.

    Attributes:
        begin: notes that a call is about to be made.
        finish: notes its result.
    """

    begin: Callable[[str], CallState]
    finish: Callable[[str, str], None]


@dataclass
class RunContext:
    """The context of one run; LangGraph hands it to every hook and checkpoints none of it.

    Attributes:
        caller: who asks, as the server has authenticated it.
        sources: what is retrieved with the caller's rights.
        trace: what is done.
        ledger: of the thread, or None for a run without one.
        addition: instructions that the client adds to the assistant's.
        grounded: whether an answer has to stand on a source.
        spending: what it costs.
        searched: whether the question has been searched for, and the calls of the search tool that have been.
        pace: holds the model back.
        generate: answers generations at the caller's expense; None is the model's own way.
        finish_reason: why the last answer of the model ended.
    """

    caller: Identity
    sources: Sources
    trace: Trace
    ledger: Ledger | None = None
    addition: str = ""
    grounded: bool = False
    spending: Spending = field(default_factory=Spending)
    searched: set[str] = field(default_factory=set)
    pace: Pace = field(default_factory=Pace)
    finish_reason: str = "stop"
    generate: Callable[[Generation], AsyncIterator[Event]] | None = None

    def must_stand(self) -> bool:
        """Whether the answer has to stand on a source: so it was declared, and no tool gave it another ground."""
        return self.grounded and not self.spending.tool_calls
