"""Health by one real token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from mainspring.ports.llm import Health
from mainspring.upstream.generations import Generations

__all__ = ["probe"]


async def probe(
    token: Callable[[], Awaitable[str]],
    deadline: float,
    under_way: Generations,
    seen: Callable[[], float] | None = None,
) -> Health:
    """Whether a token comes within the deadline.

    Args:
        token: gets one; what it gives is why it could not, or empty.
        deadline: seconds.
        under_way: of the engine; one that drains is not healthy.
        seen: the moment of the last token of any request, by the monotonic clock: an engine that is busy with others
            answers too, be it too late for the probe.
    """
    begun = time.monotonic()
    why = "the engine is stopping" if under_way.draining else ""
    try:
        async with asyncio.timeout(deadline):
            why = why or await token()
    except TimeoutError:
        why = "" if seen is not None and seen() > begun else f"no token within {deadline:g} s"
    return Health(not why, max(1, int((time.monotonic() - begun) * 1e6)), why)
