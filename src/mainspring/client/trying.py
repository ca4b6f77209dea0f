"""Whether a call is made once more, and when: one rule for every client."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from mainspring.client import wire
from mainspring.client.faults import no_answer
from mainspring.client.wire import Asked, Received

__all__ = ["Attempts"]

T = TypeVar("T")


class Attempts:
    """The tries of one call, within its time.

    Args:
        seconds: the most of all its tries together.
        most: tries.
        clock: seconds that only grow.
    """

    def __init__(self, seconds: float, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._end = clock() + seconds
        self._most = most
        self._clock = clock
        self._made = 0

    def left(self) -> float:
        """Seconds that the next try may take."""
        return max(self._end - self._clock(), 0.001)

    def pause(self, received: Received | None) -> float | None:
        """Seconds until the next try; None when there is to be none.

        Args:
            received: what this try has brought; None, nothing.
        """
        self._made += 1
        pause = wire.again(received, self._made)
        if pause < 0 or self._made >= self._most or self._clock() + pause >= self._end:
            return None
        return pause

    def answer(self, asked: Asked[T], url: str, received: Received | None, why: str) -> T:
        """What the last try has brought, typed.

        Args:
            asked: the request.
            url: who was asked.
            received: what came; None, nothing.
            why: nothing came.

        Raises:
            AnswerError: MS-4380, nothing came; else as `Asked.answer` raises.
        """
        if received is None:
            raise no_answer(url, why, self._made)
        return asked.answer(url, received)
