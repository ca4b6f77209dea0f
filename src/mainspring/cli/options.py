"""The options that verbs share, and the project they open."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING, NoReturn, TypeVar

import click

from mainspring.choose.services import Services
from mainspring.config.settings import find_project
from mainspring.lazy import lazy

if TYPE_CHECKING:
    from mainspring.config import project as projects
    from mainspring.declare.app import App
else:  # half of the verbs never load the app
    projects = lazy("mainspring.config.project")

__all__ = ["ended_like_stopped", "json_option", "open_app", "open_services", "project_options"]

F = TypeVar("F", bound=Callable[..., object])


def json_option(function: F) -> F:
    """``--json``: one JSON document on stdout."""
    return click.option("--json", "as_json", is_flag=True, help="one JSON document on stdout")(function)


def project_options(function: F) -> F:
    """``--project``, ``--profile``, ``-v`` and ``--json``."""
    for option in (
        click.option("-v", "--verbose", is_flag=True, help="tracebacks in full", expose_value=False),
        click.option("--profile", metavar="NAME", help="a profile of mainspring.toml; dev when left out"),
        click.option(
            "--project",
            type=click.Path(exists=True, file_okay=False, path_type=Path),
            help="the project's folder; the nearest one above when left out",
        ),
    ):
        function = option(function)
    return json_option(function)


def open_services(
    project: Path | None, profile: str | None, flags: Mapping[str, object] = MappingProxyType({})
) -> Services:
    """The services of the project that the options name."""
    folder = find_project(Path.cwd()) if project is None else project.resolve()
    return Services.of_project(folder, profile=profile, flags=flags)


def open_app(
    project: Path | None, profile: str | None, flags: Mapping[str, object] = MappingProxyType({})
) -> tuple[Services, App]:
    """The services and the loaded app of the project that the options name."""
    services = open_services(project, profile, flags)
    return services, projects.load_app(services.settings)


@contextlib.contextmanager
def ended_like_stopped() -> Iterator[None]:
    """SIGTERM ends the block like Ctrl-C does, so that what was built is removed."""

    def stop(signum: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
