"""How long the steps of a server's start took."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import msgspec

from mainspring.protocols.actuator.page import Operation, Page, RunBlocking, reading
from mainspring.protocols.actuator.runtime import moment, spelled
from mainspring.protocols.http import Request

__all__ = ["Startup"]


class _Step(msgspec.Struct, frozen=True):
    name: str
    number: int
    parent: int | None
    begun: float
    ended: float


class Startup:
    """The steps of a start, each within the one that it was begun in.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._begun = clock()
        self._steps: list[_Step] = []
        self._open: list[int] = []
        self._numbers = 0

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step."""
        number, self._numbers = self._numbers, self._numbers + 1
        parent, begun = self._open[-1] if self._open else None, self._clock()
        self._open.append(number)
        try:
            yield
        finally:
            self._open.pop()
            self._steps.append(_Step(name, number, parent, begun, self._clock()))

    def page(self, version: str, run: RunBlocking) -> Page:
        """``startup``: the steps so far."""

        def shown(request: Request) -> object:
            events = [
                {
                    "startupStep": {
                        "name": one.name,
                        "id": one.number,
                        **({} if one.parent is None else {"parentId": one.parent}),
                        "tags": [],
                    },
                    "startTime": moment(one.begun),
                    "endTime": moment(one.ended),
                    "duration": spelled(one.ended - one.begun),
                }
                for one in sorted(self._steps, key=lambda step: step.number)
            ]
            timeline = {"startTime": moment(self._begun), "events": events}
            return {"springBootVersion": version, "timeline": timeline}

        return Page("startup", (Operation("GET", reading(shown, run)),))
