"""From a request to a run: which route, by what policy, within which limits; nothing is sent yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from mainspring.llm.alike import question_of
from mainspring.llm.attempts import Attempts
from mainspring.llm.cache import ExactCache, cache_key, cacheable
from mainspring.llm.cost import most_micro
from mainspring.llm.guards import Refusal
from mainspring.llm.lanes import Lane
from mainspring.llm.limits import Account, Accounts, Denied, Reservation
from mainspring.llm.refused import Refused, busy, denied, refused
from mainspring.llm.run import Kit, Run
from mainspring.llm.tokens import most_prompt_tokens
from mainspring.llm.upstreams import Upstream
from mainspring.llm.values import Call, Caller, Key, Limits
from mainspring.ports.llm import Capabilities, Engine, Error, Generation

__all__ = ["UNSAID", "Admission"]

UNSAID = 4096
"""Tokens of an answer that are counted against a limit, and allowed, when nobody has said a number."""

Legs = Sequence[tuple[Lane, Sequence[Upstream]]]


class Admission:
    """The steps before a request is sent.

    Args:
        lanes: every route, by its name.
        keys: the clients' keys.
        tenants: limits of tenants.
        accounts: where use is counted.
        kit: what all runs share.
    """

    __slots__ = ("_accounts", "_by_key", "_by_tenant", "_kit", "_lanes", "_money")

    def __init__(
        self,
        lanes: Mapping[str, Lane],
        keys: Sequence[Key],
        tenants: Mapping[str, Limits],
        accounts: Accounts,
        kit: Kit,
    ) -> None:
        self._lanes = lanes
        self._kit = kit
        self._accounts = accounts
        every = [*(key.limits for key in keys), *tenants.values(), *(lane.route.limits for lane in lanes.values())]
        self._money = any(limit.money_micro is not None for limit in every)
        self._by_tenant: dict[str, tuple[Account, ...]] = {}
        for tenant, limits in tenants.items():
            account = accounts.add(f"tenant:{tenant}", limits)
            self._by_tenant[tenant] = () if account is None else (account,)
        self._by_key: dict[str, tuple[Account, ...]] = {}
        for key in keys:
            account = accounts.add(f"key:{key.id}", key.limits)
            own = () if account is None else (account,)
            self._by_key[key.id] = own + self._by_tenant.get(key.tenant, ())

    def lane(self, name: str, caller: Caller) -> Lane | Refused:
        """The route of a name for a caller."""
        lane = self._lanes.get(name)
        key = caller.key
        if lane is None or (key is not None and key.models is not None and name not in key.models):
            return refused("not_found", f"the model {name!r} does not exist", code="model_not_found", param="model")
        if not lane.split:
            return lane
        return lane.for_user(caller.user or (key.id if key is not None else ""))

    async def reserve(self, caller: Caller, lane: Lane, tokens: int, money: int) -> Reservation | Denied | None:
        """Take what a request may use at every account where it counts; None where it counts nowhere."""
        accounts = self._counting(caller, lane)
        return await self._accounts.take(accounts, tokens, money) if accounts else None

    def _counting(self, caller: Caller, lane: Lane) -> tuple[Account, ...]:
        """Where a request counts. Who comes without a key is inside the process, and has been told by it before."""
        key = caller.key
        found = self._by_key.get(caller.user if key is None else key.id)
        if found is None:
            found = self._by_tenant.get(caller.tenant, ())
        return found if lane.account is None else (*found, lane.account)

    async def admit(self, call: Call, began: float) -> Run | Refused:
        """Every step of a generation before it is sent; the run holds its reservation until it is closed."""
        lane = self.lane(call.generation.model, call.caller)
        if isinstance(lane, Refused):
            return lane
        request = _by_policy(call.generation, lane)
        checked = self._checked(request, lane)
        if isinstance(checked, Refused):
            return checked
        request, legs = checked
        can = legs[0][1][0].target.engine.capabilities()
        if can.context is not None:
            fitted = await _fitted(request, lane, legs[0][1][0].target.engine, can, can.context)
            if isinstance(fitted, Refused):
                return fitted
            request = fitted
        return await self._entered(call, lane, request, legs, began)

    def _checked(self, request: Generation, lane: Lane) -> tuple[Generation, Legs] | Refused:
        """The request after the input guards, with the upstreams that can answer it."""
        if request.schema is not None or request.tools or request.choice.mode == "named":
            fault = self._bad_schema(request)
            if fault is not None:
                return fault
        for guard in lane.route.input_guards:
            seen = guard.check(request)
            if isinstance(seen, Refusal):
                return refused("invalid", f"refused by {seen.guard}: {seen.why}", code="content_filter")
            request = seen
        able = lane.able(request)
        if isinstance(able, str):
            return refused("invalid", able, code="unsupported_value")
        legs = [(lane, able)]
        for other in lane.fallback:
            also = other.able(request)
            if not isinstance(also, str):
                legs.append((other, also))
        return request, legs

    def _bad_schema(self, request: Generation) -> Refused | None:
        schema, book = request.schema, self._kit.schemas
        if schema is not None and schema.schema is not None:
            fault = book.fault(schema.schema, forced=True)
            if fault is not None:
                return refused("invalid", f"the schema cannot be used: {fault}", param="response_format")
        forced = request.choice.mode in ("required", "named")
        names = {tool.name for tool in request.tools}
        if request.choice.mode == "named" and request.choice.name not in names:
            return refused(
                "invalid", f"tool_choice names {request.choice.name!r}, which is no tool", param="tool_choice"
            )
        for tool in request.tools:
            fault = book.fault(tool.parameters, forced=forced or tool.strict) if tool.parameters else None
            if fault is not None:
                return refused(
                    "invalid", f"the schema of the tool {tool.name!r} cannot be used: {fault}", param="tools"
                )
        return None

    async def _entered(self, call: Call, lane: Lane, request: Generation, legs: Legs, began: float) -> Run | Refused:
        """The run of a request, its caches looked at, its limits reserved, its turn awaited."""
        kept: Run | None = None
        if lane.cache is not None and cacheable(request, sampled=lane.route.cache_sampled):
            kept = Run(call, lane, request, None, self._kit, began)
            await self._look(kept, lane, lane.cache)
            if kept.replay is not None:
                return await self._again(kept)
        bound = most_prompt_tokens(request)
        answer = (request.sampling.max_tokens or UNSAID) * request.sampling.n
        accounts = self._counting(call.caller, lane)
        reserved: Reservation | None = None
        if accounts:
            request = _bounded(request)
            got = await self._accounts.take(accounts, bound + answer, self._most(legs, bound, answer))
            if isinstance(got, Denied):
                got = await self._counted(accounts, request, legs, bound, answer, got)
            if isinstance(got, Denied):
                return denied(got)
            reserved = got
        run = Run(call, lane, request, Attempts(legs, request, bound // 4 + answer, self._kit.sweep), self._kit, began)
        run.reservation = reserved
        if kept is not None:
            run.cache_key, run.alike = kept.cache_key, kept.alike
        if lane.gate is not None:
            return await _turn(run, lane)
        return run

    async def _again(self, run: Run) -> Run | Refused:
        """An answer that is given again: a request as any other to its limits, of no token and no money."""
        got = await self.reserve(run.call.caller, run.lane, 0, 0)
        if isinstance(got, Denied):
            return denied(got)
        run.reservation = got
        return run

    async def _look(self, run: Run, lane: Lane, cache: ExactCache) -> None:
        """Find the answer to an equal request, or to one that is alike, or else note where the answer will be kept."""
        call, request, route = run.call, run.request, lane.route
        run.cache_key = cache_key(request, route.name, lane.versions, call.prompt, call.caller.tenant)
        run.replay = cache.get(run.cache_key)
        if run.replay is not None or lane.alike is None or self._kit.alike is None or route.alike is None:
            return
        question = question_of(request, call, route.name, lane.versions)
        vector = None if question is None else await self._kit.alike.vector(question.text)
        if question is None or vector is None:
            return
        found = lane.alike.get(question.scope, vector, route.alike)
        if found is None:
            run.alike = (question.scope, vector)
        else:
            run.replay, run.similarity = found

    async def _counted(
        self, accounts: Sequence[Account], request: Generation, legs: Legs, bound: int, answer: int, got: Denied
    ) -> Reservation | Denied:
        """What was denied with the most that the prompt can be, tried again with what the engine says that it is."""
        if got.what not in ("tokens", "money"):
            return got
        prompt = await legs[0][1][0].target.engine.count(request)
        if prompt is None or prompt >= bound:
            return got
        return await self._accounts.take(accounts, prompt + answer, self._most(legs, prompt, answer))

    def _most(self, legs: Legs, prompt: int, answer: int) -> int:
        """The most that a request can cost at any of its targets, in micro-units; 0 where nobody counts money."""
        if not self._money:
            return 0
        now, most, before = self._kit.clock_ns(), 0, ("", "")
        for _, upstreams in legs:
            for upstream in upstreams:
                if upstream.priced != before:
                    before = upstream.priced
                    price = self._kit.prices.find(*before, now)
                    if price is not None:
                        most = max(most, most_micro(price, prompt, answer))
        return most


async def _turn(run: Run, lane: Lane) -> Run | Refused:
    assert lane.gate is not None
    try:
        entered = await lane.gate.enter()
    except BaseException:
        await run.close()
        raise
    run.gated = entered
    if entered:
        return run
    await run.close()
    return busy(lane.gate.waiting, run.left())


def _bounded(request: Generation) -> Generation:
    """The request with no more tokens than are reserved for its answer."""
    if request.sampling.max_tokens is not None:
        return request
    return msgspec.structs.replace(request, sampling=msgspec.structs.replace(request.sampling, max_tokens=UNSAID))


def _by_policy(request: Generation, lane: Lane) -> Generation:
    """The request with the route's values for what it leaves open."""
    route, sampling = lane.route, request.sampling
    if sampling.max_tokens is not None and (sampling.temperature is not None or route.temperature is None):
        return request
    changes: dict[str, object] = {}
    if sampling.max_tokens is None and route.max_tokens is not None:
        changes["max_tokens"] = route.max_tokens
    if sampling.temperature is None and route.temperature is not None:
        changes["temperature"] = route.temperature
    if not changes:
        return request
    return msgspec.structs.replace(request, sampling=msgspec.structs.replace(sampling, **changes))


async def _fitted(
    request: Generation, lane: Lane, engine: Engine, can: Capabilities, context: int
) -> Generation | Refused:
    """The request as it fits the context, or the refusal that names both counts and who set the limit."""
    answer = request.sampling.max_tokens
    if most_prompt_tokens(request) + (answer or 0) <= context:
        return request
    prompt = await engine.count(request)
    if prompt is None or prompt + (answer or 1) <= context:
        return request
    if prompt >= context:
        return _too_long(prompt, can)
    assert answer is not None
    room = context - prompt
    if lane.route.excess == "refuse":
        message = f"{answer} tokens of answer and {prompt} of prompt are more than the context of {can.context} tokens"
        return Refused(Error("context_length", message + _set_by(can)), "context_length_exceeded", "max_tokens")
    return msgspec.structs.replace(request, sampling=msgspec.structs.replace(request.sampling, max_tokens=room))


def _too_long(prompt: int, can: Capabilities) -> Refused:
    message = f"the prompt has {prompt} tokens, and the context of this model is {can.context} tokens{_set_by(can)}"
    return Refused(Error("context_length", message), "context_length_exceeded", "messages", hopeless=True)


def _set_by(can: Capabilities) -> str:
    return f" (set by {can.context_from})" if can.context_from else ""
