"""Health that answers in time: what it asks may hang, the page may not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mainspring.protocols.actuator.health import Components

__all__ = ["Probes"]

_FRESH_S = 1.0
_PATIENCE_S = 5.0


class Probes:
    """Asks for the health of the parts in a thread, once at a time, and keeps the answer for a second.

    Args:
        ask: asks all of them; it may take long.
        clock: seconds that only grow.
        patience: seconds after which the page says that there is no answer.
    """

    def __init__(
        self, ask: Callable[[], Components], clock: Callable[[], float], patience: float = _PATIENCE_S
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._patience = patience
        self._asking: asyncio.Task[Components] | None = None
        self._known: Components = {}
        self._at: float | None = None

    async def components(self) -> Components:
        """The parts; those that were known before, and one that is DOWN, while there is no answer."""
        if self._at is not None and self._clock() - self._at < _FRESH_S:
            return self._known
        if self._asking is None:
            self._asking = asyncio.create_task(asyncio.to_thread(self._ask))
            self._asking.add_done_callback(self._answered)
        done, _ = await asyncio.wait([self._asking], timeout=self._patience)
        if done:
            return next(iter(done)).result()
        return {**self._known, "probes": ("DOWN", {"error": f"no answer in {self._patience:g} s"})}

    def _answered(self, task: asyncio.Task[Components]) -> None:
        self._asking = None
        if not task.cancelled() and task.exception() is None:
            self._known, self._at = task.result(), self._clock()
