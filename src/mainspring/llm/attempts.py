"""The tries of one request: which upstream next, after what pause, and when to give up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import msgspec

from mainspring.llm.lanes import Lane, prefix_of
from mainspring.llm.upstreams import Upstream, choose
from mainspring.llm.values import Timeouts
from mainspring.llm.waiting import NEVER, Silence, Sweep
from mainspring.ports.llm import End, Error, Event, Generation, Start

__all__ = ["Attempt", "Attempts", "may_retry"]

_BAD = frozenset({"timeout", "upstream", "crashed", "overloaded", "auth"})
"""Faults that speak against an upstream; the others are the request's own, or a matter of its rate."""


def may_retry(error: Error) -> bool:
    """Whether the same request may do better: never after 501, and of 4xx only after 429."""
    if error.status == 501 or (400 <= error.status < 500 and error.status != 429):
        return False
    return error.retryable


class Attempt:
    """One try that the upstream has accepted.

    Attributes:
        upstream: who answers.
        request: as it was sent.
        iterator: the rest of its events.
        head: the events that are here already, `Start` first.
    """

    __slots__ = ("_over", "_tokens", "head", "iterator", "request", "upstream")

    def __init__(self, upstream: Upstream, request: Generation, tokens: int) -> None:
        self.upstream = upstream
        self.request = request
        self.head: list[Event] = []
        self._tokens = tokens
        self._over = False
        upstream.begin(tokens)
        self.iterator: AsyncIterator[Event] = upstream.target.engine.generate(request)

    async def open(self, silence: Silence, timeouts: Timeouts, *, token: bool = False) -> Attempt | Error:
        """Wait until it is accepted (and, with `token`, until the first event after that); the fault if it is not."""
        head = self.head
        try:
            silence.begin(timeouts.accept)
            while not head or (token and len(head) == 1):
                event = await self.iterator.__anext__()
                if type(event) is Error:
                    return self._failed(event)
                if not head and type(event) is not Start:
                    head.append(Start())
                head.append(event)
        except StopAsyncIteration:
            return self._failed(Error("upstream", "the model ended without an answer", retryable=True))
        except asyncio.CancelledError:
            if silence.caught():
                return self._failed(Error("timeout", "the model took too long to accept the request", retryable=True))
            await self.close()
            raise
        except Exception as error:
            return self._failed(Error("crashed", f"the engine failed: {type(error).__name__}", retryable=True))
        finally:
            silence.deadline = NEVER
        return self

    def _failed(self, error: Error) -> Error:
        self.over(error)
        return error

    def over(self, last: Event | None) -> None:
        """It is over: with its last event, or None when it was given up. Counts once."""
        if self._over:
            return
        self._over = True
        if isinstance(last, Error):
            ok = False if last.kind in _BAD else None
            self.upstream.end(self._tokens, ok, last.retry_after)
        else:
            self.upstream.end(self._tokens, True if isinstance(last, End) else None)

    async def close(self) -> None:
        """Give it up: the engine is told to stop."""
        self.over(None)
        aclose = getattr(self.iterator, "aclose", None)
        if aclose is not None:
            await aclose()


class Attempts:
    """The tries of one request, over a route and its fallbacks.

    Args:
        legs: the lanes with the upstreams that can answer, in order.
        request: what is asked, by the public name.
        tokens: what it may take, for the load of upstreams.
        sweep: looks after waits.

    Attributes:
        number: how many tries there were.
        hedged: whether a second upstream was asked beside the first.
    """

    __slots__ = (
        "_further",
        "_lane",
        "_request",
        "_sweep",
        "_tokens",
        "_tried",
        "_tries",
        "_upstreams",
        "hedged",
        "number",
    )

    def __init__(
        self, legs: Sequence[tuple[Lane, Sequence[Upstream]]], request: Generation, tokens: int, sweep: Sweep
    ) -> None:
        self._request = request
        self._tokens = tokens
        self._sweep = sweep
        self._further = legs
        self._lane, self._upstreams = legs[0]
        self._tries = 0
        self._tried: tuple[Upstream, ...] = ()
        self.number = 0
        self.hedged = False
        self._lane.budget.earn()

    async def next(self, silence: Silence) -> Attempt | Error:
        """The next try that an upstream accepts, or the fault that remains."""
        while True:
            upstream, route = self._pick(), self._lane.route
            if isinstance(upstream, Error):
                found: Attempt | Error = upstream
            elif route.hedge_s is not None and len(self._upstreams) > 1:
                found = await self._hedged(upstream, route.hedge_s)
            else:
                found = await self._sent(upstream).open(silence, route.timeouts)
            if isinstance(found, Attempt) or not await self.again(found):
                return found

    async def again(self, error: Error) -> bool:
        """Whether another try is worth it after a fault; waits as long as it should first."""
        if not may_retry(error):
            return False
        lane, retry = self._lane, self._lane.route.retry
        closed = not self._tried  # nobody could be asked: waiting for it helps nobody
        wait = self._wait(error)
        if not closed and self._tries < retry.attempts and wait <= retry.longest_s and lane.budget.spend():
            await asyncio.sleep(wait)
            return True
        if len(self._further) == 1:
            return False
        self._further = self._further[1:]
        self._lane, self._upstreams = self._further[0]
        self._tries, self._tried = 0, ()
        return True

    def _wait(self, error: Error) -> float:
        """Seconds to wait: none when another upstream can be asked, else what was asked for, else a doubling pause."""
        other = choose(self._upstreams, self._prefix, self._tried)
        if other is not None and other not in self._tried:
            return 0.0
        shortest = min((upstream.closed_for() for upstream in self._upstreams), default=0.0)
        pause = self._lane.route.retry.wait_s * 2.0 ** max(self._tries - 1, 0)
        return float(max(shortest, error.retry_after or 0.0, pause))

    def _prefix(self) -> bytes:
        return prefix_of(self._request)

    def _pick(self) -> Upstream | Error:
        """Who is asked next, or why nobody is."""
        upstream = choose(self._upstreams, self._prefix, self._tried)
        self._tries += 1
        if upstream is not None:
            return upstream
        wait = min((upstream.closed_for() for upstream in self._upstreams), default=1.0)
        if any(upstream.cooling() for upstream in self._upstreams):
            return Error("rate", "the model has asked for a pause", retryable=True, retry_after=wait)
        return Error("overloaded", "the model does not answer now", retryable=True, retry_after=wait)

    def _sent(self, upstream: Upstream) -> Attempt:
        """A try, begun: under the upstream's own name of the model, and an id of its own."""
        if upstream not in self._tried:
            self._tried = (*self._tried, upstream)
        self.number += 1
        model, request = upstream.target.model, self._request
        if request.model != model:
            request = msgspec.structs.replace(request, model=model)
        if self.number > 1:
            request = msgspec.structs.replace(request, id=f"{request.id}-{self.number}")
        return Attempt(upstream, request, self._tokens)

    async def _alone(self, upstream: Upstream) -> Attempt | Error:
        """A try in a task of its own, up to its first token."""
        timeouts = self._lane.route.timeouts
        silence = Silence(timeouts.accept, self._sweep)
        silence.here()
        try:
            return await self._sent(upstream).open(silence, timeouts, token=True)
        finally:
            silence.stop()

    async def _hedged(self, upstream: Upstream, seconds: float) -> Attempt | Error:
        """Ask a second upstream when the first gives no token for a while; the faster one answers."""
        tasks = [asyncio.create_task(self._alone(upstream))]
        try:
            await asyncio.wait(tasks, timeout=seconds)
            other = choose(self._upstreams, self._prefix, self._tried)
            if not tasks[0].done() and other is not None and other not in self._tried and self._lane.budget.spend():
                self.hedged = True
                tasks.append(asyncio.create_task(self._alone(other)))
            return await _first(tasks)
        finally:
            await asyncio.shield(_give_up(tasks))


async def _first(tasks: list[asyncio.Task[Attempt | Error]]) -> Attempt | Error:
    """The first attempt that is accepted (its task leaves the list), or the last fault."""
    while True:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            tasks.remove(task)
            found = task.result()
            if isinstance(found, Attempt) or not tasks:
                return found


async def _give_up(tasks: list[asyncio.Task[Attempt | Error]]) -> None:
    for task in tasks:
        task.cancel()
    for found in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(found, Attempt):
            await found.close()
