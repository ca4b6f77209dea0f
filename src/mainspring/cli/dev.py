"""``mainspring dev``: the whole loop on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import click

from mainspring.catalog.ids import now_us
from mainspring.choose.services import Services
from mainspring.cli.options import open_app, project_options
from mainspring.cli.output import tell
from mainspring.console.app import console_app
from mainspring.console.state import ConsoleState
from mainspring.server.asgi import AsgiApp
from mainspring.server.lock import ProjectLock
from mainspring.server.planning import plan_of, sources_have_places
from mainspring.server.process import Ask, MakeConsole, ServerProcess
from mainspring.server.state import WorkerState

__all__ = ["command"]

_WATCH_SECONDS = 1.0


@click.command(short_help="the whole loop: build what is stale, serve, watch files, console")
@click.option("--host", help="address the endpoints listen on")
@click.option("--port", type=int, help="port of the endpoints; 0 takes a free one")
@click.option("--console-port", type=int, help="port of the console; 0 takes a free one")
@click.option("--watch/--no-watch", default=True, help="build again when the app or its data changes")
@project_options
def command(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    host: str | None,
    port: int | None,
    console_port: int | None,
    watch: bool,
) -> int:
    """Build what is stale, serve the endpoints, show the console, and build again when a file changes."""
    flags = {"server.host": host, "server.port": port, "management.port": console_port}
    services, app = open_app(project, profile, flags)
    plan = plan_of(app)
    sources_have_places(plan, services.settings)
    with ProjectLock(services.state), _building(services, watch):
        process = ServerProcess(services, plan, console=_console(services), told=tell)
        process.run()
    return 0


def _console(services: Services) -> MakeConsole:
    def make(state: WorkerState, ask: Ask) -> AsgiApp:
        app = console_app(ConsoleState(services, lambda: state.plan, state.report, ask, now_us))
        return cast(AsgiApp, app)

    return make


@contextmanager
def _building(services: Services, watch: bool) -> Iterator[None]:
    """Build in a process of its own, now and whenever a file has changed."""
    stop = threading.Event()
    builder = threading.Thread(target=_build_again, args=(services, watch, stop), name="builder", daemon=True)
    builder.start()
    try:
        yield
    finally:
        stop.set()
        builder.join(timeout=30)


def _build_again(services: Services, watch: bool, stop: threading.Event) -> None:
    seen: object = None
    while not stop.is_set():
        now = _stamps(services)
        if now != seen:
            seen = now
            _build(services, stop)
        if not watch:
            return
        stop.wait(_WATCH_SECONDS)


def _build(services: Services, stop: threading.Event) -> None:
    where = ["--profile", services.settings.profile, "--project", str(services.project)]
    command = [sys.executable, "-m", "mainspring.cli", "apply", *where]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=dict(os.environ)) as building:
        while building.poll() is None:
            if stop.wait(0.1):
                building.terminate()
                break


def _stamps(services: Services) -> object:
    """Size and time of the app's files and of its sources' files."""
    paths = [services.project / "mainspring.toml", *services.project.glob("*.py")]
    for key, setting in services.settings.values.items():
        if key.startswith("sources.") and key.endswith(".path") and setting.value:
            paths += services.project.glob(str(setting.value))
    found = []
    for path in sorted(paths):
        try:
            stat = path.stat()
        except OSError:
            continue
        found.append((str(path), stat.st_size, stat.st_mtime_ns))
    return found
