"""A model that says what a test wants, as a stream of engine events: nothing is random, nothing is asked."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import orjson

from mainspring.ports.llm import End, Error, Event, Generation, Start, Text, ToolDelta, Usage

__all__ = ["Call", "Script", "Turn"]

_PIECE = re.compile(r"\s*\S+|\s+")


@dataclass(frozen=True)
class Call:
    """A call of a tool that the model asks for.

    Attributes:
        name: the tool's.
        arguments: by name; or a text, for arguments that are no JSON.
        id: the call's; made of the turn and the place when left out.
    """

    name: str
    arguments: dict[str, object] | str = field(default_factory=dict)
    id: str = ""


Said: TypeAlias = str | Call | Error | float
Turn: TypeAlias = Said | Sequence[Said] | Callable[[Generation], "Turn"]
"""What one request is answered: texts, calls, a fault, seconds to wait; several in a list; or a function that looks at
the request and says so."""


class Script:
    """Answers requests with turns, in order; a request beyond the last is answered with a fault.

    Args:
        turns: the answers; a function as the only turn answers every request.

    Attributes:
        requests: what was asked, in order.
        cancelled: the ids of requests that were left before their end.
    """

    def __init__(self, turns: Iterable[Turn] | Callable[[Generation], Turn]) -> None:
        self._always = turns if callable(turns) else None
        self._turns = iter(()) if callable(turns) else iter(turns)
        self.requests: list[Generation] = []
        self.cancelled: list[str] = []

    async def generate(self, request: Generation) -> AsyncIterator[Event]:
        """The next turn as events."""
        self.requests.append(request)
        whole = False
        try:
            async for event in self._events(request):
                whole = isinstance(event, End | Error)
                yield event
        finally:
            if not whole:
                self.cancelled.append(request.id)

    async def _events(self, request: Generation) -> AsyncIterator[Event]:
        said = self._said(request)
        prompt = sum(len(message.text.split()) for message in request.messages)
        yield Start(prompt)
        spoken = calls = 0
        for one in said:
            if isinstance(one, Error):
                yield one
                return
            if isinstance(one, float):
                await asyncio.sleep(one)
            elif isinstance(one, str):
                for piece in _PIECE.findall(one):
                    spoken += 1
                    yield Text(piece, 1)
            else:
                for delta in _deltas(one, calls, len(self.requests)):
                    yield delta
                calls, spoken = calls + 1, spoken + 1
        yield End(("tool_calls" if calls else "stop",), Usage(prompt, spoken))

    def _said(self, request: Generation) -> list[Said]:
        turn: Turn = self._always if self._always else next(self._turns, Error("invalid", "the script is over"))
        while callable(turn):
            turn = turn(request)
        return [turn] if isinstance(turn, str | Call | Error | float) else list(turn)


def _deltas(call: Call, index: int, turn: int) -> list[ToolDelta]:
    """A call as engines stream it: the name first, then its arguments in two pieces."""
    text = call.arguments if isinstance(call.arguments, str) else orjson.dumps(call.arguments).decode()
    middle = len(text) // 2
    return [
        ToolDelta(index, call.id or f"call_{turn}_{index}", call.name),
        ToolDelta(index, arguments=text[:middle]),
        ToolDelta(index, arguments=text[middle:]),
    ]
