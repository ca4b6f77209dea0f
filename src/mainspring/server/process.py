"""A serving process: listeners over its state, and the tasks that keep the state up to date."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import uvloop
from msgspec.structs import replace

from mainspring.catalog.ids import new_id, now_us
from mainspring.choose.services import Services
from mainspring.llm.leases import LeasedAccounts
from mainspring.llm.limits import Accounts
from mainspring.llm.record import Recorder
from mainspring.monitoring.stats.decide import Finding
from mainspring.plan.graph import Plan
from mainspring.server.answering.assistants import Assistants, assistants_of
from mainspring.server.answering.budgets import Budgets, budgets_of
from mainspring.server.answering.language import Language, shown_models
from mainspring.server.answering.outside import close_all, outside_of
from mainspring.server.answering.records import calls_of, recorder_of, request_recorder, spent_of
from mainspring.server.answering.runs import run_log_of
from mainspring.server.answering.watching import AnswerMonitors
from mainspring.server.http.callers import callers_of
from mainspring.server.http.host import run_listeners
from mainspring.server.http.rates import Rates, rates_of
from mainspring.server.listeners import Listeners, MakeConsole, Served
from mainspring.server.loop import online_views
from mainspring.server.management.starting import Startup
from mainspring.server.rollouts.drive import Rollouts
from mainspring.server.state import WorkerState
from mainspring.server.tls import certificate_of
from mainspring.server.upkeep import Upkeep
from mainspring.server.workers.budgets import SharedAccounts
from mainspring.server.workers.link import WorkerPlace
from mainspring.server.workers.rates import SharedRates
from mainspring.serving.tracing import Tracing

__all__ = ["ServerProcess"]


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
        if not self._leads and place is not None:
            prefix = f"worker {place.number}: "
            self._told: Callable[[str], None] = lambda line: told(prefix + line)
        else:
            self._told = told
        self._console = console
        self._startup = Startup()
        self._settings = services.settings
        number, workers = (0, 1) if place is None else (place.number, place.workers)
        self.state = WorkerState(services, plan, number, only, workers)
        state = self.state
        self.rollouts = Rollouts(
            services, plan, state.loading, state.models, state.metrics, told, now_us, state.ledgers, state.lacking
        )
        self._only = frozenset(only)
        self._calls = calls_of(services)
        self._recorder = recorder_of(services, self._calls, plan.app, told, self._rejected("llm"))
        self._spans = request_recorder(services, plan.app, told, self._rejected("server"))
        self.language = Language(services, plan, told, self._recorder, self._budgets(number, workers))
        self.language.prompts.agree(self.state.board)
        self.assistants: Assistants = {}
        self._outside = outside_of(plan, self._settings, told)
        self.runs = run_log_of(services, plan, self.language, told)
        self._listeners: Listeners | None = None
        self._upkeep: Upkeep | None = None
        self.serving = threading.Event()
        self.interrupted = False

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT; returns when everything is drained and sealed.

        Raises:
            ConfigError: MS-4330 to MS-4332, as `certificate_of`; MS-3016, MS-3017, a port cannot be bound; MS-3021,
                the management listener needs a token; MS-3022, a page of the actuator that is none is exposed;
                MS-3023, a key is empty; MS-3024, the console is enabled and the management listener is not; MS-3101,
                MS-3102, a protocol or a model of the settings is none; MS-3103, Azure ML's entry script is not there.
            UserCodeError: MS-2520, the entry script does not start.
        """
        certificate_of(self._settings, "server")  # bound much later: what is wrong with it is told before models load
        callers, rates = callers_of(self._settings, self._told), self._rates()
        with self._startup.step("mainspring.models.load"):
            self.state.open()
        with self._startup.step("mainspring.assistants.open"):
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
        served = Served(
            self.state,
            self.rollouts,
            self.language,
            self.assistants,
            self._shown_assistants(),
            self._outside,
            self.runs,
            self._calls,
            self._startup,
            lambda: [] if self._upkeep is None else self._upkeep.described(),
            self._tracing(),
        )
        shared = self._place is not None
        listeners = Listeners(
            served, callers, rates, console=self._console, told=self._told, shared=shared, leads=self._leads
        )
        self._listeners = listeners
        try:
            if self.state.pushing is not None:
                self.state.pushing.start()
            with self._startup.step("mainspring.listeners.bind"):
                listeners.bind()
            if callers.tokens is not None:
                callers.tokens.issuer.start()
            uvloop.run(self._serve(listeners))
        finally:
            if callers.tokens is not None:
                callers.tokens.issuer.stop()
            listeners.close()
            self.runs.close()
            self.state.close()

    def ports(self) -> dict[str, int]:
        """The port of each listener, by its name; empty before `run`."""
        bound = self._listeners.bound if self._listeners is not None else []
        return {one.name: one.port for one in bound}

    def _shown_assistants(self) -> Assistants:
        """The assistants that have an endpoint, by the endpoint's name."""
        nodes = self.plan.of_kind("endpoint", over="assistant")
        return {
            node.name: self.assistants[node.inputs[0].rpartition("/")[2]]
            for node in nodes
            if not self._only or node.name in self._only
        }

    def _start_outside(self) -> None:
        for outside in self._outside.values():
            outside.start()

    async def _close_assistants(self) -> None:
        for assistant in self.assistants.values():
            await assistant.close()

    def _recorders(self) -> list[Recorder[Any]]:
        return [self._recorder] if self._spans is None else [self._recorder, self._spans]

    def _rejected(self, scope: str) -> Callable[[int], None]:
        """Counts the spans that a collector has not taken."""
        return self.state.metrics.counter("mainspring_spans_rejected_total", app=self.plan.app, scope=scope)

    def _tracing(self) -> Tracing | None:
        if self._spans is None:
            return None
        share = self._settings.number("telemetry.sample")
        return Tracing(self._spans.add, share, self._settings.number("telemetry.slow_ms") / 1e3)

    def _budgets(self, worker: int, workers: int) -> Budgets:
        """What callers, tenants and models may use: of all workers together, or of all servers."""
        found = budgets_of(self._settings, self.plan)
        shown: dict[str, list[str]] = {}
        for name, of, _ in shown_models(self.plan):
            shown.setdefault(f"model:{of}", []).append(name)
        spent = spent_of(self._calls, found.periods(), shown)
        place, store = self.state.budgets_file, self.services.budgets
        accounts = Accounts(time.time, spent)
        if store is not None:
            accounts = LeasedAccounts(time.time, store, self.plan.app, new_id(), self._told, spent)
        elif place is not None:
            accounts = SharedAccounts(time.time, place, workers, worker, spent)
        return replace(found, accounts=accounts)

    def _rates(self) -> Rates | None:
        """How often each caller may ask: all workers together."""
        place = self.state.rates_file
        return rates_of(self._settings) if place is None else rates_of(self._settings, partial(SharedRates, path=place))

    def _show(self, monitor: str, findings: Sequence[Finding]) -> None:
        self.state.monitors.show(monitor, "", findings)

    async def _serve(self, listeners: Listeners) -> None:
        answers = AnswerMonitors(self.services, self.plan, self.runs, self._show)
        upkeep = Upkeep(self.state, self.rollouts, self.assistants, answers, self.language, self._leads, self._told)
        self._upkeep = upkeep

        async def started() -> None:
            await listeners.start_grpc()
            self.serving.set()
            for bound in listeners.bound:
                self._told(f"{bound.name:<11} {bound.url}")
            if not self.state.ready():
                self._told("not ready: an endpoint's model has no champion yet")
            for recorder in self._recorders():
                recorder.start()
            self._start_outside()
            self.language.count()
            upkeep.start()
            listeners.register()
            if self._place is not None:
                self._place.link.answers()

        async def stopping() -> None:
            await asyncio.to_thread(listeners.take_out)
            self.state.vector_indexes.stop()
            await upkeep.stop()
            await listeners.stop_grpc()
            await self._close_assistants()
            await close_all(self._outside.values())
            await self.language.stop(self._settings.number("server.drain"))
            await self.language.leave()
            for recorder in self._recorders():
                await asyncio.to_thread(recorder.stop)

        def asked(number: int) -> None:
            self.interrupted = self.interrupted or (number == signal.SIGINT and not self.state.ready())
            listeners.drain_grpc()

        await run_listeners(listeners.bound, self._settings.number("server.drain"), started, stopping, asked)
