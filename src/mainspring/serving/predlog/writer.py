"""Writing the prediction log: a put is one pack into mapped memory; a thread seals, and keeps spares ready.

A disk that is full or fails stops no put: what cannot be logged is dropped and counted, and the thread tries again
until there is room.
"""

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
from mainspring.serving.predlog.schema import NUMERIC, ROLES, UNFIT, ColumnKind, LogSchema
from mainspring.serving.predlog.segment import FULL, Segment

__all__ = ["PredictionLog"]

_SPARES = 2
_WAITING = 8
_BOOT = 16
_STOP_S = 30
_RETRY_S = 1.0
"""Seconds between two tries on a disk that has refused something."""
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

    Attributes:
        rows: answers that were written to a segment.
        dropped: answers that were lost, because there was no room for a segment or the disk stalled.

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
        self._segment: Segment | None = self._fresh()
        self._stopping = threading.Event()
        self._no_room = ""
        self._unsealed = ""
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name=f"predlog-{schema.endpoint}", daemon=True)
        self._thread.start()

    @property
    def fault(self) -> str:
        """Why answers cannot be logged or sealed now; empty when they can."""
        return self._no_room or self._unsealed

    def put(
        self,
        values: Sequence[object],
        score: float,
        version: str,
        ts_us: int,
        *,
        role: str = "stable",
        identity: bytes | None = None,
    ) -> str:
        """Log one answer.

        Args:
            values: of the schema's columns, in order, None for what is missing. A value that does not fit its column's
                kind is logged as missing, and the record is flagged.
            score: the score.
            version: the model version, a whole number as text.
            ts_us: the moment of the question, UTC microseconds, above 0.
            role: what the version was to a rollout: ``stable``, ``canary`` or ``shadow``.
            identity: the id of the answer that a shadow was compared with; None draws one.

        Returns:
            The prediction id, a UUIDv7 in 32 hex digits; also when sampling leaves the answer out, or when there is no
            room for it and it is dropped.
        """
        with self._lock:
            identity = identity or self._ids.next()
            self._sampled += self._share
            if self._sampled < 1.0:
                return identity.hex()
            self._sampled -= 1.0
            segment = self._segment or self._spare()
            if segment is None:
                self.dropped += 1
                return identity.hex()
            at = segment.start + segment.rows * segment.size
            # The moment is packed last: a record without it does not exist.
            head, moment = (identity, self._weight, int(version)), ts_us * 1000
            of_role = ROLES[role]
            flags, nulls, fields = self._fields(values)
            try:
                self._pack_into(segment.view, at, *head, flags | of_role, 0, *nulls, score, *fields, moment)
            except (struct.error, OverflowError):
                flags, nulls, fields = self._fields.fitted(values)
                self._pack_into(segment.view, at, *head, flags | of_role, 0, *nulls, score, *fields, moment)
            segment.rows += 1
            self.rows += 1
            if segment.rows == segment.capacity:
                self._roll(segment)
        return identity.hex()

    def close(self) -> None:
        """Seal what is there and stop; what cannot be sealed now stays as it is, for the next start."""
        self._stopping.set()
        with self._lock:
            if self._segment is not None:
                self._sealing.put(self._segment)
            self._sealing.put(None)
        self._thread.join(timeout=_STOP_S)
        for spare in self._spares:
            spare.close()
            spare.path.unlink(missing_ok=True)

    def flush(self) -> None:
        """Seal the rows so far, so that readers find them in a file; used between tests and at a hand-over."""
        with self._lock:
            if self._segment is not None and self._segment.rows:
                self._roll(self._segment)

    def _spare(self) -> Segment | None:
        """Go on with a segment that the thread has made ready; None while there is none."""
        self._segment = self._spares.popleft() if self._spares else None
        return self._segment

    def _roll(self, full: Segment) -> None:
        if self._spare() is None and not self._no_room:
            self._segment = self._made()
        try:
            self._sealing.put_nowait(full)
        except queue.Full:  # the disk has stalled: lose a whole segment, and say so, rather than wait or grow
            self.dropped += full.rows
            full.path.unlink(missing_ok=True)
            full.close()

    def _fresh(self) -> Segment:
        name = f"wal-{self._worker}-{self._boot.hex()}-{next(self._numbers):06d}"
        return Segment.create(self._folder / name, self._schema, self._worker, self._boot)

    def _made(self) -> Segment | None:
        """A fresh segment, or None when there is no room for one."""
        try:
            return self._fresh()
        except StoreError as error:
            self._no_room = error.what
            return None

    def _work(self) -> None:
        while True:
            self._prepare()
            try:
                segment = self._sealing.get(timeout=_RETRY_S if self._no_room else None)
            except queue.Empty:
                continue
            if segment is None:
                return
            while not self._sealed(segment) and not self._stopping.wait(_RETRY_S):
                self._prepare()
            # Its lock is held until the file is gone, so that no other process recovers it meanwhile.
            segment.close()

    def _sealed(self, segment: Segment) -> bool:
        """Seal a segment; False when the disk refuses it now."""
        try:
            rows = seal(segment.path)
        except OSError as error:
            self._unsealed = "the disk is full" if error.errno in FULL else "the prediction log cannot be written"
            return False
        except Exception as error:  # it would fail again and again, and hold all others up: set aside, never removed
            self.dropped += segment.rows
            self._unsealed = f"a segment cannot be sealed: {type(error).__name__}"
            os.rename(segment.path, segment.path.with_name(f"unreadable-{segment.path.name}"))
            return True
        self._unsealed = ""
        self._on_seal(rows)
        return True

    def _prepare(self) -> None:
        """Make spares, as far as there is room."""
        while len(self._spares) < _SPARES:
            spare = self._made()
            if spare is None:
                return
            self._spares.append(spare)
        self._no_room = ""


class _Fields:
    """Turns values into the fields of a record: flags, words of null bits, and what each column is packed from."""

    def __init__(self, schema: LogSchema, categories: Categories) -> None:
        self._words = schema.null_words
        self._none = (0,) * self._words
        self._kinds = schema.kinds_of()
        self._plain = NUMERIC.issuperset(self._kinds)
        self._whole = tuple(place for place, kind in enumerate(self._kinds) if kind == "i8")
        self._categories = categories

    def __call__(self, values: Sequence[object]) -> tuple[int, tuple[int, ...], Sequence[object]]:
        """The fields, as the values are; whole numbers that are floats, as those of a matrix are, as integers."""
        if not self._plain or None in values:
            return self.fitted(values)
        if not self._whole:
            return 0, self._none, values
        fields = list(values)
        for place in self._whole:
            value = fields[place]
            if type(value) is float:
                if not value.is_integer():  # neither is one that is infinite
                    return self.fitted(values)
                fields[place] = int(value)
        return 0, self._none, fields

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
