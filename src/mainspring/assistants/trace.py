"""What a run did, as a tree of spans: plain records for a trace store, the console and a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import msgspec

from mainspring.assistants.events import Folded

__all__ = ["Open", "RunRecord", "Span", "SpanKind", "Trace"]

SpanKind = Literal["run", "retrieval", "model", "tool"]


class Span(msgspec.Struct, frozen=True):
    """One piece of work within a run.

    Attributes:
        id: within the run, from 0, in order of start; 0 is the run itself.
        parent: the span that caused it, or None for the run.
        kind: ``run``, ``retrieval``, ``model`` or ``tool``.
        name: of the assistant, index, model or tool.
        start_us: microseconds since the run's start.
        took_us: microseconds.
        failed: why it failed, or empty.
        attributes: what else there is to know: tokens, hits, versions, arguments.
    """

    id: int
    parent: int | None
    kind: SpanKind
    name: str
    start_us: int
    took_us: int
    failed: str = ""
    attributes: Mapping[str, object] = {}


class RunRecord(msgspec.Struct, frozen=True):
    """A run that is over, for a trace store.

    Attributes:
        run: its id.
        assistant: who answered.
        thread: its thread, or empty.
        owner: who asked.
        tenant: of whom.
        at_us: when it began, microseconds since 1970.
        question: what was asked, or empty for a run that went on after an approval.
        answer: its events, folded.
        spans: the tree, by id.
    """

    run: str
    assistant: str
    thread: str
    owner: str
    tenant: str
    at_us: int
    question: str
    answer: Folded
    spans: tuple[Span, ...]


class Open:
    """A span that is not over: what it takes in is told with `note`."""

    def __init__(self, id: int, parent: int | None, kind: SpanKind, name: str, start_us: int) -> None:
        self.id = id
        self.parent = parent
        self.kind: SpanKind = kind
        self.name = name
        self.start_us = start_us
        self.failed = ""
        self.attributes: dict[str, object] = {}

    def note(self, **attributes: object) -> None:
        """Add to what is known of it."""
        self.attributes.update(attributes)

    def closed(self, now_us: int) -> Span:
        """The span as a record."""
        return Span(
            self.id,
            self.parent,
            self.kind,
            self.name,
            self.start_us,
            now_us - self.start_us,
            self.failed,
            self.attributes,
        )


class Trace:
    """The spans of one run.

    Args:
        assistant: the run's own span is called so.
        clock: nanoseconds, monotonic.
    """

    def __init__(self, assistant: str, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self._clock = clock
        self._began = clock()
        self._open: dict[int, Open] = {}
        self._done: list[Span] = []
        self._count = 0
        self._run = self._begin("run", assistant, None)
        self.model = self._run.id
        """The model call that acted last: the tools that it asked for are below it."""

    def _now_us(self) -> int:
        return (self._clock() - self._began) // 1000

    def _begin(self, kind: SpanKind, name: str, parent: int | None) -> Open:
        found = Open(self._count, parent, kind, name, self._now_us())
        self._count += 1
        self._open[found.id] = found
        return found

    @contextmanager
    def span(self, kind: SpanKind, name: str) -> Iterator[Open]:
        """A span around a piece of work; what escapes is noted and goes on."""
        found = self._begin(kind, name, self.model if kind == "tool" else self._run.id)
        if kind == "model":
            self.model = found.id
        try:
            yield found
        except BaseException as error:
            found.failed = found.failed or type(error).__name__
            raise
        finally:
            self._done.append(self._open.pop(found.id).closed(self._now_us()))

    def closed(self, failed: str = "", **attributes: object) -> tuple[Span, ...]:
        """The whole tree by id; what is still open ends now."""
        self._run.failed = failed
        self._run.note(**attributes)
        now = self._now_us()
        rest = [found.closed(now) for found in self._open.values()]
        return tuple(sorted((*self._done, *rest), key=lambda span: span.id))
