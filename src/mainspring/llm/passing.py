"""Requests that are passed on to an upstream as they are: with a key, limits and a record of ours around them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal, cast

import msgspec
import orjson

from mainspring.llm.admission import UNSAID, Admission
from mainspring.llm.cost import cost_micro, most_micro
from mainspring.llm.lanes import Lane
from mainspring.llm.limits import Denied, Left, Reservation
from mainspring.llm.metered import Meter, asked_tokens
from mainspring.llm.record import CallRecord
from mainspring.llm.refused import Refused, busy, denied, refused
from mainspring.llm.run import Kit
from mainspring.llm.upstreams import Upstream, choose
from mainspring.llm.values import Caller
from mainspring.ports.llm import Error, Relay, Relayed, Usage
from mainspring.upstream.faults import BrokenError, error_of
from mainspring.upstream.passing import may_pass

__all__ = ["Passed", "Passing", "pass_on"]

_NOTHING = Usage(0, 0, source="counted")
_MOVED, _UNCHANGED, _REFUSED, _FAILED = 300, 304, 400, 500
_BAD = frozenset({"timeout", "upstream", "crashed", "overloaded", "auth"})


class Passing(msgspec.Struct, frozen=True):
    """What is passed on.

    Attributes:
        id: of the request, unique.
        name: the route whose upstream is asked.
        method: of HTTP.
        path: below the upstream's own, with a slash at its start; decoded and harmless.
        query: as it goes into the request's first line, without the question mark.
        headers: those that may go upstream, none of which says who asks.
        body: whole.
        trace: trace id and the caller's span id, or empty ones.
    """

    id: str
    name: str
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    trace: tuple[str, str] = ("", "")


class _Sent:
    """A request on its way: what it holds, given back once, and recorded."""

    def __init__(self, asked: Passing, caller: Caller, lane: Lane, kit: Kit, began: float) -> None:
        self.asked = asked
        self.caller = caller
        self.lane = lane
        self.kit = kit
        self.began = began
        self.at_ns = kit.clock_ns()
        self.deadline = asyncio.get_running_loop().time() + lane.route.timeouts.total
        self.upstream: Upstream | None = None
        self.reserved: Reservation | None = None
        self.gated = False
        self.tokens = 0
        self.first_us = 0
        self._over = False

    def begin(self, upstream: Upstream, tokens: int) -> None:
        self.upstream, self.tokens = upstream, tokens
        upstream.begin(tokens)

    def left(self) -> Left | None:
        return None if self.reserved is None else self.reserved.left()

    def end(self, status: Literal["ok", "error", "left"], usage: Usage = _NOTHING, error: Error | None = None) -> None:
        """It is over; once."""
        if self._over:
            return
        self._over = True
        if self.gated and self.lane.gate is not None:
            self.lane.gate.leave()
        if self.upstream is not None:
            ok = status == "ok" or None if error is None else False if error.kind in _BAD else None
            self.upstream.end(self.tokens, ok, None if error is None else error.retry_after)
        cost, version = self._cost(usage)
        if self.reserved is not None:
            self.reserved.settle(usage.prompt + usage.completion, cost)
        if self.kit.recorder is not None:
            self.kit.recorder.add(self._record(status, usage, error, cost, version))

    def _cost(self, usage: Usage) -> tuple[int, str]:
        price = None if self.upstream is None else self.kit.prices.find(*self.upstream.priced, self.at_ns)
        return (0, "") if price is None else (cost_micro(price, usage), price.version)

    def _record(
        self, status: Literal["ok", "error", "left"], usage: Usage, error: Error | None, cost: int, version: str
    ) -> CallRecord:
        return CallRecord(
            id=self.asked.id,
            model=self.asked.name,
            caller=self.caller,
            api="passthrough",
            stream=True,
            trace=self.asked.trace,
            prompt="",
            lane=self.lane.route.name,
            at_ns=self.at_ns,
            target=None if self.upstream is None else self.upstream.target,
            status=status,
            error_kind="" if error is None else error.kind,
            finish_reason="",
            attempt=0 if self.upstream is None else 1,
            hedged=False,
            cache="",
            usage=usage,
            queue_us=0,
            ttft_us=self.first_us,
            total_us=int((time.perf_counter() - self.began) * 1e6),
            cost_micro=cost,
            price_version=version,
        )


class Passed:
    """An upstream's answer on its way to the client: an iterator of its bytes, which must be closed.

    Attributes:
        status: of HTTP, as the upstream says.
        headers: the upstream's, by lower-case name.
        left: what the limits have left.
    """

    def __init__(self, found: Relayed, sent: _Sent) -> None:
        self.status = found.status
        self.headers = found.headers
        self.left = sent.left()
        self._chunks = found.chunks
        self._sent = sent
        self._meter = Meter(found.headers.get("content-type", ""), len(sent.asked.body))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        """The next bytes.

        Raises:
            BrokenError: the upstream broke off, or took too long.
        """
        sent = self._sent
        try:
            async with asyncio.timeout_at(sent.deadline):
                piece = await anext(self._chunks)
        except StopAsyncIteration:
            self._ended()
            raise
        except TimeoutError:
            error = Error("timeout", "the whole answer took too long", retryable=True)
            sent.end("error", self._meter.usage(), error)
            raise BrokenError(error) from None
        except BrokenError as broken:
            sent.end("error", self._meter.usage(), broken.event)
            raise
        if not sent.first_us:
            sent.first_us = int((time.perf_counter() - sent.began) * 1e6)
        self._meter.feed(piece)
        return piece

    def _ended(self) -> None:
        """All of it has gone by. What was refused has used nothing, and says little of the upstream."""
        if self.status < _REFUSED:
            self._sent.end("ok", self._meter.usage())
        else:
            kind: Literal["rate", "invalid"] = "rate" if self.status == 429 else "invalid"
            self._sent.end("error", error=Error(kind, "", status=self.status))

    async def close(self) -> None:
        """Be done with it: the upstream is cancelled unless it is whole, what was used is settled."""
        self._sent.end("left", self._meter.usage())
        aclose = getattr(self._chunks, "aclose", None)
        if aclose is not None:
            await aclose()


async def pass_on(admission: Admission, kit: Kit, asked: Passing, caller: Caller) -> Passed | Refused:
    """Find who may be asked, reserve, and send it once: what it would do a second time is not known here."""
    began = time.perf_counter()
    lane = admission.lane(asked.name, caller)
    if isinstance(lane, Refused):
        return lane
    if lane.route.input_guards or lane.route.output_guards:
        return refused("invalid", f"the model {asked.name!r} is guarded, and nothing is passed by its guards")
    upstream = _who(lane, asked)
    if isinstance(upstream, Refused):
        return upstream
    bounds = _bounds(asked, upstream)
    if isinstance(bounds, Refused):
        return bounds
    price = kit.prices.find(*upstream.priced, kit.clock_ns())
    money = 0 if price is None else most_micro(price, *bounds)
    reserved = await admission.reserve(caller, lane, sum(bounds), money)
    if isinstance(reserved, Denied):
        return denied(reserved)
    sent = _Sent(asked, caller, lane, kit, began)
    sent.reserved = reserved
    try:
        return await _asked(sent, upstream, sum(bounds))
    except BaseException:
        sent.end("left")
        raise


async def _asked(sent: _Sent, upstream: Upstream, tokens: int) -> Passed | Refused:
    asked, gate = sent.asked, sent.lane.gate
    if gate is not None:
        sent.gated = await gate.enter()
        if not sent.gated:
            found = busy(gate.waiting, sent.left())
            sent.end("error", error=found.error)
            return found
    sent.begin(upstream, tokens)
    engine = upstream.target.engine
    assert isinstance(engine, Relay)
    path = f"{asked.path}?{asked.query}" if asked.query else asked.path
    answer = await engine.relay(asked.id, path, asked.body, method=asked.method, headers=asked.headers)
    error = answer if isinstance(answer, Error) else await _hidden(answer)
    if error is None:
        return Passed(cast(Relayed, answer), sent)
    sent.end("error", error=error)
    return Refused(error, left=sent.left())


async def _hidden(answer: Relayed) -> Error | None:
    """The fault that is told in place of an answer that is not the client's: of our key, of the upstream's own affairs,
    or that leads elsewhere, where clients would go with their own keys.
    """
    status = answer.status
    if status in (401, 403) or status >= _FAILED or (_MOVED <= status < _REFUSED and status != _UNCHANGED):
        aclose = getattr(answer.chunks, "aclose", None)
        if aclose is not None:
            await aclose()
        return error_of(status, answer.headers, b"")
    return None


def _who(lane: Lane, asked: Passing) -> Upstream | Refused:
    """The upstream that is asked, of those that this path of is passed on to."""
    able = [
        upstream
        for upstream in lane.upstreams
        if isinstance(upstream.target.engine, Relay)
        and may_pass(asked.path, upstream.target.engine.capabilities().passthrough)
    ]
    if not able:
        message = f"nothing is passed on to {asked.name!r} at {asked.path}"
        return refused("not_found", message, code="not_found")
    found = choose(able)
    if found is None:
        wait = min(upstream.closed_for() for upstream in able)
        return Refused(Error("overloaded", "the model does not answer now", retryable=True, retry_after=wait))
    return found


def _bounds(asked: Passing, upstream: Upstream) -> tuple[int, int] | Refused:
    """The most tokens of prompt and answer that it can take, as far as it tells."""
    if "json" not in asked.headers.get("content-type", "") or not asked.body:
        return 0, 0
    try:
        value: Any = orjson.loads(asked.body)
    except orjson.JSONDecodeError as error:
        return refused("invalid", f"the body is not valid JSON: {error}")
    if not isinstance(value, dict):
        return len(asked.body), 0
    model, own = value.get("model"), upstream.target.engine.capabilities().models or (upstream.target.model,)
    if model is not None and model not in own:
        message = f"{asked.name!r} passes requests on to the model {own[0]!r}, and to no other"
        return refused("not_found", message, code="model_not_found", param="model")
    return asked_tokens(value, len(asked.body), UNSAID)
