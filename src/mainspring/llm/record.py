"""What is kept of every request: a value into a ring at once, written by a thread in batches later."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Literal, Protocol, TypeVar

import msgspec

from mainspring.llm.fold import Answer
from mainspring.llm.values import Api, Caller, Target
from mainspring.ports.llm import Generation, Usage

__all__ = ["CallRecord", "Recorder", "Sink"]

_RING = 65_536
_BATCH = 1024
_PAUSE_S = 0.25


class CallRecord(msgspec.Struct, frozen=True, gc=False):
    """One request as the gateway saw it; who writes it down turns it into columns.

    It holds no text that nobody keeps: what was said is let go of with the request, not when its record is written.

    Attributes:
        id: of the request.
        model: the public name that it asked for.
        caller: who asked.
        api: the wire that it came by.
        stream: whether the answer went out piece by piece.
        trace: trace id and the caller's span id, or empty ones.
        prompt: the id of the declared prompt that it was made from, or empty.
        lane: the route that answered.
        at_ns: when it came, UTC nanoseconds since 1970.
        target: who answered last, or None.
        status: ``ok``, ``error``, ``left`` (the client did).
        error_kind: of the last fault, or empty.
        finish_reason: of the first choice.
        attempt: how many tries there were.
        hedged: whether a second target was asked beside the first.
        cache: ``exact`` where the answer to an equal request was given again, ``semantic`` where it was to one that is
            alike.
        usage: tokens.
        queue_us: microseconds until it was sent, and in the engine's queue.
        ttft_us: until the first token.
        total_us: until its end.
        cost_micro: micro-units of money.
        price_version: of the price that was used.
        bodies: the share of requests whose texts are kept.
        texts: what came in and what came back; None where the share is 0.
        similarity: how alike the two questions are, where `cache` is ``semantic``.
    """

    id: str
    model: str
    caller: Caller
    api: Api
    stream: bool
    trace: tuple[str, str]
    prompt: str
    lane: str
    at_ns: int
    target: Target | None
    status: Literal["ok", "error", "left"]
    error_kind: str
    finish_reason: str
    attempt: int
    hedged: bool
    cache: str
    usage: Usage
    queue_us: int
    ttft_us: int
    total_us: int
    cost_micro: int
    price_version: str
    bodies: float = 0.0
    texts: tuple[Generation, Answer] | None = None
    similarity: float | None = None


Record = TypeVar("Record")
Written = TypeVar("Written", contravariant=True)


class Sink(Protocol[Written]):
    """Where records go; called in the recorder's thread alone."""

    def write(self, records: Sequence[Written]) -> None:
        """Write a batch down; a fault costs these records, never a request."""

    def close(self) -> None:
        """No more comes."""


class Recorder(Generic[Record]):
    """A bounded ring, and the thread that empties it into sinks.

    Args:
        sinks: where the records go.
        told: told of a sink's fault, once for each that begins.
        ring: records that may wait; when it is full the newest are dropped and counted.
        what: the records are called, where a fault is told.

    Attributes:
        dropped: how many were.
    """

    __slots__ = (
        "_faulty",
        "_most",
        "_ring",
        "_sinks",
        "_stop",
        "_thread",
        "_told",
        "_wake",
        "_what",
        "_written",
        "dropped",
    )

    def __init__(
        self,
        sinks: Sequence[Sink[Record]],
        told: Callable[[str], None] = lambda line: None,
        ring: int = _RING,
        what: str = "LLM records",
    ) -> None:
        self._what = what
        self._sinks = tuple(sinks)
        self._told = told
        self._ring: deque[Record] = deque()
        self._most = ring
        self._faulty: set[int] = set()
        self._wake = threading.Event()
        self._written = threading.Condition()
        self._stop = False
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def start(self) -> None:
        """Begin to write."""
        self._thread = threading.Thread(target=self._loop, name="mainspring-records", daemon=True)
        self._thread.start()

    def add(self, record: Record) -> None:
        """Take a record; never waits."""
        if len(self._ring) >= self._most:
            self.dropped += 1
            return
        self._ring.append(record)

    def flush(self, seconds: float = 10.0) -> bool:
        """Wait until all that was added is written; whether it was in time."""
        self._wake.set()
        with self._written:
            return self._written.wait_for(lambda: not self._ring, seconds)

    def stop(self) -> None:
        """Write what is left, and close the sinks."""
        self._stop = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _loop(self) -> None:
        while True:
            self._wake.wait(_PAUSE_S)
            self._wake.clear()
            while self._ring:
                batch = [self._ring[place] for place in range(min(len(self._ring), _BATCH))]
                self._write(batch)
                for _ in batch:
                    self._ring.popleft()
            with self._written:
                self._written.notify_all()
            if self._stop and not self._ring:
                break
        for sink in self._sinks:
            sink.close()

    def _write(self, batch: Sequence[Record]) -> None:
        for place, sink in enumerate(self._sinks):
            try:
                sink.write(batch)
                self._faulty.discard(place)
            except Exception as error:
                if place not in self._faulty:
                    self._faulty.add(place)
                    self._told(f"{self._what} are not written: {type(error).__name__}: {error}")
