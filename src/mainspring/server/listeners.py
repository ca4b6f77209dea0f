"""The listeners of a serving process: which routes each has, who may use them, and where they are bound."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from mainspring.assistants.outside import Outside
from mainspring.assistants.run_log import RunLog
from mainspring.catalog.ids import now_us
from mainspring.config.settings import DEV_DEFAULT, Settings
from mainspring.declare.identity import ANYONE
from mainspring.errors import ConfigError, MainspringError, UserCodeError
from mainspring.llm.call_log import CallLog
from mainspring.llm.gateway import Gateway
from mainspring.llm.stored import StoredResponses
from mainspring.protocols.actuator.rest import add_actuator_routes
from mainspring.protocols.actuator.runtime import Exchanges, moment
from mainspring.protocols.assistants.openai import add_assistant_models
from mainspring.protocols.assistants.rest import add_assistant_routes
from mainspring.protocols.feast.documents import add_feast_document_routes
from mainspring.protocols.feast.rest import add_feast_routes
from mainspring.protocols.http import Request, Router, error_response
from mainspring.protocols.llm.mount import add_llm_routes
from mainspring.protocols.mcp.rest import add_mcp_routes
from mainspring.protocols.mcp.server import McpServer
from mainspring.protocols.mcp.tools import Offer
from mainspring.protocols.native.features import add_feature_routes
from mainspring.protocols.native.grpc import native_services
from mainspring.protocols.native.rest import add_native_routes
from mainspring.protocols.native.scorings import add_scoring_routes
from mainspring.protocols.oip.generate import add_generate_routes
from mainspring.protocols.openapi.rest import add_openapi_route
from mainspring.protocols.retrieval.rest import add_retrieval_routes
from mainspring.protocols.retrieval.vector_indexes import add_vector_index_routes
from mainspring.server.answering.assistants import Assistants
from mainspring.server.answering.caches import AnswerCaches
from mainspring.server.answering.language import Language, bearers_of
from mainspring.server.answering.talking import Talking
from mainspring.server.counting import RequestCounts
from mainspring.server.features.feast import FeastVectors
from mainspring.server.features.labels import read_labels
from mainspring.server.grpc.listening import GrpcListening
from mainspring.server.health import health_of
from mainspring.server.http.asgi import AsgiApp, Limits, Listener
from mainspring.server.http.azure_script import EntryScript, entry_script
from mainspring.server.http.bounds import Bounds
from mainspring.server.http.callers import Callers, digest_of
from mainspring.server.http.cors import cors_of
from mainspring.server.http.described import described_limits, shapes_of
from mainspring.server.http.guard import authorized, guard, identify
from mainspring.server.http.host import Bound, bind
from mainspring.server.http.listening import (
    default_model,
    exposed_pages,
    management_keys,
    origin_of_setting,
    served_protocols,
)
from mainspring.server.http.rates import Rates
from mainspring.server.http.resource import resource_of
from mainspring.server.http.shared_pages import pages_or_answers
from mainspring.server.http.wires import CHANGED, MANAGED, ModelWires
from mainspring.server.management.pages import Managed, actuator_pages
from mainspring.server.management.registering import Instance, Registration
from mainspring.server.management.starting import Startup
from mainspring.server.rollouts.drive import Rollouts
from mainspring.server.state import WorkerState
from mainspring.server.tls import context_of
from mainspring.serving.inference import ServedModels
from mainspring.serving.together import Turn
from mainspring.serving.tracing import Tracing

__all__ = ["Ask", "Listeners", "MakeConsole", "Served"]

_MANAGED = 256
"""The most requests under way at once at the management listener."""
_INFLIGHT = "mainspring_inflight_requests"
"""By which an autoscaler tells how busy a replica is."""

Ask = Callable[[str, bytes], Any]
MakeConsole = Callable[[WorkerState, Ask, Talking], AsgiApp]
"""Builds the console over the state; given by whoever may know the console."""


class Served(msgspec.Struct, frozen=True):
    """What the listeners of a process answer with.

    Attributes:
        state: its models, endpoints and features.
        rollouts: the driver of its models' versions.
        language: its language models.
        assistants: all of them, by name.
        shown: those that have an endpoint, by the endpoint's name.
        outside: the MCP servers that assistants use.
        runs: the assistants' runs.
        calls: the file of the language models' calls.
        startup: the steps of the start.
        upkeep: what is done again and again, with its pause in seconds.
        tracing: makes spans of requests; None makes none.
    """

    state: WorkerState
    rollouts: Rollouts
    language: Language
    assistants: Assistants
    shown: Assistants
    outside: Mapping[str, Outside]
    runs: RunLog
    calls: Path
    startup: Startup
    upkeep: Callable[[], Sequence[tuple[str, float]]]
    tracing: Tracing | None = None

    def talking(self) -> Talking:
        """What the console asks assistants with."""
        searchers = self.state.knowledge.searchers
        return Talking(self.language, self.assistants, searchers, self.runs, CallLog(self.calls))


class _NativeLimits(msgspec.Struct, frozen=True):
    rows: int
    replay: bool


class Listeners:
    """Binds the listeners of one process.

    Args:
        served: what they answer with.
        callers: who may ask.
        rates: how often each may, over HTTP and gRPC together; None is no limit.
        console: builds the console, or None.
        told: told what a person should know, a line at a time.
        shared: whether other workers listen at the same port.
        leads: whether the management listener is this process's.

    Attributes:
        bound: those of HTTP; empty before `bind`.
    """

    def __init__(
        self,
        served: Served,
        callers: Callers,
        rates: Rates | None,
        *,
        console: MakeConsole | None,
        told: Callable[[str], None],
        shared: bool,
        leads: bool,
    ) -> None:
        self.bound: list[Bound] = []
        self._served = served
        self._state = served.state
        self._settings = served.state.services.settings
        self._app = served.state.plan.app
        self._callers = callers
        self._console = console
        self._told = told
        self._shared = shared
        self._leads = leads
        self._counts = RequestCounts(served.state)
        self._rates = rates
        self._router = Router()
        self._turn = Turn()
        self._management: Bound | None = None
        self._grpc: GrpcListening | None = None
        self._script: EntryScript | None = None
        self._models: ServedModels | None = None
        self._gateway: Gateway | None = None
        self._caches = AnswerCaches(self._app, served.language, lambda: self._gateway)
        self._registration: Registration | None = None
        self._exchanges = Exchanges(time.time, lambda: self.bound[0].url if self.bound else "")

    def bind(self) -> None:
        """Bind the ports of HTTP, and make the listener of gRPC.

        Raises:
            ConfigError, UserCodeError: as `ServerProcess.run`.
        """
        settings, beside = self._settings, Router()
        limits = Limits(settings.whole("server.max_body"), settings.number("server.timeout"))
        wires = self._add_models(beside)
        self._add_features()
        self._add_language(beside)
        main = self._main(limits, wires)
        self._state.metrics.gauge_from(_INFLIGHT, lambda: {(("app", self._app),): float(main.open)})
        self.bound.append(_bind("server", main, settings, shared=self._shared))
        if not self._leads:
            return
        if settings.flag("management.enabled"):
            self._management = _bind("management", self._manager(limits, wires), settings)
            self.bound.append(self._management)
        elif (origin := origin_of_setting(settings, "console.enabled")) != DEV_DEFAULT and settings.flag(
            "console.enabled"
        ):
            raise ConfigError(
                "the console has no listener to be shown on",
                code="MS-3024",
                why="console.enabled is true and management.enabled is false",
                origin=origin,
                fix="management.enabled = true, or console.enabled = false",
            )

    def register(self) -> None:
        """Become known to a Spring Boot Admin, where one is set."""
        self._registration = self._registered()
        if self._registration is not None:
            self._registration.start()

    def take_out(self) -> None:
        """Be known to it no more."""
        if self._registration is not None:
            self._registration.stop()

    def _registered(self) -> Registration | None:
        settings, management = self._settings, self._management
        admin = settings.text("management.admin.url")
        if admin is None or management is None:
            return None
        user, password = settings.text("management.admin.user"), settings.secret("management.admin.password")
        metadata = {"startup": moment(time.time())}
        if settings.flag("management.admin.share_token") and (keys := management_keys(settings)):
            metadata |= {"user.name": "mainspring", "user.password": keys[0].decode()}
        instance = Instance(
            settings.text("management.admin.name") or self._app,
            settings.text("management.admin.service_url") or self.bound[0].url,
            (settings.text("management.admin.management_url") or management.url).rstrip("/") + "/actuator",
            metadata,
        )
        return Registration(admin, instance, (user, password or "") if user else None, self._told)

    async def start_grpc(self) -> None:
        """Answer over gRPC, if anything is served there."""
        if self._grpc is not None:
            await self._grpc.start(shared=self._shared)

    def drain_grpc(self) -> None:
        """Let gRPC's callers know that the process is about to end."""
        if self._grpc is not None:
            self._grpc.drain()

    async def stop_grpc(self) -> None:
        """End gRPC when its calls have been answered."""
        if self._grpc is not None:
            await self._grpc.stop()

    def close(self) -> None:
        """End what the routes hold."""
        if self._script is not None:
            self._script.close()

    def _ready(self) -> bool:
        """Whether to send requests here: all endpoints can answer, and nobody has asked the server to stop."""
        able = self._state.ready() and self._served.language.ready()
        return able and not any(bound.listener.draining for bound in self.bound)

    def _main(self, limits: Limits, wires: ModelWires) -> Listener:
        settings = self._settings
        let_in = guard(
            self._callers,
            settings.whole("server.queue"),
            lambda: listener.open,
            besides=wires.manages,
            rates=self._rates,
            refused=self._counts.refused,
        )
        if (resource := resource_of(settings)) is not None:
            let_in = resource.guarding(let_in)
        listener = Listener(
            self._router,
            limits,
            guard=let_in,
            cors=cors_of(settings),
            tracing=self._served.tracing,
            turn=self._turn,
            watch=self._count if self._leads and "httpexchanges" in exposed_pages(settings) else self._counts.count,
            on_error=self._fault,
        )
        return listener

    def _add_models(self, beside: Router) -> ModelWires:
        """The wires of models over HTTP and gRPC, and of endpoints, sources and the feature store over gRPC."""
        settings, state, server = self._settings, self._state, ("mainspring", _version())
        default, timeout = default_model(settings, state.names()), settings.number("server.timeout")
        most = settings.whole("server.max_rows")
        models = self._models = ServedModels(
            state.models,
            lambda: state.endpoints,
            state.loading,
            state.metrics,
            self._app,
            most,
            now_us,
            default,
            timeout,
            self._turn,
        )
        self._counts.tell(models, served_protocols(settings))
        self._script = entry_script(os.environ, self._told)
        wires = ModelWires(models, settings, self._ready, server, state.metrics_page, state, os.environ, self._script)
        wires.add_routes(self._router, beside)
        described = described_limits(settings, keys=bool(self._callers))
        add_openapi_route(self._router, lambda: shapes_of(state, self._app, server[1]), described)
        native = native_services(
            lambda: state.feature_services,
            state.push if state.sources else None,
            self._native_limits(),
            now_us,
            asyncio.to_thread,
            waits=state.waits,
        )
        self._grpc = GrpcListening(
            settings,
            models,
            state.feast(),
            wires,
            self._ready,
            server,
            self._callers,
            state.metrics,
            self._app,
            self._told,
            self._fault,
            native,
            rates=self._rates,
            refused=self._counts.refused,
            tracing=self._served.tracing,
        )
        return wires

    def _native_limits(self) -> _NativeLimits:
        return _NativeLimits(self._settings.whole("server.max_rows"), self._settings.flag("serving.replay"))

    def _add_features(self) -> None:
        """The routes of endpoints, pushes and labels, of features, of documents and of vectors."""
        router, state, limited = self._router, self._state, self._native_limits()
        add_native_routes(
            router,
            lambda: state.endpoints,
            state.push,
            state.take_labels,
            limited,
            now_us,
            asyncio.to_thread,
            read_labels,
        )
        if state.feature_services:
            add_feature_routes(
                router, lambda: state.feature_services, limited, now_us, asyncio.to_thread, waits=state.waits
            )
        knowledge, near, who = state.knowledge, state.vector_indexes, identify(self._callers)
        add_retrieval_routes(router, knowledge.searchers, knowledge.described, who, asyncio.to_thread)
        add_vector_index_routes(router, near.searchers, near.described, asyncio.to_thread)
        if (feast := state.feast()) is None:
            return
        add_feast_routes(router, feast, asyncio.to_thread)
        if near.searchers:
            add_feast_document_routes(router, FeastVectors(near.searchers, feast.service), asyncio.to_thread)

    def _add_language(self, beside: Router) -> None:
        """The wires of assistants, of language models and of MCP, as far as the app has any of these.

        Those that share a path with models' are found in `beside` by the wire that answers for both.
        """
        router, settings, shown, language = self._router, self._settings, self._served.shown, self._served.language
        searchers, who = self._state.knowledge.searchers, identify(self._callers)
        if shown or searchers:
            server = McpServer(Offer(lambda: searchers, lambda: shown), self._app, _version(), self._fault)
            if (resource := resource_of(settings)) is None:
                add_mcp_routes(router, server, who)
            else:
                add_mcp_routes(router, server, who, scopes=resource.scopes, pointer=resource.pointer)
                resource.add_routes(router)
        if not language:
            return
        kept = StoredResponses(self._state.services.state / "log" / "responses.db", time.time)
        models = Router()
        gateway = language.outer(others=bearers_of(self._callers))
        self._gateway = gateway
        self._caches.count(self._state.metrics)
        add_llm_routes(models, gateway, kept)
        if "oip" in served_protocols(settings):
            add_generate_routes(router, gateway)
        if shown:
            add_assistant_routes(router, lambda: shown, who)
        for spoken in (router, beside):
            if shown:
                add_assistant_models(spoken, lambda: shown, who, time.time, models)
            add_llm_routes(spoken, gateway, kept)

    def _manager(self, limits: Limits, wires: ModelWires) -> Listener:
        router, settings, state = Router(), self._settings, self._state
        token = Callers([(digest_of(key), ANYONE) for key in management_keys(settings)])
        add_actuator_routes(
            router,
            actuator_pages(self._managed(router, token)),
            exposed_pages(settings),
            settings.text("management.access") or "",
            lambda: self._management.url if self._management is not None else "",
        )
        wires.add_management_routes(router)
        add_scoring_routes(router, state.scorings, limits.body, asyncio.to_thread)
        mounts: tuple[tuple[str, AsgiApp], ...] = ()
        if self._console is not None and settings.flag("console.enabled"):
            pages = self._console(state, self._ask, self._served.talking())
            answers = Listener(router, limits, on_error=self._fault)
            mounts = (("/", pages_or_answers(pages, answers, router, *CHANGED)),)
        listener = Listener(
            router,
            limits,
            mounts=mounts,
            owned=("/actuator", "/scorings", *MANAGED),
            changed=CHANGED,
            guard=guard(token, _MANAGED, lambda: listener.open, passwords=True),
            on_error=self._fault,
        )
        return listener

    def _managed(self, router: Router, token: Callers) -> Managed:
        """What the actuator shows."""
        state = self._state
        assert self._models is not None
        return Managed(
            state,
            self._models,
            self._served.rollouts.described,
            lambda: health_of(state, self._served.outside),
            self._info,
            lambda: {"server": self._router.routes(), "management": router.routes()},
            self._caches.named,
            self._exchanges,
            self._served.startup,
            state.levels,
            lambda request: not token or authorized(token, request),
            self._served.upkeep,
        )

    def _count(self, request: Request | None, name: str, status: int, seconds: float, sent: int) -> None:
        self._counts.count(request, name, status, seconds, sent)
        self._exchanges.add(request, name, status, seconds)

    def _fault(self, error: Exception) -> None:
        if not isinstance(error, MainspringError):
            self._told(f"internal error: {type(error).__name__}: {error}")
        elif isinstance(error, UserCodeError):
            self._told(error.lines())

    async def _ask(self, endpoint: str, body: bytes) -> tuple[int, bytes]:
        """What HTTP would answer, without HTTP; for the console's form."""
        try:
            handler, path, stars = self._router.find("POST", f"/endpoint/{endpoint}".encode())
            headers: Mapping[bytes, bytes] = MappingProxyType({})
            response = await handler(Request("POST", path, b"features=true", headers, body, stars))
        except Exception as error:
            response = error_response(error)
        return response.status, response.body

    def _info(self) -> Mapping[str, object]:
        return {
            "build": {"name": self._app, "version": _version()},
            "process": {"pid": os.getpid(), "parentPid": os.getppid()},
            "mainspring": {"profile": self._settings.profile, "nodes": len(self._state.plan.nodes)},
        }


def _version() -> str:
    return importlib.metadata.version("mainspring")


def _bind(name: str, listener: Listener, settings: Settings, *, shared: bool = False) -> Bound:
    host = settings.text(f"{name}.host") or "127.0.0.1"
    bounds = Bounds(
        listener.body_as_sent,
        stall=settings.number("server.stall"),
        connections=settings.whole("server.connections"),
    )
    port, origin = settings.whole(f"{name}.port"), origin_of_setting(settings, f"{name}.port")
    return bind(name, listener, host, port, origin, bounds, context_of(settings, name), shared=shared)
