"""``mainspring dev``: the whole loop on this machine."""

from __future__ import annotations

import glob
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from mainspring.choose.services import Services
from mainspring.cli.console import console_of
from mainspring.cli.options import open_app, project_options
from mainspring.cli.output import tell
from mainspring.errors import MainspringError
from mainspring.features.steps import files_of
from mainspring.plan.graph import Plan
from mainspring.rag.listing import list_folder
from mainspring.rag.steps import folder_of
from mainspring.server.lock import ProjectLock
from mainspring.server.planning import plan_of, sources_have_places
from mainspring.server.process import ServerProcess

if TYPE_CHECKING:
    from mainspring.declare.documents import Documents

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
    """Build what is stale, serve the endpoints, show the console, and build again when a file changes.

    Stopped while it serves it drains and exits 0; interrupted before all endpoints have a model it exits 130.
    """
    flags = {"server.host": host, "server.port": port, "management.port": console_port}
    services, app = open_app(project, profile, flags)
    plan = plan_of(app)
    sources_have_places(plan, services.settings)
    with ProjectLock(services.state):
        process = ServerProcess(services, plan, console=console_of(services), told=tell)
        builder = _Builder(services, plan, watch, process.serving)
        with builder.at_work():
            process.run()
    if builder.restart:
        tell("the app has changed: starting it anew")
        ports = process.ports()
        again = ["--port", str(ports["server"])]
        if "management" in ports:
            again += ["--console-port", str(ports["management"])]
        os.execv(sys.executable, [sys.executable, "-m", "mainspring.cli", *sys.argv[1:], *again])
    if process.interrupted:
        raise KeyboardInterrupt
    return 0


class _Builder:
    """Builds in a process of its own, now and whenever a file has changed.

    When the app itself has changed and is built, the server is asked to stop: it drains, and the same process starts
    anew with the new app. An app that cannot be built leaves the old one at work.

    Args:
        services: the project's ports.
        plan: the app's graph.
        watch: whether to go on after the first time.
        serving: set when the server takes signals.

    Attributes:
        restart: whether the app that is served is not the newest one that was built.
    """

    def __init__(self, services: Services, plan: Plan, watch: bool, serving: threading.Event) -> None:
        self._services = services
        self._plan = plan
        self._serving = serving
        self._watch = watch
        self._stop = threading.Event()
        self._seen = (_code(services), _data(services, plan))
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
            seen = (_code(self._services), _data(self._services, self._plan))
            rest = max(_WATCH_SECONDS, (time.monotonic() - began) * _REST)
            if seen == self._seen:
                continue
            changed, self._seen = seen[0] != self._seen[0], seen
            if self._build() and changed:
                self._serving.wait()
                self.restart = True
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def _build(self) -> bool:
        where = ["--profile", self._services.settings.profile, "--project", str(self._services.project)]
        command = [sys.executable, "-m", "mainspring.cli", "apply", *where]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, env=dict(os.environ)) as building:
            while building.poll() is None:
                if self._stop.wait(_POLL_SECONDS):
                    building.terminate()
                    return False
        return building.returncode == 0


def _code(services: Services) -> object:
    """Size and time of the app's files."""
    modules = glob.glob("**/*.py", root_dir=services.project, recursive=True)  # nothing below .venv, .mainspring, ..
    own = [services.project / name for name in modules if not name.startswith("tests/")]
    return _stamps([services.project / "mainspring.toml", *own])


def _data(services: Services, plan: Plan) -> object:
    """Size and time of the sources' files and of the documents, wherever code and profile say that they are.

    What cannot be listed is told by the build; here it differs from what can.
    """
    settings, found = services.settings, []
    for node in plan.of_kind("source"):
        try:
            found.append(_stamps(files_of(node.name, settings)))
        except MainspringError as error:
            found.append(error.code)
    for node in plan.of_kind("documents"):
        try:
            folder = folder_of(cast("Documents", node.declaration), settings)
            found.append(list_folder(folder.folder, folder.include, folder.exclude, name=node.name, known=0))
        except MainspringError as error:
            found.append(error.code)
    return found


def _stamps(paths: Iterable[Path]) -> object:
    found = []
    for path in sorted(paths):
        with suppress(OSError):
            stat = path.stat()
            found.append((str(path), stat.st_size, stat.st_mtime_ns))
    return found
