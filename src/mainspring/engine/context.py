"""What a step can ask about itself while it runs, and what the engine needs of the chosen services."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mainspring.config.settings import Settings
from mainspring.errors import RefusedError, UserCodeError
from mainspring.ports.catalog import Catalog
from mainspring.ports.objects import Objects

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mainspring.engine.task import Task

__all__ = ["EngineServices", "StepContext", "current", "entered", "running"]


class EngineServices(Protocol):
    """The part of `mainspring.choose.services.Services` that the engine needs.

    Attributes:
        project: the project's folder.
        state: the folder that the engine may write to: logs and work folders.
    """

    @property
    def project(self) -> Path:
        """The project's folder."""

    @property
    def state(self) -> Path:
        """The state folder."""

    def spec(self) -> object:
        """Plain data from which ``type(services).from_spec`` opens the same services in another process."""

    @property
    def settings(self) -> Settings:
        """The settings of the active profile."""

    @property
    def catalog(self) -> Catalog:
        """The metadata store; opened anew in each process."""

    @property
    def objects(self) -> Objects:
        """The blobs."""


def _now_us() -> int:
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class StepContext:
    """The running step, as its function sees it through `current`.

    Attributes:
        services: the opened services of this process.
        task: the task that runs.
        run_id: the run it belongs to.
        attempt: 1 for the first attempt.
        undeclared: what the attempt has read so far without declaring it, each with the line that did it.
        forced: whether kept results of the step were not to be used: what it keeps itself is to be made anew too.
    """

    services: EngineServices
    task: Task
    run_id: str
    attempt: int
    _work_dir: Path
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    measured: Callable[[str, float, int, int], None] = field(default=lambda *_: None, repr=False)
    moved: Callable[[float, float], None] = field(default=lambda *_: None, repr=False)
    noted: Callable[[str], None] = field(default=lambda *_: None, repr=False)
    undeclared: Callable[[], Sequence[str]] = field(default=tuple, repr=False)
    forced: bool = False

    @property
    def work_dir(self) -> Path:
        """A folder of its own, made when it is first asked for and removed afterwards."""
        self._work_dir.mkdir(parents=True, exist_ok=True)
        return self._work_dir

    def log_metric(self, name: str, value: float, step: int = 0) -> None:
        """Record a number of this run; it appears in the console at once."""
        self.measured(name, float(value), step, _now_us())

    def note(self, text: str) -> None:
        """Say something of this attempt, in a few words, where its end is told and recorded."""
        self.noted(text)

    def progress(self, done: float, total: float) -> None:
        """Tell how far the step is."""
        self.moved(done, total)

    def secret(self, name: str) -> str:
        """The value of a setting that the step declared in ``secrets=``; it is redacted from the step's log.

        Raises:
            RefusedError: MS-5020, the step did not declare it.
        """
        if name not in self.secrets:
            raise RefusedError(
                f"step {self.task.name!r} may not read secret {name!r}",
                code="MS-5020",
                why="a step is handed the secrets that it declares",
                fix=f"add secrets=[{name!r}] to its declaration",
            )
        return self.secrets[name]


_current: ContextVar[StepContext | None] = ContextVar("mainspring_step", default=None)


def running() -> StepContext | None:
    """The step that runs in this process, or None."""
    return _current.get()


def current() -> StepContext:
    """The step that runs in this process.

    Raises:
        UserCodeError: MS-2020, no step is running.
    """
    found = _current.get()
    if found is None:
        raise UserCodeError(
            "no step is running",
            code="MS-2020",
            why="the step's context exists only while the engine carries a step out",
            fix="call this from a step, run by mainspring run",
        )
    return found


@contextmanager
def entered(context: StepContext) -> Iterator[StepContext]:
    """Make a step the running one for a block."""
    token = _current.set(context)
    try:
        yield context
    finally:
        _current.reset(token)
