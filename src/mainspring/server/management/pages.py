"""The actuator's pages of a server, each over what it shows."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from mainspring.choose.report import conditions_report
from mainspring.config.schema import SETTINGS
from mainspring.config.settings import Settings
from mainspring.protocols.actuator.conditions import conditions_page
from mainspring.protocols.actuator.environment import Property, configprops_page, env_page
from mainspring.protocols.actuator.health import Components, health_page
from mainspring.protocols.actuator.loggers import loggers_page
from mainspring.protocols.actuator.metrics import metrics_page
from mainspring.protocols.actuator.page import Operation, Page, reading
from mainspring.protocols.actuator.runtime import (
    Cache,
    Exchanges,
    Routes,
    Task,
    caches_page,
    logfile_page,
    mappings_page,
    scheduledtasks_page,
    shutdown_page,
    threaddump_page,
)
from mainspring.protocols.http import Handler, Request, Response
from mainspring.server.management.bill import bill_page
from mainspring.server.management.levels import Levels
from mainspring.server.management.own import own_pages
from mainspring.server.management.probes import Probes
from mainspring.server.management.resources import process_numbers
from mainspring.server.management.starting import Startup
from mainspring.server.schedules import timetables
from mainspring.server.state import WorkerState
from mainspring.serving.inference import ServedModels

__all__ = ["Managed", "actuator_pages", "visible"]

_READY = ("models", "catalog")
"""The parts that readiness depends on."""
_SECRETS = frozenset(spec.key for spec in SETTINGS if spec.secret)
_TELLING = ("password", "secret", "token", "credential", "passwd")
"""Parts of the name of a setting that holds a secret, whoever has declared it."""


class Managed(msgspec.Struct, frozen=True):
    """What the pages show.

    Attributes:
        state: of the process.
        models: the models that it serves.
        rollouts: called for the newest of each model.
        health: asks for all of its parts.
        info: build and process.
        routes: called for those of each listener.
        caches: called for those of answers, by name.
        exchanges: the last requests.
        startup: the steps of the start.
        levels: of loggers, in all workers.
        authorized: whether who asks has shown the token, or none is needed.
        upkeep: what is done again and again: name and pause in seconds.
    """

    state: WorkerState
    models: ServedModels
    rollouts: Callable[[], Mapping[str, object]]
    health: Callable[[], Components]
    info: Callable[[], Mapping[str, object]]
    routes: Callable[[], Routes]
    caches: Callable[[], Mapping[str, Cache]]
    exchanges: Exchanges
    startup: Startup
    levels: Levels
    authorized: Callable[[Request], bool]
    upkeep: Callable[[], Sequence[tuple[str, float]]] = msgspec.field(default=tuple)


def actuator_pages(managed: Managed) -> list[Page]:
    """Every page that this server has."""
    state, run = managed.state, asyncio.to_thread
    settings, app = state.services.settings, state.plan.app
    details = visible(settings.text("management.show_details") or "", managed.authorized)
    values = visible(settings.text("management.show_values") or "", managed.authorized)
    probes = Probes(managed.health, time.monotonic)

    def properties() -> list[Property]:
        return properties_of(settings)

    found = [
        health_page(probes.components, {"liveness": (), "readiness": _READY}, details),
        Page("info", (Operation("GET", reading(lambda request: managed.info(), run)),)),
        metrics_page(state.numbers, process_numbers(state.services.state), run),
        Page("prometheus", (Operation("GET", _prometheus(state)),)),
        loggers_page(managed.levels.change, run),
        env_page(lambda: (settings.profile, settings.profiles), properties, values, run),
        configprops_page(app, properties, values, run),
        conditions_page(app, lambda: conditions_report(settings), run),
        mappings_page(app, managed.routes, run),
        scheduledtasks_page(lambda: _tasks(managed), run),
        managed.exchanges.page(run),
        threaddump_page(run),
        bill_page(app, run),
        managed.startup.page(importlib.metadata.version("mainspring"), run),
        caches_page(app, managed.caches, run),
        *own_pages(state, managed.models, managed.rollouts, run),
    ]
    if file := settings.text("management.logfile"):
        found.append(logfile_page(Path(settings.project) / file, run))
    if settings.flag("management.shutdown"):
        found.append(shutdown_page(lambda: _stop(state.together is not None)))
    return found


def visible(rule: str, authorized: Callable[[Request], bool]) -> Callable[[Request], bool]:
    """Whether who asks may see something: ``never``, ``when-authorized`` or ``always``."""
    if rule == "when-authorized":
        return authorized
    return lambda request: rule == "always"


def properties_of(settings: Settings) -> list[Property]:
    """Every setting; a secret is one that is declared so, refers to one, or is called so."""
    found = []
    for key, item in settings.values.items():
        name = key.rpartition(".")[2].lower()
        called = name.endswith("key") or any(part in name for part in _TELLING)
        secret = called or item.secret or any(True for _ in item.references()) or _declared_secret(key)
        found.append(Property(key, item.value, item.origin, secret))
    return found


def _declared_secret(key: str) -> bool:
    parts = key.split(".")
    for spec in _SECRETS:
        wanted = spec.split(".")
        if len(wanted) == len(parts) and all(one in ("*", part) for one, part in zip(wanted, parts, strict=True)):
            return True
    return False


def _prometheus(state: WorkerState) -> Handler:
    async def prometheus(request: Request) -> Response:
        content_type, text = await asyncio.to_thread(state.metrics_page, request.headers.get(b"accept", b""))
        return Response(200, text, content_type)

    return prometheus


def _tasks(managed: Managed) -> list[Task]:
    """The timetables with their next and last times, then what the server does beside answering."""
    state, now = managed.state, time.time()
    found = []
    for table in timetables(state.plan):
        due = table.times(int(now * 1e6), int((now + 366 * 86400) * 1e6)) if table.cron else []
        found.append(Task(table.target, table.cron, due[0] / 1e6 if due else None, _last(state, table.target)))
    return [*found, *(Task(name, pause=pause) for name, pause in managed.upkeep())]


def _last(state: WorkerState, target: str) -> tuple[float, str] | None:
    """When a target was run last, and how that ended."""
    history = state.services.catalog.step_history(target, limit=1)
    if not history:
        return None
    status = {"ok": "SUCCESS", "hit": "SUCCESS", "running": "STARTED"}.get(history[0].status, "ERROR")
    return history[0].started / 1e6, status


def _stop(workers: bool) -> None:
    os.kill(os.getppid() if workers else os.getpid(), signal.SIGTERM)
