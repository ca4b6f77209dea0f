"""Vectors of texts through the gateway: limits, retries and records as for answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import msgspec

from mainspring.llm.admission import Admission
from mainspring.llm.attempts import may_retry
from mainspring.llm.cost import cost_micro, most_micro
from mainspring.llm.lanes import Lane
from mainspring.llm.limits import Denied, Left
from mainspring.llm.record import CallRecord
from mainspring.llm.refused import Refused, denied, refused
from mainspring.llm.run import Kit
from mainspring.llm.upstreams import Upstream, choose
from mainspring.llm.values import Caller
from mainspring.ports.llm import Embeddings, EmbedRequest, Error, Usage

__all__ = ["embed"]

_CLOSED = Error("overloaded", "the model does not answer now", retryable=True, retry_after=1.0)
_BAD = ("timeout", "upstream", "crashed", "overloaded", "auth")


async def embed(admission: Admission, kit: Kit, request: EmbedRequest, caller: Caller) -> Embeddings | Refused:
    """Reserve, send, try again where that is allowed, settle, record."""
    began, at_ns = time.perf_counter(), kit.clock_ns()
    lane = admission.lane(request.model, caller)
    if isinstance(lane, Refused):
        return lane
    upstreams = [upstream for upstream in lane.upstreams if upstream.target.engine.capabilities().embeddings]
    if not upstreams:
        return refused("invalid", f"the model {request.model!r} gives no embeddings", param="model")
    tokens = sum(len(text) + 2 if isinstance(text, tuple) else len(text.encode()) + 2 for text in request.inputs)
    prices = [kit.prices.find(upstream.target.provider, upstream.target.model, at_ns) for upstream in upstreams]
    most = max((most_micro(price, tokens, 0) for price in prices if price is not None), default=0)
    reserved = await admission.reserve(caller, lane, tokens, most)
    if isinstance(reserved, Denied):
        return denied(reserved)
    answerer, found = upstreams[0], None
    cost, version, usage = 0, "", Usage(0, 0, source="counted")
    try:
        answerer, found = await _asked(lane, upstreams, request, tokens)
        if isinstance(found, Embeddings):
            usage = found.usage
            price = kit.prices.find(answerer.target.provider, answerer.target.model, at_ns)
            if price is not None:
                cost, version = cost_micro(price, usage), price.version
    finally:
        if reserved is not None:
            reserved.settle(usage.prompt + usage.completion, cost)
        if kit.recorder is not None:
            kit.recorder.add(_record(request, caller, lane, answerer, found, usage, at_ns, began, cost, version))
    if isinstance(found, Error):
        return Refused(found, left=reserved.left() if reserved is not None else Left())
    return found


async def _asked(
    lane: Lane, upstreams: Sequence[Upstream], request: EmbedRequest, tokens: int
) -> tuple[Upstream, Embeddings | Error]:
    retry, tried = lane.route.retry, set[Upstream]()
    lane.budget.earn()
    upstream = upstreams[0]
    found: Embeddings | Error = _CLOSED
    for number in range(retry.attempts):
        chosen = choose(upstreams, tried=tried)
        if chosen is None:
            break
        upstream = chosen
        tried.add(upstream)
        found = await _once(upstream, request, tokens, lane.route.timeouts.total)
        if not isinstance(found, Error) or number + 1 == retry.attempts or not may_retry(found):
            break
        wait = max(found.retry_after or 0.0, retry.wait_s * 2.0**number)
        if wait > retry.longest_s or not lane.budget.spend():
            break
        await asyncio.sleep(0.0 if len(tried) < len(upstreams) else wait)
    return upstream, found


async def _once(upstream: Upstream, request: EmbedRequest, tokens: int, seconds: float) -> Embeddings | Error:
    target = upstream.target
    upstream.begin(tokens)
    ok: bool | None = None
    try:
        async with asyncio.timeout(seconds):
            found = await target.engine.embed(msgspec.structs.replace(request, model=target.model))
        ok = not (isinstance(found, Error) and found.kind in _BAD)
    except TimeoutError:
        ok = False
        found = Error("timeout", "the model took too long", retryable=True)
    finally:
        upstream.end(tokens, ok, found.retry_after if ok is False and isinstance(found, Error) else None)
    return found


def _record(
    request: EmbedRequest,
    caller: Caller,
    lane: Lane,
    upstream: Upstream,
    found: Embeddings | Error | None,
    usage: Usage,
    at_ns: int,
    began: float,
    cost: int,
    version: str,
) -> CallRecord:
    return CallRecord(
        id=request.id,
        model=request.model,
        caller=caller,
        api="embeddings",
        stream=False,
        trace=("", ""),
        prompt="",
        lane=lane.route.name,
        at_ns=at_ns,
        target=upstream.target,
        status="left" if found is None else ("error" if isinstance(found, Error) else "ok"),
        error_kind=found.kind if isinstance(found, Error) else "",
        finish_reason="",
        attempt=1,
        hedged=False,
        cache="",
        usage=usage,
        queue_us=0,
        ttft_us=0,
        total_us=int((time.perf_counter() - began) * 1e6),
        cost_micro=cost,
        price_version=version,
    )
