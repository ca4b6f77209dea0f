"""Shadow calls: a copy of what was answered, asked of another version off the caller's path, and compared.

The queue is bounded; what does not fit is dropped and counted. One thread a shadow; a caller never waits for it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Sequence

import msgspec

__all__ = ["QUEUED", "TALLIED", "Differences", "Shadow", "ShadowCall", "Tally"]

QUEUED = 256
"""The most calls that wait for a shadow."""

_ROWS = 16_384
"""The most rows that wait for a shadow: calls of many rows are dropped sooner."""


class Differences(msgspec.Struct, frozen=True):
    """How a shadow's scores differ from those that were given out.

    Attributes:
        calls: calls that were asked of it.
        rows: their rows.
        failed: calls that it failed.
        dropped: calls that were not asked of it, because too many waited.
        flips: rows with another label; 0 for regressions.
        total: the sum of the absolute differences of scores.
        greatest: the greatest of them.
    """

    calls: int = 0
    rows: int = 0
    failed: int = 0
    dropped: int = 0
    flips: int = 0
    total: float = 0.0
    greatest: float = 0.0

    @property
    def seen(self) -> bool:
        """Whether there is anything to tell."""
        return bool(self.calls or self.dropped)


_FIELDS = ("calls", "rows", "failed", "dropped", "flips", "total", "greatest")
_UNDER_WAY = len(_FIELDS)
TALLIED = _UNDER_WAY + 1
"""Numbers of eight bytes that a shadow's differences take, and the call that is under way."""


class Tally:
    """Where a shadow keeps its differences.

    Args:
        numbers: `TALLIED` of them; a mapped file outlives the process.
    """

    def __init__(self, numbers: memoryview[float] | None = None) -> None:
        own = memoryview(bytearray(8 * TALLIED)).cast("d")
        self._numbers = own if numbers is None else numbers

    def found(self) -> Differences:
        """What is kept."""
        values = self._numbers.tolist()
        return Differences(*(int(value) for value in values[:5]), *values[5:_UNDER_WAY])

    def keep(self, found: Differences, *, under_way: bool) -> None:
        """Keep this, and whether a call is under way."""
        for place, name in enumerate(_FIELDS):
            self._numbers[place] = getattr(found, name)
        self._numbers[_UNDER_WAY] = under_way

    def recover(self) -> None:
        """The process that kept this has died: what it had under way has failed."""
        if self._numbers[_UNDER_WAY]:
            found = self.found()
            self.keep(msgspec.structs.replace(found, calls=found.calls + 1, failed=found.failed + 1), under_way=False)


class ShadowCall(msgspec.Struct, frozen=True):
    """A call that was answered.

    Attributes:
        score: asks the shadow the same; its scores.
        given: the scores that the caller has got.
        log: told of the shadow's scores.
    """

    score: Callable[[], Sequence[float]]
    given: Sequence[float]
    log: Callable[[Sequence[float]], None] = msgspec.field(default=lambda scores: None)


class Shadow:
    """Asks one version what another has answered.

    Args:
        binary: whether scores are probabilities, so that a label flips at a half.
        most: the most calls that wait.
        tally: where the differences are kept; it goes on with those.
    """

    def __init__(self, *, binary: bool, most: int = QUEUED, tally: Tally | None = None) -> None:
        self._binary = binary
        self._queue: queue.Queue[ShadowCall | None] = queue.Queue(most)
        self._waiting = 0
        self._lock = threading.Lock()
        self._tally = tally or Tally()
        self._found = self._tally.found()
        self._dropped = self._found.dropped
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, call: ShadowCall) -> None:
        """Take a call to be asked later; dropped and counted when too much waits."""
        rows = len(call.given)
        with self._lock:
            if self._waiting + rows > _ROWS:
                self._dropped += 1
                return
            self._waiting += rows
        try:
            self._queue.put_nowait(call)
        except queue.Full:
            with self._lock:
                self._waiting -= rows
                self._dropped += 1

    def differences(self) -> Differences:
        """What was found so far."""
        with self._lock:
            return msgspec.structs.replace(self._found, dropped=self._dropped)

    def stop(self) -> None:
        """End the thread after the call that it is at; what waits is forgotten."""
        while True:
            with contextlib.suppress(queue.Empty):
                while True:
                    self._queue.get_nowait()
            try:
                self._queue.put_nowait(None)
                break
            except queue.Full:  # a caller was faster
                continue
        self._thread.join(timeout=30)

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            self._ask(call)

    def _ask(self, call: ShadowCall) -> None:
        self._keep(under_way=True)
        try:
            scores = [float(score) for score in call.score()]
        except Exception:
            with self._lock:
                self._waiting -= len(call.given)
                self._found = msgspec.structs.replace(
                    self._found, calls=self._found.calls + 1, failed=self._found.failed + 1
                )
            self._keep(under_way=False)
            return
        with contextlib.suppress(Exception):  # a log that fails stops no comparison
            call.log(scores)
        self._compare(call.given, scores)
        self._keep(under_way=False)

    def _keep(self, *, under_way: bool) -> None:
        self._tally.keep(self.differences(), under_way=under_way)

    def _compare(self, given: Sequence[float], scores: Sequence[float]) -> None:
        gaps = [abs(float(one) - other) for one, other in zip(given, scores, strict=True)]
        flips = sum((one >= 0.5) != (other >= 0.5) for one, other in zip(given, scores, strict=True))
        with self._lock:
            self._waiting -= len(given)
            found = self._found
            self._found = Differences(
                calls=found.calls + 1,
                rows=found.rows + len(given),
                failed=found.failed,
                flips=found.flips + (flips if self._binary else 0),
                total=found.total + sum(gaps),
                greatest=max(found.greatest, *gaps) if gaps else found.greatest,
            )
