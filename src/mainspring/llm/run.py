"""One request's life: sent, watched, filtered, checked, settled and recorded; once, however it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import msgspec

from mainspring.llm.alike import Alike
from mainspring.llm.attempts import Attempt, Attempts, may_retry
from mainspring.llm.cost import PriceTable, cost_micro
from mainspring.llm.filters import Filters
from mainspring.llm.fold import Answer, fold
from mainspring.llm.lanes import Lane
from mainspring.llm.limits import Left, Reservation
from mainspring.llm.record import CallRecord, Recorder
from mainspring.llm.schemas import SchemaBook
from mainspring.llm.tokens import counted_usage
from mainspring.llm.values import Call
from mainspring.llm.waiting import NEVER, Silence, Sweep
from mainspring.ports.llm import End, Error, Event, Generation, Reasoning, Start, Text, ToolDelta, Usage

if TYPE_CHECKING:
    from mainspring.llm.alike import Vector

__all__ = ["Kit", "Run"]

_BYTES_A_TOKEN = 4
_NOTHING = Usage(0, 0, source="counted")


class Kit(msgspec.Struct, frozen=True):
    """What all runs of a gateway share."""

    prices: PriceTable
    recorder: Recorder[CallRecord] | None
    schemas: SchemaBook
    clock_ns: Callable[[], int]
    sweep: Sweep
    alike: Alike | None = None


class Run:
    """A request that the gateway has let in.

    After `begin` it is either read piece by piece (`events`), or whole (`complete`); `close` ends it in any case.

    Args:
        call: the request.
        lane: the route that answers.
        request: as it goes to targets, by the public name.
        attempts: its tries.
        kit: what all runs share.
        began: `time.perf_counter` when it came.

    Attributes:
        answer: what has come so far.
        cache_key: where the answer is kept for equal requests, or None.
        alike: and for requests that are alike: scope and vector of the question, or None.
        replay: the answer that is given again, or None.
        similarity: how alike the question is to the one that it was given to, or None: equal.
    """

    __slots__ = (
        "_attempt",
        "_attempts",
        "_began",
        "_closed",
        "_error",
        "_filters",
        "_first_us",
        "_kept",
        "_kit",
        "_pending",
        "_queue_us",
        "_reserved",
        "_silence",
        "_told",
        "alike",
        "answer",
        "at_ns",
        "cache_key",
        "call",
        "gated",
        "lane",
        "replay",
        "request",
        "reservation",
        "similarity",
    )

    def __init__(
        self, call: Call, lane: Lane, request: Generation, attempts: Attempts | None, kit: Kit, began: float
    ) -> None:
        self.call = call
        self.lane = lane
        self.request = request
        self.answer = fold(request.sampling.n)
        self.at_ns = kit.clock_ns()
        self.reservation: Reservation | None = None
        self.gated = False
        self.cache_key: bytes | None = None
        self.alike: tuple[bytes, Vector] | None = None
        self.similarity: float | None = None
        self.replay: tuple[Event, ...] | None = None
        self._attempts = attempts
        self._attempt: Attempt | None = None
        self._kit = kit
        self._kept: list[Event] = []
        self._pending: list[Event] = []
        self._began = began
        self._queue_us = 0
        self._first_us = 0
        self._told = 0
        self._error: Error | None = None
        self._closed = False
        self._silence = Silence(lane.route.timeouts.total, kit.sweep)
        self._filters: Filters | None = None

    def left(self) -> Left | None:
        """What its tightest limits have left now; None without limits."""
        return None if self.reservation is None else self.reservation.left()

    # -- sending -------------------------------------------------------------------------------------------------------

    async def begin(self) -> Error | None:
        """Send it; returns when a target has accepted it, or with the fault that remains."""
        if self.replay is not None:
            first = self.replay[0]
            self.answer.start = first if isinstance(first, Start) else Start()
            return None
        assert self._attempts is not None
        self._queue_us = int((time.perf_counter() - self._began) * 1e6)
        self._silence.here()
        found = await self._attempts.next(self._silence)
        return self._take(found)

    def _take(self, found: Attempt | Error) -> Error | None:
        if isinstance(found, Error):
            self._error = found
            return found
        self._attempt = found
        self._error = None
        first = found.head.pop(0)
        assert type(first) is Start
        self.answer.start = first
        stops, guards = self.request.sampling.stop, self.lane.route.output_guards
        self._filters = Filters(stops, guards, self.request.sampling.n) if stops or guards else None
        return None

    # -- reading -------------------------------------------------------------------------------------------------------

    async def events(self) -> AsyncIterator[Event]:
        """The events after `Start`; one `End` with usage, or `Error`, last."""
        if self.replay is not None:
            for event in self.replay[1:]:
                self.answer.add(event)
                yield event
            return
        self._silence.here()
        while True:
            event = self._pending.pop(0) if self._pending else await self._next()
            if type(event) is End or type(event) is Error:
                yield await self._last(event)
                return
            self.answer.add(event)
            if self.cache_key is not None:
                self._kept.append(event)
            yield event

    async def _next(self) -> Event:
        """The next event that is not held back; the engine's silence is watched, and there is one last event always."""
        attempt, silence = self._attempt, self._silence
        assert attempt is not None
        between = self.lane.route.timeouts.between
        while True:
            event: Event
            if attempt.head:
                event = attempt.head.pop(0)
            else:
                silence.begin(between)
                try:
                    event = await attempt.iterator.__anext__()
                except (asyncio.CancelledError, Exception) as error:
                    event = self._broken(error)
                silence.deadline = NEVER
            if type(event) is not End and not self._counts(event):
                continue
            if self._filters is None:
                return event
            found = await self._let_through(event, self._filters)
            if found is not None:
                return found

    def _counts(self, event: Event) -> bool:
        """Take note of a piece; False for one of a choice that was not asked for."""
        if type(event) is Text or type(event) is Reasoning:
            tokens = event.tokens
        elif type(event) is ToolDelta:
            tokens = 0
        else:
            return True
        if event.choice >= self.request.sampling.n:
            return False
        self._told += tokens
        if not self._first_us:
            self._first_us = int((time.perf_counter() - self._began) * 1e6)
        return True

    def _broken(self, error: BaseException) -> Error:
        """The fault of an engine that ended its stream in a way that it should not."""
        if isinstance(error, asyncio.CancelledError):
            if not self._silence.caught():
                raise error
            return Error("timeout", "the model stopped answering", retryable=True)
        if isinstance(error, StopAsyncIteration):
            return Error("upstream", "the model ended without saying so", retryable=True)
        return Error("crashed", f"the engine failed: {type(error).__name__}", retryable=True)

    async def _let_through(self, event: Event, filters: Filters) -> Event | None:
        """What filters leave of an event; what comes after it waits in `_pending`."""
        if isinstance(event, Text):
            piece = filters.feed(event)
            if not filters.over():
                return piece
            assert self._attempt is not None
            await self._attempt.close()  # every choice has ended here: the engine need not go on
            end = End(filters.reasons(()), None, stopped_by=filters.stopped_by(()))
            if piece is None:
                return end
            self._pending.append(end)
            return piece
        if isinstance(event, End):
            reasons, stopped_by = filters.reasons(event.reasons), filters.stopped_by(event.stopped_by)
            self._pending.extend(filters.rest())
            self._pending.append(msgspec.structs.replace(event, reasons=reasons, stopped_by=stopped_by))
            return self._pending.pop(0)
        return event

    async def _last(self, event: End | Error) -> End | Error:
        """The last event as the client may see it."""
        assert self._attempt is not None
        self._attempt.over(event)
        last = await self._ended(event) if isinstance(event, End) else event
        if isinstance(last, Error):
            self._error = last
        elif self.cache_key is not None:
            self._keep(self.cache_key, (self.answer.start, *self._kept, last))
        return last

    def _keep(self, key: bytes, events: tuple[Event, ...]) -> None:
        """Give the answer again to who asks the same, or nearly the same."""
        lane = self.lane
        if lane.cache is not None:
            lane.cache.put(key, events, lane.route.cache_s)
        if lane.alike is not None and self.alike is not None:
            lane.alike.put(*self.alike, events, lane.route.cache_s)

    async def _ended(self, end: End) -> End | Error:
        """The last event as the client may see it: usage counted where it is missing, the answer held to its schema."""
        if "cancelled" in end.reasons:
            return Error("overloaded", "the server gave the answer up", retryable=True)
        if end.usage is None:
            assert self._attempt is not None
            engine, request = self._attempt.upstream.target.engine, self._attempt.request
            usage = await counted_usage(engine, request, self.answer, self._told)
            end = msgspec.structs.replace(end, usage=usage)
        self.answer.end = end
        return self._misfit(end) or end

    def _misfit(self, end: End) -> Error | None:
        """The fault of an answer that is not what its request demands; one that a limit cut short is left as it is."""
        request, schemas = self.request, self._kit.schemas
        if request.schema is None and not request.tools:
            return None
        for choice, reason in enumerate(end.reasons):
            if reason == "stop" and request.schema is not None and not self.answer.calls(choice):
                why = schemas.misfit(request.schema.schema, self.answer.text(choice))
                if why is not None:
                    return Error("upstream", f"the answer does not fit its schema: {why}", retryable=True)
            why = None if reason == "length" else self._bad_call(choice)
            if why is not None:
                return Error("upstream", why, retryable=True)
        return None

    def _bad_call(self, choice: int) -> str | None:
        request = self.request
        forced = request.choice.mode in ("required", "named")
        tools = {tool.name: tool for tool in request.tools}
        for item in self.answer.calls(choice):
            tool = tools.get(item.name)
            if tool is None:
                return f"the model called a tool that there is not: {item.name!r}"
            if forced or tool.strict:
                why = self._kit.schemas.misfit(tool.parameters or None, item.text or "{}")
                if why is not None:
                    return f"the arguments of {item.name} do not fit its schema: {why}"
        return None

    async def complete(self) -> Answer | Error:
        """The whole answer; a fault on the way is tried again, as nothing of it was sent yet."""
        if self.replay is not None:
            for event in self.replay[1:]:
                self.answer.add(event)
            return self.answer
        while True:
            event = self._pending.pop(0) if self._pending else await self._next()
            if type(event) is not End and type(event) is not Error:
                self.answer.add(event)
                if self.cache_key is not None:
                    self._kept.append(event)
                continue
            last = await self._last(event)
            if isinstance(last, End):
                return self.answer
            error = await self._again(last)
            if error is not None:
                return error

    async def _again(self, error: Error) -> Error | None:
        """Begin anew after a fault, where that is worth it; the fault that remains."""
        assert self._attempts is not None
        if not may_retry(error) or not await self._attempts.again(error):
            return error
        if self._attempt is not None:
            attempt, self._attempt = self._attempt, None
            await attempt.close()
        found = await self._attempts.next(self._silence)
        if isinstance(found, Attempt):
            self.answer = fold(self.request.sampling.n)
            self._told = 0
            self._pending.clear()
            self._kept.clear()
        return self._take(found)

    # -- ending --------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Give up what is still under way, settle what was used, and record the request; once."""
        if self._closed:
            return
        self._closed = True
        self._silence.stop()
        if self.gated and self.lane.gate is not None:
            self.lane.gate.leave()
        attempt = self._attempt
        usage = self._usage()
        cost, version = self._cost(usage)
        if self.reservation is not None:
            self.reservation.settle(usage.prompt + usage.completion if self.replay is None else 0, cost)
        if self._kit.recorder is not None:
            self._kit.recorder.add(self._record(usage, cost, version))
        if attempt is not None:
            await attempt.close()

    def _usage(self) -> Usage:
        """What was used: as the engine says, else what is known of an answer that broke off."""
        end = self.answer.end
        if end is not None and end.usage is not None:
            return end.usage
        if self._attempt is None:
            return _NOTHING
        start = self.answer.start
        prompt = start.prompt_tokens or 0
        spoken = sum(len(item.text) for items in self.answer.items for item in items)
        completion = self._told or -(-spoken // _BYTES_A_TOKEN)
        return Usage(prompt, completion, cached=start.cached or 0, source="counted")

    def _cost(self, usage: Usage) -> tuple[int, str]:
        if self._attempt is None or self.replay is not None:
            return 0, ""
        target = self._attempt.upstream.target
        price = self._kit.prices.find(target.provider, target.model, self.at_ns)
        return (0, "") if price is None else (cost_micro(price, usage), price.version)

    def _record(self, usage: Usage, cost: int, version: str) -> CallRecord:
        call, route = self.call, self.lane.route
        error, end = self._error, self.answer.end
        timings = end.timings if end is not None else None
        left = error is None and end is None
        return CallRecord(  # by place: to find 25 names costs five times what the record itself does
            self.request.id,
            call.generation.model,
            call.caller,
            call.api,
            call.stream,
            call.trace,
            call.prompt,
            route.name,
            self.at_ns,
            self._attempt.upstream.target if self._attempt is not None else None,
            "left" if left else ("ok" if error is None else "error"),
            error.kind if error is not None else "",
            end.reasons[0] if end is not None and end.reasons else "",
            self._attempts.number if self._attempts is not None else 0,
            self._attempts is not None and self._attempts.hedged,
            "" if self.replay is None else "exact" if self.similarity is None else "semantic",
            usage,
            self._queue_us + (timings.queue_us if timings is not None else 0),
            self._first_us,
            int((time.perf_counter() - self._began) * 1e6),
            cost,
            version,
            route.bodies,
            (call.generation, self.answer) if route.bodies > 0 else None,
            self.similarity,
        )
