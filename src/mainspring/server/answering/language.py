"""The language models that a server answers with: engines started and drained, gateways over them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, cast

import msgspec

from mainspring.choose.services import Services
from mainspring.config.settings import Settings
from mainspring.declare import llm as declared
from mainspring.declare.assistant import AssistantEndpoint
from mainspring.declare.declaration import name_of, spec_of
from mainspring.errors import ConfigError, ServiceError
from mainspring.llm.alike import Alike
from mainspring.llm.cost import Price, PriceTable, cost_micro
from mainspring.llm.gateway import Gateway
from mainspring.llm.guards import AskedPatterns, Patterns
from mainspring.llm.keys import digest_of
from mainspring.llm.leases import LeasedAccounts
from mainspring.llm.record import CallRecord, Recorder
from mainspring.llm.values import Key, Limits, Route, Target
from mainspring.plan.graph import Plan
from mainspring.ports.llm import Capabilities, Engine, Failed, Ready, Usage
from mainspring.server.answering.budgets import Budgets, names_of
from mainspring.server.answering.prompts import Prompts
from mainspring.server.http.callers import Callers, named_keys

__all__ = ["Language", "ModelRow", "bearers_of", "keys_of", "prices_of", "shown_models"]

_AGAIN_SECONDS = 5.0
_START_SECONDS = 300.0


class _Served(msgspec.Struct):
    """An engine with what it said when it started."""

    name: str
    engine: Engine
    model: str
    provider: str
    state: Ready | Failed | None = None


class ModelRow(msgspec.Struct, frozen=True):
    """A declared model and its engine as they are now.

    Attributes:
        name: the model's, as declared.
        adapter: whose engine it is.
        model: the engine's own name of it.
        state: ``starting``, ``ready``, or ``failed``: it is tried again.
        why: why it cannot start, or empty.
        fix: and what to do about it.
        seconds: how long it took to start, or None.
        can: what the engine can do.
    """

    name: str
    adapter: str
    model: str
    state: Literal["starting", "ready", "failed"]
    why: str
    fix: str
    seconds: float | None
    can: Capabilities


class Language:
    """An app's language models at work.

    Args:
        services: the project's ports.
        plan: the app's graph.
        told: told what a person should know.
        recorder: takes a record of every request, or None.
        budgets: what callers, tenants and models may use, of a server; a command is not limited.

    Attributes:
        inner: every model and route, for what runs inside the process: no key is asked for, and who has one counts by
            its name.
        alike: compares questions, for routes that are declared so.
    """

    def __init__(
        self,
        services: Services,
        plan: Plan,
        told: Callable[[str], None],
        recorder: Recorder[CallRecord] | None = None,
        budgets: Budgets | None = None,
    ) -> None:
        self._settings = services.settings
        self._plan = plan
        self._told = told
        self._recorder = recorder
        self._engines = {node.name: _served(services, node.name) for node in plan.of_kind("llm")}
        self.prices = prices_of(
            self._settings, {name: (one.provider, one.model) for name, one in self._engines.items()}
        )
        self.prompts = Prompts(services, plan)
        self._budgets = budgets or Budgets()
        known = budgets is not None and bool(self._engines)
        self._keys = keys_of(self._settings, self._budgets.callers) if known else []
        self.alike = Alike(lambda: services.embedder, told)
        self.inner = self._gateway(self._routes(), self._keys)
        self._counting: asyncio.Task[None] | None = None

    def __bool__(self) -> bool:
        return bool(self._engines)

    async def start(self) -> None:
        """Start every engine; one that cannot start is tried again, and others answer meanwhile."""
        await asyncio.gather(*(self._start(one) for one in self._engines.values()))

    async def start_once(self) -> None:
        """Start every engine, for a command that ends rather than wait for one to come back; who cannot is told.

        Raises:
            ServiceError: MS-4250, none of them can start.
        """
        await asyncio.gather(*(self._start_once(one) for one in self._engines.values()))
        failed = [(one.name, one.state) for one in self._engines.values() if isinstance(one.state, Failed)]
        if not failed or len(failed) < len(self._engines):
            return
        name, state = failed[0]
        raise ServiceError(
            f"the language model {name!r} cannot start",
            code="MS-4250",
            why=state.why,
            origin=f"llms.{name}",
            fix=state.fix or "mainspring conditions llm shows which engine was chosen",
        )

    async def _start_once(self, one: _Served) -> None:
        try:
            one.state = await asyncio.wait_for(one.engine.start(), _START_SECONDS)
        except TimeoutError:
            one.state = Failed(f"no token after {_START_SECONDS:.0f} s", "look at its log")
        if isinstance(one.state, Failed):
            self._told(f"llm {one.name} cannot start: {one.state.why}; {one.state.fix}")
        else:
            self._check(one)

    async def _start(self, one: _Served) -> None:
        said = None
        while True:
            one.state = await one.engine.start()
            if isinstance(one.state, Ready):
                self._told(f"llm {one.name} answers: {one.state.model or one.model}, after {one.state.seconds:.1f} s")
                self._check(one)
                return
            if one.state != said:
                self._told(f"llm {one.name} cannot start: {one.state.why}; {one.state.fix}; it is tried again")
            said = one.state
            await asyncio.sleep(_AGAIN_SECONDS)

    def cost_micro(self, name: str, usage: Usage, at_ns: int) -> int | None:
        """What tokens cost by the price of a model, or of a route's first one; None where it has none.

        Args:
            name: of the model or route.
            usage: the tokens.
            at_ns: when, UTC nanoseconds since 1970.
        """
        lane = self.inner.lanes.get(name)
        if lane is None:
            return None
        target = lane.route.targets[0]
        price = self.prices.find(target.provider, target.model, at_ns)
        return None if price is None else cost_micro(price, usage)

    def _check(self, one: _Served) -> None:
        """Tell what the app needs of a model that its engine cannot do."""
        can = one.engine.capabilities()
        able = {
            "tools": can.tools or can.grammar,
            "images": can.images,
            "schema": can.grammar,
            "logprobs": can.logprobs,
            "embeddings": can.embeddings,
        }
        node = self._plan.node(f"/llm/{one.name}")
        for need in spec_of(cast(declared.LLM, node.declaration)).needs if node is not None else ():
            if not able[need]:
                self._told(f"llm {one.name} is declared to need {need}, which its engine cannot do")

    def ready(self) -> bool:
        """Whether every engine has answered with a token."""
        return all(isinstance(one.state, Ready) for one in self._engines.values())

    def report(self) -> list[ModelRow]:
        """A row for each declared model."""
        return [_row(one) for one in self._engines.values()]

    def count(self) -> None:
        """Begin to count with other servers, where their budgets are one; inside the event loop."""
        if isinstance(self._budgets.accounts, LeasedAccounts):
            self._counting = asyncio.create_task(self._budgets.accounts.run())

    async def leave(self) -> None:
        """Give back to the other servers what this one has drawn and not used."""
        if self._counting is not None:
            self._counting.cancel()
            await asyncio.gather(self._counting, return_exceptions=True)

    async def stop(self, seconds: float) -> None:
        """Let what runs end, then stop every engine."""
        await asyncio.gather(*(one.engine.drain(seconds) for one in self._engines.values()))

    def outer(self, further: Sequence[Route] = (), others: Callable[[bytes], Key | None] | None = None) -> Gateway:
        """What clients are answered by: the models and routes that the app has endpoints of, and `further` ones.

        The models that a route falls back to have names too; a client with a key may use what has an endpoint.

        Args:
            further: routes besides.
            others: finds who brings what is none of the keys: see `bearers_of`.
        """
        inner = {route.name: route for route in self._routes()}
        shown = shown_models(self._plan)
        routes = [msgspec.structs.replace(inner[of], name=name, bodies=log) for name, of, log in shown]
        names = {route.name for route in routes}
        compared = [route.name for route in routes if route.alike is not None]
        if compared and not self._keys and others is None:
            self._told(
                f"{', '.join(compared)}: only equal requests are answered from the cache, as callers have no keys"
            )
        behind = {name for route in routes for name in (*route.fallback, *(other for other, _ in route.split))}
        routes += [inner[name] for name in sorted(behind - names)]
        allowed = frozenset(names | {route.name for route in further})
        own = [msgspec.structs.replace(key, models=allowed) for key in self._keys]

        def other(secret: bytes) -> Key | None:
            key = None if others is None else others(secret)
            return None if key is None else msgspec.structs.replace(key, models=allowed)

        return self._gateway([*routes, *further], own, None if others is None else other)

    def _gateway(
        self, routes: Iterable[Route], keys: Sequence[Key], others: Callable[[bytes], Key | None] | None = None
    ) -> Gateway:
        return Gateway(
            routes,
            keys=keys,
            tenants=self._budgets.tenants,
            prices=self.prices,
            prompts=self.prompts.registry,
            recorder=self._recorder,
            accounts=self._budgets.accounts,
            others=others,
            alike=self.alike,
        )

    def _routes(self) -> Iterator[Route]:
        for node in self._plan.of_kind("llm"):
            yield self._route_of(node.name, (cast(declared.LLM, node.declaration),))
        for node in self._plan.of_kind("route"):
            spec = spec_of(cast(declared.Route, node.declaration))
            first = self._route_of(node.name, (spec.first, *spec.beside))
            yield msgspec.structs.replace(
                first,
                hedge_s=None if spec.hedge_us is None else spec.hedge_us / 1e6,
                fallback=tuple(name_of(model) for model in spec.fallback),
                split=tuple((name_of(model), share) for model, share in spec.split),
                cache_s=(spec.cache_us or 0) / 1e6,
                alike=spec.alike,
            )

    def _route_of(self, name: str, models: Sequence[declared.LLM]) -> Route:
        """A route over models that answer alike: the first one's values, and the guards of all."""
        spec = spec_of(models[0])
        guards = tuple(dict.fromkeys(guard for model in models for guard in spec_of(model).guards))
        asked = [one for one in guards if one.on != "output"]
        answered = [one for one in guards if one.on != "input"]
        return Route(
            name=name,
            limits=self._budgets.models.get(name, Limits()),
            account=name,
            targets=tuple(self._target_of(name_of(model)) for model in models),
            max_tokens=spec.max_tokens,
            temperature=spec.temperature,
            input_guards=[AskedPatterns(one.name, one.pattern, one.replace) for one in asked],
            output_guards=[Patterns(one.name, one.pattern, one.longest, one.replace) for one in answered],
        )

    def _target_of(self, model: str) -> Target:
        one = self._engines[model]
        return Target(name=one.name, engine=one.engine, model=one.model, provider=one.provider)


def shown_models(plan: Plan) -> Iterator[tuple[str, str, float]]:
    """The names that clients use, the models or routes behind them, and the share of texts that is kept."""
    for node in plan.of_kind("endpoint"):
        kind, _, name = node.inputs[0].strip("/").partition("/")
        if isinstance(node.declaration, AssistantEndpoint) and kind in ("llm", "route"):
            yield node.name, name, spec_of(node.declaration).log


def _served(services: Services, name: str) -> _Served:
    engine = services.engine(name)
    known = engine.capabilities().models
    model = known[0] if known else services.settings.text(f"llms.{name}.model") or name
    return _Served(name, engine, model, services.decision("llm", f"llms.{name}").chosen.name)


def _row(one: _Served) -> ModelRow:
    state, can = one.state, one.engine.capabilities()
    if isinstance(state, Ready):
        return ModelRow(one.name, one.provider, state.model or one.model, "ready", "", "", state.seconds, can)
    if isinstance(state, Failed):
        return ModelRow(one.name, one.provider, one.model, "failed", state.why, state.fix, None, can)
    return ModelRow(one.name, one.provider, one.model, "starting", "", "", None, can)


def keys_of(settings: Settings, limits: Mapping[str, Limits]) -> list[Key]:
    """The gateway's keys: those of the callers, with their limits, and those of ``server.keys``.

    Args:
        settings: of the active profile.
        limits: of callers, by their names.

    Raises:
        ConfigError: MS-3007, MS-3023, MS-3027, as the server's own.
    """
    found = []
    for name, secret, identity in named_keys(settings):
        own = limits.get(name, Limits())
        found.append(Key(id=name, digest=digest_of(secret), tenant=identity.tenant, limits=own))
    return found


def bearers_of(callers: Callers) -> Callable[[bytes], Key | None] | None:
    """Finds who brings a token of an issuer; None where there is no issuer.

    Its name is ``oidc:USER``, so that it is no caller's of the settings, whose limits it would have.
    """
    if callers.tokens is None:
        return None

    def find(secret: bytes) -> Key | None:
        identity = callers.of(secret)
        if identity is None:
            return None
        return Key(id=f"oidc:{identity.user}", digest=b"", tenant=identity.tenant)

    return find


def prices_of(settings: Settings, models: Mapping[str, tuple[str, str]]) -> PriceTable:
    """The prices of ``[prices.NAME]``, where NAME is a declared model's; each has a version by its numbers.

    Args:
        settings: of the active profile.
        models: the provider and the engine's own name of each declared model.

    Raises:
        ConfigError: MS-3028, a price is for no declared model.
    """
    found = []
    for name in names_of(settings, "prices"):
        section = settings.section(f"prices.{name}")
        if name not in models:
            raise ConfigError(
                f"there is a price for {name!r}, which is no declared language model",
                code="MS-3028",
                origin=next(iter(section.values())).origin,
                fix=f"prices are for {', '.join(models) or 'none here'}",
            )
        numbers = {key: int(cast(int, item.value)) for key, item in section.items()}
        version = hashlib.blake2b(msgspec.json.encode(numbers, order="sorted"), digest_size=6).hexdigest()
        provider, model = models[name]
        found.append(msgspec.convert({**numbers, "provider": provider, "model": model, "version": version}, Price))
    return PriceTable(found)
