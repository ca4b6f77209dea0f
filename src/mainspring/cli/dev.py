"""``mainspring dev``: the whole loop on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import click

from mainspring.choose.services import Services
from mainspring.cli.console import console_of
from mainspring.cli.edits import code_stamp, notice, read_noticed
from mainspring.cli.options import open_app, project_options
from mainspring.cli.output import tell
from mainspring.config.settings import find_project
from mainspring.errors import MainspringError
from mainspring.plan.graph import Plan
from mainspring.server.lock import ProjectLock
from mainspring.server.planning import plan_of, sources_have_places
from mainspring.server.process import ServerProcess

__all__ = ["command"]

_WATCH_SECONDS = 1.0
_REST = 20  # times as long as a look at all files took: a large folder is looked at less often
_POLL_SECONDS = 0.1


@click.command(short_help="the whole loop: build what is stale, serve, watch files, console")
@click.option("--host", help="address the endpoints listen on")
@click.option("--port", type=click.IntRange(0, 65_535), help="port of the endpoints; 0 takes a free one")
@click.option("--console-port", type=click.IntRange(0, 65_535), help="port of the console; 0 takes a free one")
@click.option(
    "--watch/--no-watch", default=True, help="build again when the app or its data changes, and serve the new app"
)
@click.option("--again", is_flag=True, hidden=True, help="it has served before: an app that is broken may be mended")
@project_options
def command(
    project: Path | None,
    profile: str | None,
    as_json: bool,
    host: str | None,
    port: int | None,
    console_port: int | None,
    watch: bool,
    again: bool,
) -> int:
    """Build what is stale, serve the endpoints, show the console, and build again when a file changes.

    Stopped while it serves it drains and exits 0; interrupted before all endpoints have a model it exits 130.
    """
    folder = find_project(Path.cwd()) if project is None else project.resolve()
    code = code_stamp(folder)  # before the app is loaded: what is edited after that is an edit
    flags = {"server.host": host, "server.port": port, "management.port": console_port}
    try:
        services, plan = _loaded(folder, profile, flags)
    except MainspringError as error:
        if not again:
            raise
        _start_when_mended(error, folder, code)
    with ProjectLock(services.state):
        process = ServerProcess(services, plan, console=console_of(services), told=tell)
        builder = _Builder(services, plan, code, watch, process.serving)
        with builder.at_work():
            process.run()
    if builder.restart and not process.interrupted:
        tell("the app has changed: starting it anew")
        _start_anew(process.ports())
    if process.interrupted:
        raise KeyboardInterrupt
    return 0


def _loaded(folder: Path, profile: str | None, flags: Mapping[str, object]) -> tuple[Services, Plan]:
    services, app = open_app(folder, profile, flags)
    plan = plan_of(app)
    sources_have_places(plan, services.settings)
    return services, plan


def _start_when_mended(error: MainspringError, folder: Path, code: str) -> NoReturn:
    """Wait for an edit of an app that was broken between its build and its start, and try again."""
    tell(error.lines())
    tell("nothing is served until that is mended")
    while code_stamp(folder) == code:
        time.sleep(_WATCH_SECONDS)
    _start_anew({})


def _start_anew(ports: Mapping[str, int]) -> NoReturn:
    """Become a process that loads the app as it is now, at the same ports."""
    words = sys.argv[1:]
    end = words.index("--again") if "--again" in words else len(words)
    options = {"--port": ports.get("server"), "--console-port": ports.get("management")}
    same = [word for option, port in options.items() if port is not None for word in (option, str(port))]
    again = [*words[:end], "--again", *(same or words[end + 1 :])]
    os.execv(sys.executable, [sys.executable, "-m", "mainspring.cli", *again])


class _Builder:
    """Builds in a process of its own, now and whenever a file has changed.

    When the app itself has changed and is built, the server is asked to stop: it drains, and the same process starts
    anew with the new app. An app that cannot be built leaves the old one at work.

    Args:
        services: the project's ports.
        plan: the app's graph.
        code: the stamp of the app's files before they were loaded.
        watch: whether to go on after the first time.
        serving: set when the server takes signals.

    Attributes:
        restart: whether the app that is served is not the newest one that was built.
    """

    def __init__(self, services: Services, plan: Plan, code: str, watch: bool, serving: threading.Event) -> None:
        self._services = services
        self._serving = serving
        self._watch = watch
        self._stop = threading.Event()
        self._served = code
        noticed = notice(services, plan)
        self._places = noticed.places
        self._seen = (code, noticed.stamp)
        self.restart = False

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Build for the length of a block."""
        thread = threading.Thread(target=self._follow, name="builder", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(timeout=30)

    def _follow(self) -> None:
        self._build()
        rest = _WATCH_SECONDS
        while self._watch and not self._stop.wait(rest):
            began = time.monotonic()
            seen = (self._code(), self._places.stamp())
            rest = max(_WATCH_SECONDS, (time.monotonic() - began) * _REST)
            if seen == self._seen:
                continue
            self._seen = seen
            if self._build() and self._is_newer():
                self._serving.wait()
                self.restart = True
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def _is_newer(self) -> bool:
        """Whether what was built is another app than the one that is served, and has not been edited since."""
        return self._served != self._seen[0] == self._code()

    def _code(self) -> str:
        return code_stamp(self._services.project)

    def _build(self) -> bool:
        """Apply the app as it is now; what that reads is looked at from then on, also if it fails."""
        left = self._services.state / "dev.noticed"
        built = self._applied(left)
        noticed = read_noticed(left)
        if noticed is not None:
            self._places, self._seen = noticed.places, (self._seen[0], noticed.stamp)
        return built

    def _applied(self, left: Path) -> bool:
        where = ["--profile", self._services.settings.profile, "--project", str(self._services.project)]
        command = [sys.executable, "-m", "mainspring.cli", "apply", *where, "--noticed", str(left)]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=dict(os.environ)) as building:
            while building.poll() is None:
                if self._stop.wait(_POLL_SECONDS):
                    building.terminate()
                    return False
        return building.returncode == 0
