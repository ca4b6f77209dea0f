"""The language models that a server answers with: engines started and drained, gateways over them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import msgspec

from mainspring.choose.services import Services
from mainspring.config.settings import Settings
from mainspring.declare import llm as declared
from mainspring.declare.assistant import AssistantEndpoint
from mainspring.declare.declaration import name_of, spec_of
from mainspring.declare.record import FieldSpec, Kind, fields_of
from mainspring.errors import ConfigError
from mainspring.llm.cost import Price, PriceTable, cost_micro
from mainspring.llm.gateway import Gateway
from mainspring.llm.keys import digest_of
from mainspring.llm.prompts import Prompt, PromptRegistry, PromptVariable
from mainspring.llm.record import Recorder
from mainspring.llm.values import Key, Limits, Route, Target
from mainspring.plan.graph import Plan
from mainspring.ports.llm import Capabilities, Engine, Failed, Ready, Usage
from mainspring.server.callers import named_keys

__all__ = ["Language", "ModelRow", "keys_of", "limits_of", "prices_of"]

_AGAIN_SECONDS = 5.0


@dataclass(slots=True)
class _Served:
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

    Attributes:
        inner: every model and route, for what runs inside the process: no key is asked for.
    """

    def __init__(
        self, services: Services, plan: Plan, told: Callable[[str], None], recorder: Recorder | None = None
    ) -> None:
        self._settings = services.settings
        self._plan = plan
        self._told = told
        self._recorder = recorder
        self._engines = {node.name: _served(services, node.name) for node in plan.of_kind("llm")}
        self.prices = prices_of(
            self._settings, {name: (one.provider, one.model) for name, one in self._engines.items()}
        )
        self.prompts = prompts_of(plan)
        self.inner = Gateway(self._routes(), prices=self.prices, prompts=self.prompts, recorder=recorder)

    def __bool__(self) -> bool:
        return bool(self._engines)

    async def start(self) -> None:
        """Start every engine; one that cannot start is tried again, and others answer meanwhile."""
        await asyncio.gather(*(self._start(one) for one in self._engines.values()))

    async def _start(self, one: _Served) -> None:
        while True:
            one.state = await one.engine.start()
            if isinstance(one.state, Ready):
                self._told(f"llm {one.name} answers: {one.state.model or one.model}, after {one.state.seconds:.1f} s")
                self._check(one)
                return
            self._told(f"llm {one.name} cannot start: {one.state.why}; {one.state.fix}")
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

    async def stop(self, seconds: float) -> None:
        """Let what runs end, then stop every engine."""
        await asyncio.gather(*(one.engine.drain(seconds) for one in self._engines.values()))

    def outer(self, keys: Iterable[Key], further: Sequence[Route] = ()) -> Gateway:
        """What clients are answered by: the models and routes that the app has endpoints of, and `further` ones.

        The models that a route falls back to have names too; a client with a key may use what has an endpoint.
        """
        shown = self._shown()
        inner = {route.name: route for route in self._routes()}
        routes = [msgspec.structs.replace(inner[of], name=name) for name, of in shown.items()]
        names = {route.name for route in routes}
        behind = {name for route in routes for name in (*route.fallback, *(other for other, _ in route.split))}
        routes += [inner[name] for name in sorted(behind - names)]
        allowed = frozenset(names | {route.name for route in further})
        own = [msgspec.structs.replace(key, models=allowed) for key in keys]
        return Gateway([*routes, *further], keys=own, prices=self.prices, prompts=self.prompts, recorder=self._recorder)

    def _shown(self) -> dict[str, str]:
        """The names that clients use, with the models or routes behind them."""
        found = {}
        for node in self._plan.of_kind("endpoint"):
            kind, _, name = node.inputs[0].strip("/").partition("/")
            if isinstance(node.declaration, AssistantEndpoint) and kind in ("llm", "route"):
                found[node.name] = name
        return found

    def _routes(self) -> Iterator[Route]:
        for node in self._plan.of_kind("llm"):
            yield self._route_of(node.name, cast(declared.LLM, node.declaration))
        for node in self._plan.of_kind("route"):
            spec = spec_of(cast(declared.Route, node.declaration))
            first = self._route_of(node.name, spec.first)
            yield msgspec.structs.replace(
                first,
                fallback=tuple(name_of(model) for model in spec.fallback),
                split=tuple((name_of(model), share) for model, share in spec.split),
                cache_s=(spec.cache_us or 0) / 1e6,
            )

    def _route_of(self, name: str, model: declared.LLM) -> Route:
        spec, one = spec_of(model), self._engines[name_of(model)]
        target = Target(name=one.name, engine=one.engine, model=one.model, provider=one.provider)
        return Route(name=name, targets=(target,), max_tokens=spec.max_tokens, temperature=spec.temperature)


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


def prompts_of(plan: Plan) -> PromptRegistry:
    """The app's declared prompts.

    Raises:
        ConfigError: MS-3072, a template is no template.
    """
    return PromptRegistry(
        _prompt(node.name, cast(declared.Prompt, node.declaration)) for node in plan.of_kind("prompt")
    )


def _prompt(name: str, prompt: declared.Prompt) -> Prompt:
    spec = spec_of(prompt)
    return Prompt(
        name=name,
        template=spec.template,
        variables=tuple(PromptVariable(one.name, one.type.__name__, one.default) for one in spec.variables),
        model="" if spec.llm is None else name_of(spec.llm),
        temperature=spec.temperature,
        max_tokens=spec.max_tokens,
        schema=None if spec.answer is None else _schema_of(fields_of(spec.answer)),
    )


def _schema_of(fields: Sequence[FieldSpec]) -> Mapping[str, object]:
    """A JSON schema of a record that a model is asked for."""
    kinds = {Kind.INTEGER: "integer", Kind.FLOAT: "number", Kind.DECIMAL: "number", Kind.BOOLEAN: "boolean"}
    properties = {}
    for field in fields:
        kind = kinds.get(field.type.kind, "string")
        properties[field.name] = {"type": [kind, "null"] if field.type.nullable else kind}
    return {
        "type": "object",
        "properties": properties,
        "required": [field.name for field in fields],
        "additionalProperties": False,
    }


def keys_of(settings: Settings) -> list[Key]:
    """The gateway's keys: those of the callers, with their limits, and those of ``server.keys``.

    Raises:
        ConfigError: MS-3007, MS-3023, MS-3027, as the server's own.
    """
    found = []
    for name, secret, identity in named_keys(settings):
        limits = limits_of(settings, name) if name in _named(settings, "limits") else Limits()
        found.append(Key(id=name, digest=digest_of(secret), tenant=identity.tenant, limits=limits))
    return found


def limits_of(settings: Settings, name: str) -> Limits:
    """The limits of ``[limits.NAME]``."""
    section = {key: item.value for key, item in settings.section(f"limits.{name}").items()}
    window = section.get("window_s", 60.0)
    return Limits(
        requests=_whole(section.get("requests")),
        tokens=_whole(section.get("tokens")),
        window_s=float(cast(float, window)),
        concurrent=_whole(section.get("concurrent")),
        money_micro=_whole(section.get("money_micro")),
    )


def prices_of(settings: Settings, models: Mapping[str, tuple[str, str]]) -> PriceTable:
    """The prices of ``[prices.NAME]``, where NAME is a declared model's; each has a version by its numbers.

    Args:
        settings: of the active profile.
        models: the provider and the engine's own name of each declared model.

    Raises:
        ConfigError: MS-3028, a price is for no declared model.
    """
    found = []
    for name in _named(settings, "prices"):
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


def _named(settings: Settings, section: str) -> list[str]:
    return list(dict.fromkeys(key.split(".")[1] for key in settings.values if key.startswith(f"{section}.")))


def _whole(value: object) -> int | None:
    return None if value is None else int(cast(int, value))
