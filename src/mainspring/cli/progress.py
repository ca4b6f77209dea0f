"""A run as it goes on: a live display on a terminal, plain lines elsewhere; always on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mainspring.engine.runs.progress import Progress, Watch, line
from mainspring.engine.runs.report import RunReport
from mainspring.lazy import lazy

if TYPE_CHECKING:
    from rich import console as rich_console
    from rich import progress as rich_progress
else:
    rich_console, rich_progress = lazy("rich.console"), lazy("rich.progress")

__all__ = ["report_as_dict", "watching"]


@contextlib.contextmanager
def watching(*, quiet: bool = False) -> Iterator[Watch]:
    """What to hand to the engine as ``watch`` for the length of a run."""
    if quiet:
        yield lambda event: None
    elif sys.stderr.isatty():
        with _Live() as live:
            yield live
    else:
        yield _plain


def _plain(event: Progress) -> None:
    text = line(event)
    if text:
        print(text, file=sys.stderr, flush=True)


class _Live:
    """One bar over all steps, one line a running step, finished ones above."""

    def __enter__(self) -> _Live:
        console = rich_console.Console(stderr=True, highlight=False)
        self._bars: Any = rich_progress.Progress(
            rich_progress.SpinnerColumn(),
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(bar_width=24),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TimeElapsedColumn(),
            console=console,
            transient=True,
            auto_refresh=False,  # it would be a thread, and workers are forked from processes without any
        )
        self._bars.start()
        self._tasks: dict[tuple[str, int | None], Any] = {}
        self._all: Any = None
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, event: Progress) -> None:
        """Show one event."""
        if event.what == "run":
            self._all = self._bars.add_task(event.text or "run", total=event.steps)
        elif self._all is not None:
            self._bars.update(self._all, completed=event.settled)
        key = (event.step, event.item)
        if event.what == "start" and event.item is None:
            self._tasks[key] = self._bars.add_task(event.title or event.step, total=event.total or None)
        elif event.what == "moved" and key in self._tasks:
            self._bars.update(self._tasks[key], completed=event.done, total=event.total or None)
        elif key in self._tasks:
            self._bars.remove_task(self._tasks.pop(key))
        text = line(event)
        if text:
            self._bars.console.print(text, markup=False)
        self._bars.refresh()


def report_as_dict(report: RunReport) -> dict[str, object]:
    """A run's report as ``--json`` prints it."""
    return {
        "run": report.run_id,
        "status": report.status,
        "engine_seconds": report.engine_seconds,
        "wall_seconds": report.wall_seconds,
        "error": None if report.error is None else report.error.as_dict(),
        "notes": list(report.notes),
        "steps": [
            {
                "name": step.name,
                "status": step.status,
                "key": step.key,
                "seconds": step.seconds,
                "outputs": step.outputs,
                "error": None if step.error is None else step.error.as_dict(),
                "note": step.note,
            }
            for step in report.steps
        ],
    }
