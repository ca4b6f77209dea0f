"""A serving process: listeners over its state, and the tasks that keep the state up to date."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, cast

import uvloop

from mainspring.assistants.run_log import RunLog
from mainspring.assistants.trace import RunRecord
from mainspring.catalog.ids import now_us
from mainspring.choose.report import conditions_report
from mainspring.choose.services import Services
from mainspring.config.settings import DEV_DEFAULT, Settings
from mainspring.declare.assistant import AssistantEndpoint
from mainspring.declare.declaration import spec_of
from mainspring.declare.identity import ANYONE, Identity
from mainspring.errors import ConfigError, MainspringError, UserCodeError
from mainspring.llm.call_log import CallLog
from mainspring.llm.stored import StoredResponses
from mainspring.monitoring.stats.decide import Finding
from mainspring.plan.graph import Plan
from mainspring.ports.llm import Usage
from mainspring.protocols.actuator.rest import Actuator, add_actuator_routes
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
from mainspring.protocols.oip.generate import add_generate_routes
from mainspring.protocols.openapi.rest import add_openapi_route
from mainspring.protocols.retrieval.rest import add_retrieval_routes
from mainspring.protocols.retrieval.vector_indexes import add_vector_index_routes
from mainspring.server.answering.assistants import Assistants, assistants_of
from mainspring.server.answering.language import Language, bearers_of, keys_of
from mainspring.server.answering.outside import close_all, outside_of
from mainspring.server.answering.records import recorder_of
from mainspring.server.answering.talking import Talking
from mainspring.server.answering.watching import AnswerMonitors, run_log_path
from mainspring.server.features.feast import FeastVectors
from mainspring.server.features.labels import read_labels
from mainspring.server.grpc.listening import GrpcListening
from mainspring.server.health import health_of
from mainspring.server.http.asgi import AsgiApp, Limits, Listener
from mainspring.server.http.azure_script import EntryScript, entry_script
from mainspring.server.http.bounds import Bounds
from mainspring.server.http.callers import Callers, callers_of, digest_of
from mainspring.server.http.cors import cors_of
from mainspring.server.http.described import described_limits, shapes_of
from mainspring.server.http.guard import guard, identify
from mainspring.server.http.host import Bound, bind, run_listeners
from mainspring.server.http.listening import (
    default_model,
    exposed_pages,
    management_keys,
    origin_of_setting,
    served_protocols,
)
from mainspring.server.http.rates import rates_of
from mainspring.server.http.wires import CHANGED, MANAGED, ModelWires
from mainspring.server.loop import online_views
from mainspring.server.rollouts.drive import Rollouts
from mainspring.server.schedules import Schedules
from mainspring.server.state import WorkerState
from mainspring.server.tls import context_of
from mainspring.server.workers.link import WorkerPlace
from mainspring.serving.inference import ServedModels

__all__ = ["MakeConsole", "ServerProcess"]

_ALIAS_SECONDS = 0.25
_SWEEP_SECONDS = 60.0
_ROLLOUT_SECONDS = 1.0
"""How often rollouts are looked at."""
_UNUSED_SECONDS = 3600.0
_FOLLOW_SECONDS = 0.5
"""How often vector indexes look for rows that came: pushes that come between are taken together."""
_PUBLISH_SECONDS = 0.5
"""How often a worker writes down what others show of it, and cannot count when it happens."""
_COUNTED = 4096
"""The most kinds of request whose counters are kept at hand."""
_MANAGED = 256
"""The most requests under way at once at the management listener."""
_OF_MODELS = frozenset({"infer", "predict", "predictions", "invoke"})
"""The routes whose path begins with a model's name."""
_INFLIGHT = "mainspring_inflight_requests"
"""By which an autoscaler tells how busy a replica is."""
_OF_ENDPOINTS = frozenset({"endpoint", "batch"})
"""Those whose path begins with an endpoint's."""

_Add = Callable[[float], None]
Ask = Callable[[str, bytes], Any]
MakeConsole = Callable[[WorkerState, Ask, Talking], AsgiApp]
"""Builds the console over the state; given by whoever may know the console."""


@dataclass(frozen=True, slots=True)
class _NativeLimits:
    rows: int
    replay: bool


class ServerProcess:
    """The production server, and in ``dev`` the console beside it.

    Args:
        services: the project's ports.
        plan: the app's graph.
        console: builds the console, or None.
        told: told what a person should know, a line at a time.
        only: the names of the endpoints to serve, with their models; empty is all of them.
        place: which of the server's workers it is; None is a process by itself.

    Attributes:
        serving: set when the listeners answer and signals are taken.
        interrupted: whether Ctrl-C stopped it before all endpoints had a model to answer with.
    """

    def __init__(
        self,
        services: Services,
        plan: Plan,
        *,
        console: MakeConsole | None = None,
        told: Callable[[str], None] = lambda line: None,
        only: Sequence[str] = (),
        place: WorkerPlace | None = None,
    ) -> None:
        self.services = services
        self.plan = plan
        self._place = place
        self._leads = place is None or place.number == 0
        self._moved: set[str] = set()
        if not self._leads and place is not None:
            prefix = f"worker {place.number}: "
            self._told: Callable[[str], None] = lambda line: told(prefix + line)
        else:
            self._told = told
        self._console = console
        self._settings = services.settings
        number, workers = (0, 1) if place is None else (place.number, place.workers)
        self.state = WorkerState(services, plan, number, only, workers)
        self.rollouts = Rollouts(
            services, plan, self.state.loading, self.state.models, self.state.metrics, told, now_us
        )
        self._only = frozenset(only)
        self._calls = services.state / "log" / "calls.db"
        self._recorder = recorder_of(services, self._calls, plan.app, told)
        self.language = Language(services, plan, told, self._recorder)
        self.assistants: Assistants = {}
        self._outside = outside_of(plan, self._settings, told)
        self.runs = RunLog(
            run_log_path(services),
            price=self._price,
            shares=_shares(plan),
            told=told,
            trace_days=self._settings.number("traces.days"),
            most_traces=self._settings.whole("traces.most"),
        )
        self._answers: AnswerMonitors | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._routes: dict[tuple[str, tuple[str, ...], int], tuple[_Add, _Add]] = {}
        self._bound: list[Bound] = []
        self._management: Bound | None = None
        self._grpc: GrpcListening | None = None
        self._router = Router()
        self._script: EntryScript | None = None
        self.serving = threading.Event()
        self.interrupted = False

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; returns when everything is drained and sealed.

        Raises:
            ConfigError: MS-3016, MS-3017, a port cannot be bound; MS-3021, the management listener needs a token;
                MS-3022, a page of the actuator that is none is exposed; MS-3023, a key is empty; MS-3024, the
                console is enabled and the management listener is not; MS-3101, MS-3102, a protocol or a model of
                the settings is none; MS-3103, Azure ML's entry script is not there.
            UserCodeError: MS-2520, the entry script does not start.
        """
        callers = callers_of(self._settings, self._told)
        self.state.open()
        self.assistants = assistants_of(
            self.services,
            self.plan,
            self.language.inner,
            self.state.knowledge.searchers,
            lambda: self.state.endpoints,
            online_views(self.services, self.plan),
            self._outside,
            self.runs,
        )
        self._answers = AnswerMonitors(self.services, self.plan, self.runs, self._show)
        try:
            if self.state.pushing is not None:
                self.state.pushing.start()
            self._bound = self._listeners(callers)
            if callers.tokens is not None:
                callers.tokens.issuer.start()
            uvloop.run(self._serve(self._bound))
        finally:
            if callers.tokens is not None:
                callers.tokens.issuer.stop()
            if self._script is not None:
                self._script.close()
            self.runs.close()
            self.state.close()

    def _price(self, record: RunRecord) -> int | None:
        """What a run costs, in micro-units, by the price of its assistant's model or of the model that answered."""
        usage, assistant = record.answer.usage, self.assistants.get(record.assistant)
        if usage is None:
            return None
        model = record.assistant if assistant is None else assistant.settings.model
        tokens = Usage(usage.prompt, usage.completion, cached=usage.cached)
        return self.language.cost_micro(model, tokens, record.at_us * 1000)

    def _show(self, monitor: str, findings: Sequence[Finding]) -> None:
        self.state.monitors.show(monitor, "", findings)

    def ports(self) -> dict[str, int]:
        """The port of each listener, by its name; empty before `run`."""
        return {bound.name: bound.port for bound in self._bound}

    def _listeners(self, callers: Callers) -> list[Bound]:
        settings = self._settings
        router = self._router
        most = settings.whole("server.max_rows")
        endpoints, metrics, app = (lambda: self.state.endpoints), self.state.metrics, self.plan.app
        default, timeout = default_model(settings, self.state.names()), settings.number("server.timeout")
        loading = self.state.loading
        models = ServedModels(self.state.models, endpoints, loading, metrics, app, most, now_us, default, timeout)
        server, page = ("mainspring", _version()), self.state.metrics_page
        self._script = entry_script(os.environ, self._told)
        wires = ModelWires(models, settings, self._ready, server, page, self.state, os.environ, self._script)
        beside = Router()
        wires.add_routes(router, beside)
        limited = _NativeLimits(most, settings.flag("serving.replay"))
        add_native_routes(
            router,
            endpoints,
            self.state.push,
            self.state.take_labels,
            limited,
            now_us,
            asyncio.to_thread,
            read_labels,
        )
        if self.state.feature_services:
            add_feature_routes(
                router,
                lambda: self.state.feature_services,
                limited,
                now_us,
                asyncio.to_thread,
                waits=self.state.waits,
            )
        described = described_limits(settings, keys=bool(callers))
        add_openapi_route(router, lambda: shapes_of(self.state, app, server[1]), described)
        if (feast := self.state.feast()) is not None:
            add_feast_routes(router, feast, asyncio.to_thread)
        native = native_services(
            lambda: self.state.feature_services,
            self.state.push if self.state.sources else None,
            limited,
            now_us,
            asyncio.to_thread,
            waits=self.state.waits,
        )
        rates, refused = rates_of(settings), self._count_refused
        self._grpc = GrpcListening(
            settings,
            models,
            feast,
            wires,
            self._ready,
            server,
            callers,
            metrics,
            app,
            self._told,
            self._fault,
            native,
            rates=rates,
            refused=refused,
        )
        knowledge, who = self.state.knowledge, identify(callers)
        add_retrieval_routes(router, knowledge.searchers, knowledge.described, who, asyncio.to_thread)
        near = self.state.vector_indexes
        add_vector_index_routes(router, near.searchers, near.described, asyncio.to_thread)
        if feast is not None and near.searchers:
            add_feast_document_routes(router, FeastVectors(near.searchers, feast.service), asyncio.to_thread)
        self._add_language(router, beside, who, callers)
        limits = Limits(settings.whole("server.max_body"), settings.number("server.timeout"))
        let_in = guard(
            callers,
            settings.whole("server.queue"),
            lambda: main.open,
            besides=wires.manages,
            rates=rates,
            refused=refused,
        )
        cors = cors_of(settings)
        main = Listener(router, limits, guard=let_in, cors=cors, watch=self._count, on_error=self._fault)
        self.state.metrics.gauge_from(_INFLIGHT, lambda: {(("app", self.plan.app),): float(main.open)})
        found = [_bind("server", main, settings, shared=self._place is not None)]
        if not self._leads:
            return found
        if settings.flag("management.enabled"):
            self._management = self._bind_management(settings, limits, wires)
            found.append(self._management)
        elif (
            self._leads
            and settings.flag("console.enabled")
            and origin_of_setting(settings, "console.enabled") != DEV_DEFAULT
        ):
            raise ConfigError(
                "the console has no listener to be shown on",
                code="MS-3024",
                why="console.enabled is true and management.enabled is false",
                origin=origin_of_setting(settings, "console.enabled"),
                fix="management.enabled = true, or console.enabled = false",
            )
        return found

    def _add_language(
        self, router: Router, beside: Router, who: Callable[[Request], Identity], callers: Callers
    ) -> None:
        """The wires of assistants, of language models and of MCP, as far as the app has any of these.

        Those that share a path with models' are found in `beside` by the wire that answers for both.
        """
        shown = self._shown_assistants()
        searchers = self.state.knowledge.searchers
        if shown or searchers:
            offer = Offer(lambda: searchers, lambda: shown)
            add_mcp_routes(router, McpServer(offer, self.plan.app, _version(), self._fault), who)
        if not self.language:
            return
        kept = StoredResponses(self.services.state / "log" / "responses.db", time.time)
        gateway, models = self.language.outer(keys_of(self._settings), others=bearers_of(callers)), Router()
        add_llm_routes(models, gateway, kept)
        if "oip" in served_protocols(self._settings):
            add_generate_routes(router, gateway)
        if shown:
            add_assistant_routes(router, lambda: shown, who)
        for spoken in (router, beside):
            if shown:
                add_assistant_models(spoken, lambda: shown, who, time.time, models)
            add_llm_routes(spoken, gateway, kept)

    def _shown_assistants(self) -> Assistants:
        """The assistants that have an endpoint, by the endpoint's name."""
        nodes = self.plan.of_kind("endpoint", over="assistant")
        return {
            node.name: self.assistants[node.inputs[0].rpartition("/")[2]]
            for node in nodes
            if not self._only or node.name in self._only
        }

    def _bind_management(self, settings: Settings, limits: Limits, wires: ModelWires) -> Bound:
        router = Router()
        actuator = Actuator(
            lambda: health_of(self.state, self._outside),
            ("models", "catalog"),
            self._info,
            lambda: conditions_report(settings),
            self.state.metrics_page,
            lambda: self._management.url if self._management is not None else "",
            self.rollouts.described,
        )
        add_actuator_routes(router, actuator, exposed_pages(settings))
        wires.add_management_routes(router)
        mounts: tuple[tuple[str, AsgiApp], ...] = ()
        if self._console is not None and settings.flag("console.enabled"):
            mounts = (("/", self._console(self.state, self._ask, self._talking())),)
        token = Callers([(digest_of(key), ANYONE) for key in management_keys(settings)])
        listener = Listener(
            router,
            limits,
            mounts=mounts,
            owned=("/actuator", *MANAGED),
            changed=CHANGED,
            guard=guard(token, _MANAGED, lambda: listener.open, passwords=True),
            on_error=self._fault,
        )
        return _bind("management", listener, settings)

    def _talking(self) -> Talking:
        searchers = self.state.knowledge.searchers
        return Talking(self.language, self.assistants, searchers, self.runs, CallLog(self._calls))

    async def _serve(self, listeners: Sequence[Bound]) -> None:
        async def started() -> None:
            await self._start_grpc()
            self.serving.set()
            for bound in listeners:
                self._told(f"{bound.name:<11} {bound.url}")
            if not self.state.ready():
                self._told("not ready: an endpoint's model has no champion yet")
            self._recorder.start()
            self._tasks.append(asyncio.create_task(self.language.start()))
            for outside in self._outside.values():
                outside.start()
            self._keep_up()
            if self._place is not None:
                self._place.link.answers()

        async def stopping() -> None:
            self.state.vector_indexes.stop()
            for task in self._tasks:
                task.cancel()
            for task in self._tasks:
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            await self._stop_answering()
            await close_all(self._outside.values())
            await self.language.stop(self._settings.number("server.drain"))
            await asyncio.to_thread(self._recorder.stop)

        def asked(number: int) -> None:
            self.interrupted = self.interrupted or (number == signal.SIGINT and not self.state.ready())
            self._drain_grpc()

        await run_listeners(listeners, self._settings.number("server.drain"), started, stopping, asked)

    def _keep_up(self) -> None:
        """Begin what is done again and again beside answering."""
        seconds = self._settings.number("monitoring.every")
        actions: list[tuple[float, Callable[[], object]]] = [
            (_ALIAS_SECONDS, self._refresh),
            (_FOLLOW_SECONDS, self.state.vector_indexes.follow),
        ]
        if self._place is not None:
            actions.append((_PUBLISH_SECONDS, self.state.publish_metrics))
        if not self._leads:  # one worker alone judges, keeps the timetables, drives rollouts and sweeps
            self._tasks += [asyncio.create_task(self._every(pause, action)) for pause, action in actions]
            return
        actions += [
            (seconds, self.state.monitor_once),
            (seconds, self._watch_answers),
            (seconds, self.state.replay_once),
        ]
        if not self.state.tried:
            actions += [
                (1.0, Schedules(self.services, self.plan).fire),
                (_UNUSED_SECONDS, self.state.sweep_once),
                (_ROLLOUT_SECONDS, self.rollouts.once),
                (seconds, self.rollouts.compact),
            ]
        self._tasks.append(asyncio.create_task(self._sweep()))
        self._tasks += [asyncio.create_task(self._every(pause, action)) for pause, action in actions]

    def _drain_grpc(self) -> None:
        if self._grpc is not None:
            self._grpc.drain()

    async def _start_grpc(self) -> None:
        if self._grpc is not None:
            await self._grpc.start(shared=self._place is not None)

    async def _stop_answering(self) -> None:
        if self._grpc is not None:
            await self._grpc.stop()
        for assistant in self.assistants.values():
            await assistant.close()

    def _ready(self) -> bool:
        """Whether to send requests here: all endpoints can answer, and nobody has asked the server to stop."""
        able = self.state.ready() and self.language.ready()
        return able and not any(bound.listener.draining for bound in self._bound)

    def _watch_answers(self) -> None:
        if self._answers is not None:
            self._answers.once()

    def _refresh(self) -> None:
        together = self.state.together
        for name in self.state.refresh():
            live = self.state.models.get(name)
            self._told(f"model {name} version {live.version if live else '?'} answers now")
            if together is not None and self._leads:
                self._moved.add(name)
        for name in tuple(self._moved):
            live = self.state.models.get(name)
            if together is not None and live is not None and together.everywhere(name, live.version):
                self._moved.discard(name)
                self._told(f"model {name} version {live.version} answers in all workers")
        for line in self.language.prompts.refresh():
            self._told(line)

    async def _sweep(self) -> None:
        """Delete the threads of assistants whose time is over."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            for name, assistant in self.assistants.items():
                try:
                    await assistant.sweep()
                except MainspringError as error:
                    self._told(f"assistant {name}: {error.lines()}")

    async def _every(self, seconds: float, action: Callable[[], object]) -> None:
        """Call something in a thread again and again; a fault is told, and the next call tries again."""
        while True:
            try:
                await asyncio.to_thread(action)
            except MainspringError as error:
                self._told(error.lines())
            except Exception as error:
                self._told(f"{getattr(action, '__name__', 'task')}: {type(error).__name__}: {error}")
            await asyncio.sleep(seconds)

    def _count(self, request: Request | None, name: str, status: int, seconds: float) -> None:
        asked = request.parameters[:1] if request is not None else ()
        found = self._routes.get((name, asked, status))
        if found is None:
            labels = {"app": self.plan.app, "route": name} | self._asked(name, asked)
            add = self.state.metrics.counter("mainspring_requests_total", code=str(status), **labels)
            observe = self.state.metrics.histogram("mainspring_request_seconds", **labels)
            found = (add, observe)
            if len(self._routes) < _COUNTED:
                self._routes[name, asked, status] = found
        found[0](1.0)
        found[1](seconds)

    def _count_refused(self, why: str) -> None:
        self.state.metrics.counter("mainspring_refused_total", app=self.plan.app, reason=why)(1.0)

    def _asked(self, route: str, asked: tuple[str, ...]) -> dict[str, str]:
        """What a request was for, as labels: only names that there are, so that clients make up no series."""
        if route in _OF_ENDPOINTS and asked and asked[0] in self.state.endpoints:
            return {"endpoint": asked[0]}
        model = asked[0].partition(":")[0] if asked else ""
        if route in _OF_MODELS and self.state.models.get(model) is not None:
            return {"model": model}
        return {}

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
            "build": {"name": self.plan.app, "version": _version()},
            "process": {"pid": os.getpid(), "parentPid": os.getppid()},
            "mainspring": {"profile": self._settings.profile, "nodes": len(self.plan.nodes)},
        }


def _shares(plan: Plan) -> Mapping[str, float]:
    """The share of each assistant's runs whose traces are kept: ``log=`` of its endpoint."""
    nodes = plan.of_kind("endpoint", over="assistant")
    return {node.inputs[0].rpartition("/")[2]: spec_of(cast(AssistantEndpoint, node.declaration)).log for node in nodes}


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
