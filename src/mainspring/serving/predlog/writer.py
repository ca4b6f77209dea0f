"""Writing the prediction log: a put is one pack into mapped memory; a thread seals, and keeps spares ready."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from mainspring.errors import StoreError
from mainspring.serving.predlog.recovery import recover, seal
from mainspring.serving.predlog.segment import CAPACITY, HEADER, LogSchema, Segment, pack_values

__all__ = ["PredictionLog"]

_SPARES = 2
_WAITING = 8
_BOOT = 16


class PredictionLog:
    """The log of one endpoint in one worker. What `put` has returned survives the death of the process.

    Args:
        folder: where the endpoint's segments are.
        schema: what a record holds.
        worker: the worker's number.
        share: the share of answers that is kept; kept ones weigh 1 / share.
        on_seal: told of the rows of each sealed segment.
    """

    def __init__(
        self,
        folder: Path,
        schema: LogSchema,
        worker: int = 0,
        share: float = 1.0,
        on_seal: Callable[[int], None] = lambda rows: None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        recover(folder)
        self._folder = folder
        self._schema = schema
        self._worker = worker
        self._boot = os.urandom(_BOOT)
        self._share = share
        self._on_seal = on_seal
        self._number = 0
        self._record = schema.record
        self._ids = _Ids()
        self._sampled = 0.0
        self.dropped = 0
        self.rows = 0
        self._spares: deque[Segment] = deque()
        self._sealing: queue.Queue[Segment | None] = queue.Queue(_WAITING)
        self._wanted = threading.Event()
        self._segment = self._fresh()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=f"predlog-{schema.endpoint}", daemon=True)
        self._thread.start()

    def put(self, values: Sequence[object], score: float, version: str, ts_us: int) -> str:
        """Log one answer.

        Args:
            values: the model's columns, in order; numbers, booleans or None.
            score: the score.
            version: the model version, a whole number as text.
            ts_us: the moment of the question, UTC microseconds, above 0.

        Returns:
            The prediction id, a UUIDv7 in 32 hex digits; also when sampling leaves the answer out.
        """
        identity = self._ids.next()
        self._sampled += self._share
        if self._sampled < 1.0:
            return identity.hex()
        self._sampled -= 1.0
        bits, numbers = pack_values(values)
        with self._lock:
            segment = self._segment
            at = HEADER + segment.rows * segment.size
            self._record.pack_into(
                segment.view, at, identity, 1.0 / self._share, int(version) & 0xFFFF, 0, bits, score, *numbers
            )
            # The moment comes last: a record without it does not exist.
            segment.view[at + segment.size - 8 : at + segment.size] = (ts_us * 1000).to_bytes(8, "little", signed=True)
            segment.rows += 1
            self.rows += 1
            if segment.rows == CAPACITY:
                self._roll()
        return identity.hex()

    def close(self) -> None:
        """Seal what is there and stop."""
        with self._lock:
            self._sealing.put(self._segment)
            self._sealing.put(None)
        self._wanted.set()
        self._thread.join(timeout=30)
        for spare in self._spares:
            spare.close()
            spare.path.unlink(missing_ok=True)

    def flush(self) -> None:
        """Seal the rows so far, so that readers find them in a file; used between tests and at a hand-over."""
        with self._lock:
            if self._segment.rows:
                self._roll()

    def _roll(self) -> None:
        full = self._segment
        self._segment = self._spares.popleft() if self._spares else self._fresh()
        try:
            self._sealing.put_nowait(full)
        except queue.Full:  # the disk has stalled: lose a whole segment, and say so, rather than wait or grow
            self.dropped += full.rows
            full.close()
            full.path.unlink(missing_ok=True)
        self._wanted.set()

    def _fresh(self) -> Segment:
        self._number += 1
        name = f"wal-{self._worker}-{self._boot.hex()}-{self._number:06d}"
        return Segment.create(self._folder / name, self._schema, self._worker, self._boot)

    def _work(self) -> None:
        while True:
            self._prepare()
            segment = self._sealing.get() if not self._sealing.empty() else self._await()
            if segment is None:
                return
            segment.close()
            self._on_seal(seal(segment.path))

    def _await(self) -> Segment | None:
        self._wanted.wait()
        self._wanted.clear()
        return self._sealing.get()

    def _prepare(self) -> None:
        while len(self._spares) < _SPARES:
            try:
                self._spares.append(self._fresh())
            except StoreError:  # the put that needs it will say so
                return


class _Ids:
    """UUIDv7 ids, rising within the process: milliseconds, a counter, random bits of this process."""

    def __init__(self) -> None:
        self._tail = (int.from_bytes(os.urandom(8), "big") & ((1 << 62) - 1)) | (0b10 << 62)
        self._last = 0
        self._count = 0

    def next(self) -> bytes:
        """The next id, 16 bytes."""
        now = time.time_ns() // 1_000_000
        if now <= self._last:
            self._count += 1
            if self._count > 0xFFF:
                self._last, self._count = self._last + 1, 0
        else:
            self._last, self._count = now, 0
        value = (self._last << 80) | (0x7 << 76) | (self._count << 64) | self._tail
        return value.to_bytes(16, "big")
