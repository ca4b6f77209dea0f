"""Writing the prediction log: a put is one pack into mapped memory; a thread seals, and keeps spares ready."""

from __future__ import annotations

import itertools
import math
import os
import queue
import struct
import threading
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from mainspring.errors import StoreError
from mainspring.serving.predlog.categories import Categories, hash_text
from mainspring.serving.predlog.ids import PredictionIds
from mainspring.serving.predlog.recovery import recover, seal
from mainspring.serving.predlog.schema import NUMERIC, UNFIT, ColumnKind, LogSchema
from mainspring.serving.predlog.segment import Segment

__all__ = ["PredictionLog"]

_SPARES = 2
_WAITING = 8
_BOOT = 16
_STOP_S = 30
_WORD = 64
_MASK = (1 << _WORD) - 1


class PredictionLog:
    """The log of one endpoint in one worker. What `put` has returned survives the death of the process.

    Args:
        folder: where the endpoint's segments are.
        schema: what a record holds.
        worker: the worker's number.
        share: the share of answers that is kept; kept ones weigh 1 / share.
        on_seal: told of the rows of each sealed segment.

    Raises:
        StoreError: MS-4101, the disk is full; MS-4160, the folder cannot be written.
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
        self._weight = 1.0 / share
        self._on_seal = on_seal
        self._numbers = itertools.count(1)
        self._pack_into = schema.record().pack_into
        self._fields = _Fields(schema, Categories(folder))
        self._ids = PredictionIds()
        self._sampled = 0.0
        self.dropped = 0
        self.rows = 0
        self._spares: deque[Segment] = deque()
        self._sealing: queue.Queue[Segment | None] = queue.Queue(_WAITING)
        self._segment = self._fresh()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=f"predlog-{schema.endpoint}", daemon=True)
        self._thread.start()

    def put(self, values: Sequence[object], score: float, version: str, ts_us: int) -> str:
        """Log one answer.

        Args:
            values: of the schema's columns, in order, None for what is missing. A value that does not fit its column's
                kind is logged as missing, and the record is flagged.
            score: the score.
            version: the model version, a whole number as text.
            ts_us: the moment of the question, UTC microseconds, above 0.

        Returns:
            The prediction id, a UUIDv7 in 32 hex digits; also when sampling leaves the answer out.
        """
        with self._lock:
            identity = self._ids.next()
            self._sampled += self._share
            if self._sampled < 1.0:
                return identity.hex()
            self._sampled -= 1.0
            segment = self._segment
            at = segment.start + segment.rows * segment.size
            # The moment is packed last: a record without it does not exist.
            head, moment = (identity, self._weight, int(version)), ts_us * 1000
            flags, nulls, fields = self._fields(values)
            try:
                self._pack_into(segment.view, at, *head, flags, 0, *nulls, score, *fields, moment)
            except (struct.error, OverflowError):
                flags, nulls, fields = self._fields.fitted(values)
                self._pack_into(segment.view, at, *head, flags, 0, *nulls, score, *fields, moment)
            segment.rows += 1
            self.rows += 1
            if segment.rows == segment.capacity:
                self._roll()
        return identity.hex()

    def close(self) -> None:
        """Seal what is there and stop."""
        with self._lock:
            self._sealing.put(self._segment)
            self._sealing.put(None)
        self._thread.join(timeout=_STOP_S)
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
            full.path.unlink(missing_ok=True)
            full.close()

    def _fresh(self) -> Segment:
        name = f"wal-{self._worker}-{self._boot.hex()}-{next(self._numbers):06d}"
        return Segment.create(self._folder / name, self._schema, self._worker, self._boot)

    def _work(self) -> None:
        self._prepare()
        while (segment := self._sealing.get()) is not None:
            self._prepare()
            # Its lock is held until the file is gone, so that no other process recovers it meanwhile.
            self._on_seal(seal(segment.path))
            segment.close()

    def _prepare(self) -> None:
        while len(self._spares) < _SPARES:
            try:
                self._spares.append(self._fresh())
            except StoreError:  # the put that needs it will say so
                return


class _Fields:
    """Turns values into the fields of a record: flags, words of null bits, and what each column is packed from."""

    def __init__(self, schema: LogSchema, categories: Categories) -> None:
        self._words = schema.null_words
        self._none = (0,) * self._words
        self._kinds = schema.kinds_of()
        self._plain = NUMERIC.issuperset(self._kinds)
        self._categories = categories

    def __call__(self, values: Sequence[object]) -> tuple[int, tuple[int, ...], Sequence[object]]:
        """The fields, as the values are."""
        if self._plain and None not in values:
            return 0, self._none, values
        return self.fitted(values)

    def fitted(self, values: Sequence[object]) -> tuple[int, tuple[int, ...], Sequence[object]]:
        """The fields, with null for each value that is missing or does not fit."""
        flags, bits = 0, 0
        fields: list[object] = []
        for place, (kind, value) in enumerate(zip(self._kinds, values, strict=True)):
            found = None if value is None else self._fit(kind, value)
            if found is None:
                bits |= 1 << place
                flags |= 0 if value is None else UNFIT
                found = _EMPTY[kind]
            fields += found
        return flags, tuple(bits >> (_WORD * word) & _MASK for word in range(self._words)), fields

    def _fit(self, kind: ColumnKind, value: object) -> tuple[object, ...] | None:
        if kind in NUMERIC or kind == "bool":
            return _number(kind, value)
        if not isinstance(value, str):
            return None
        return (self._categories.code(value),) if kind == "category" else (len(value), hash_text(value))


_EMPTY: dict[ColumnKind, tuple[object, ...]] = {
    "f4": (0.0,),
    "f8": (0.0,),
    "i8": (0,),
    "bool": (0,),
    "category": (0,),
    "text": (0, 0),
}
_INT64 = 1 << 63
_FLOAT32_MOST = (2 - 2**-23) * 2.0**127


def _number(kind: ColumnKind, value: object) -> tuple[float] | None:
    try:
        number = float(value)  # type: ignore[arg-type]  # what is no number raises
        if kind in ("f4", "f8"):
            return None if kind == "f4" and _FLOAT32_MOST < abs(number) < math.inf else (number,)
        whole = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        return None
    fits = whole == value and (whole in (0, 1) if kind == "bool" else -_INT64 <= whole < _INT64)
    return (whole,) if fits else None
