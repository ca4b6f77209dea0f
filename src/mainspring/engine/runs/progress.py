"""What a run tells while it goes on, as values; drawing them is the command line's business."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

__all__ = ["Happened", "Progress", "Watch", "line", "silent"]

Happened = Literal[
    "run", "start", "hit", "ok", "retry", "failed", "skipped", "stopped", "unknown", "moved", "metric", "note", "end"
]


class Progress(msgspec.Struct, frozen=True):
    """One thing that happened in a run.

    Attributes:
        what: the kind of event; ``run`` and ``end`` frame all others.
        run_id: the run.
        step: the task's name; empty for what concerns the whole run.
        title: what a person reads for it.
        item: the number of a map's item, or None.
        settled: how many steps are done with, of `steps`.
        steps: how many steps there are.
        done: how far the step is, of `total`; items for a map.
        total: see `done`; 0 when unknown.
        seconds: how long the attempt took.
        text: the error, note, metric or status in words.
        log: the log file of the attempt, when there is one.
    """

    what: Happened
    run_id: str
    step: str = ""
    title: str = ""
    item: int | None = None
    settled: int = 0
    steps: int = 0
    done: float = 0
    total: float = 0
    seconds: float = 0.0
    text: str = ""
    log: str = ""


Watch = Callable[[Progress], None]


def silent(event: Progress) -> None:
    """Watch nothing."""


def line(event: Progress) -> str:
    """An event as a plain line for logs and pipes; empty for what only a live display shows."""
    if event.what in ("moved", "metric", "start") or (event.item is not None and event.what in ("ok", "hit")):
        return ""
    title = event.title or event.step
    if event.item is not None:
        title = f"{title}[{event.item}]"
    head = {"run": "run", "end": "end", "note": "note"}.get(event.what, f"[{event.settled}/{event.steps}] {title}")
    tail = f" in {event.seconds:.2f} s" if event.seconds >= 0.005 else ""
    text = f": {event.text}" if event.text else ""
    words = {"run": "", "end": "", "note": "", "hit": " unchanged", "ok": " done"}.get(event.what, f" {event.what}")
    return f"{head}{words}{tail}{text}"
