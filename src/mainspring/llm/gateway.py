"""The gateway: every request passes the same steps, whichever wire it came by, or none."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

import msgspec

from mainspring.errors import ConfigError
from mainspring.llm.admission import Admission
from mainspring.llm.alike import Alike
from mainspring.llm.cost import PriceTable
from mainspring.llm.embedding import embed
from mainspring.llm.fold import Answer
from mainspring.llm.keys import KeyRing
from mainspring.llm.lanes import Lane
from mainspring.llm.limits import Account, Accounts
from mainspring.llm.passing import Passed, Passing, pass_on
from mainspring.llm.prompts import PromptRegistry
from mainspring.llm.record import CallRecord, Recorder
from mainspring.llm.refused import Refused
from mainspring.llm.run import Kit, Run
from mainspring.llm.schemas import SchemaBook
from mainspring.llm.values import Call, Caller, Key, Limits, Route
from mainspring.llm.waiting import Sweep
from mainspring.ports.llm import Embeddings, EmbedRequest, Error, Event, Generation

__all__ = ["Gateway"]


class Gateway:
    """Routes with everything around them. All methods are called on one event loop.

    Args:
        routes: every name that clients may use.
        keys: the clients' keys; none leaves it open.
        tenants: limits of tenants, over all their keys.
        prices: what tokens cost.
        prompts: declared prompts.
        recorder: takes a record of every request; started and stopped by whoever made it.
        accounts: where use is counted; gateways that have one in common have its budgets in common.
        others: finds who brings what is none of the keys; None where nobody else is let in.
        alike: makes vectors of questions, for routes that answer those that are alike from their cache.
        clock_ns: UTC nanoseconds since 1970.
        monotonic: a clock in seconds that only goes forward.

    Raises:
        ConfigError: MS-3070, two keys are the same; MS-3071, routes do not fit together; MS-3181, a route compares
            questions, and nothing makes vectors of them.
    """

    def __init__(
        self,
        routes: Iterable[Route],
        *,
        keys: Iterable[Key] = (),
        tenants: Mapping[str, Limits] | None = None,
        prices: PriceTable | None = None,
        prompts: PromptRegistry | None = None,
        recorder: Recorder[CallRecord] | None = None,
        accounts: Accounts | None = None,
        others: Callable[[bytes], Key | None] | None = None,
        alike: Alike | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        known = tuple(keys)
        self.prompts = prompts or PromptRegistry()
        self._keys = KeyRing(known) if known else None
        self._others = others
        self._clock_ns = clock_ns
        self._kit = Kit(prices or PriceTable(), recorder, SchemaBook(), clock_ns, Sweep(), alike)
        self._accounts = Accounts(lambda: clock_ns() / 1e9) if accounts is None else accounts
        self.lanes = _lanes(tuple(routes), self._accounts, monotonic)
        if alike is None:
            _compare_nothing(self.lanes.values())
        self._admission = Admission(self.lanes, known, tenants or {}, self._accounts, self._kit)
        self._random = random.Random(random.SystemRandom().getrandbits(128))

    def new_id(self) -> str:
        """An id for a request: 24 hexadecimal digits, unique."""
        return self._random.randbytes(12).hex()

    def names(self, caller: Caller) -> list[Route]:
        """The routes that a caller may use."""
        allowed = None if caller.key is None else caller.key.models
        return [lane.route for name, lane in self.lanes.items() if allowed is None or name in allowed]

    def lane(self, name: str, caller: Caller) -> Lane | Refused:
        """The route that answers a caller under a name."""
        return self._admission.lane(name, caller)

    def caller(self, secret: bytes | None) -> Caller | None:
        """Who a key belongs to, or None where it is none of ours; without any keys everyone is let in."""
        if self._keys is None and self._others is None:
            return Caller()
        key = None if not secret or self._keys is None else self._keys.find(secret, self._clock_ns())
        if key is None and secret and self._others is not None:
            key = self._others(secret)
        return None if key is None else Caller(key, key.tenant)

    def account(self, name: str) -> Account | None:
        """What ``key:NAME``, ``tenant:NAME`` or ``model:NAME`` has used, where it has limits."""
        return self._accounts.get(name)

    async def open(self, call: Call) -> Run | Refused:
        """Let a request through every step until a target has accepted it. Whoever gets a run must `close` it."""
        run = await self._admission.admit(call, time.perf_counter())
        if isinstance(run, Refused):
            return run
        try:
            error = await run.begin()
        except BaseException:
            await run.close()
            raise
        if error is not None:
            await run.close()
            return Refused(error, left=run.left())
        return run

    async def complete(self, call: Call) -> tuple[Run, Answer] | Refused:
        """A whole answer, with the run that it came by (closed)."""
        run = await self.open(call)
        if isinstance(run, Refused):
            return run
        try:
            answer = await run.complete()
        finally:
            await run.close()
        if isinstance(answer, Error):
            return Refused(answer, left=run.left())
        return run, answer

    async def generate(self, request: Generation, caller: Caller | None = None) -> AsyncIterator[Event]:
        """What an engine's `generate` does, with the gateway around it: no socket, no wire.

        Args:
            request: ``model`` is a route's name; an empty id is replaced.
            caller: whose budget it is, and who is told apart by splits.
        """
        if not request.id:
            request = msgspec.structs.replace(request, id=self.new_id())
        run = await self.open(Call(request, caller or Caller()))
        if isinstance(run, Refused):
            yield run.error
            return
        try:
            yield run.answer.start
            async for event in run.events():
                yield event
        finally:
            await run.close()

    async def embed(self, request: EmbedRequest, caller: Caller | None = None) -> Embeddings | Refused:
        """Vectors of texts, within the same limits."""
        return await embed(self._admission, self._kit, request, caller or Caller())

    async def pass_on(self, asked: Passing, caller: Caller) -> Passed | Refused:
        """An upstream's answer to a request as it is, within the same limits. Whoever gets it must `close` it."""
        return await pass_on(self._admission, self._kit, asked, caller)


def _lanes(routes: Sequence[Route], accounts: Accounts, now: Callable[[], float]) -> dict[str, Lane]:
    lanes = {
        route.name: Lane(route, accounts.add(f"model:{route.account or route.name}", route.limits), now)
        for route in routes
    }
    if len(lanes) != len(routes):
        raise _bad_routes("two routes have one name", "each name is answered in one way")
    for lane in lanes.values():
        _check(lane.route, lanes)
        lane.fallback = tuple(lanes[name] for name in lane.route.fallback)
        ends, end = [], 0.0
        for name, share in lane.route.split:
            end += share
            ends.append((end, lanes[name]))
        lane.split = tuple(ends)
    return lanes


def _check(route: Route, known: Mapping[str, Lane]) -> None:
    for name in (*route.fallback, *(name for name, _ in route.split)):
        if name not in known:
            raise _bad_routes(f"the route {route.name!r} leads to {name!r}, which is none", "routes lead to routes")
    if not route.targets:
        raise _bad_routes(f"the route {route.name!r} has no target", "someone must answer")
    if any(target.weight <= 0 for target in route.targets):
        raise _bad_routes(f"a target of the route {route.name!r} has no weight", "weights are above 0")
    if sum(share for _, share in route.split) > 1:
        raise _bad_routes(f"the shares of {route.name!r} are more than 1 together", "what they leave is its own")


def _compare_nothing(lanes: Iterable[Lane]) -> None:
    for lane in lanes:
        if lane.alike is not None:
            raise ConfigError(
                f"the route {lane.route.name!r} compares questions, and nothing makes vectors of them",
                code="MS-3181",
                fix="Gateway(..., alike=Alike(lambda: embedder)), or leave the route's alike out",
            )


def _bad_routes(what: str, why: str) -> ConfigError:
    return ConfigError(what, code="MS-3071", why=why, fix="correct the route's targets, fallback, split or name")
