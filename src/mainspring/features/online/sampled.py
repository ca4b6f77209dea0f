"""A share of online answers kept for a while, so that they can be computed again offline."""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from mainspring.features.online.plan import ColumnReader, Found, ReadPlan
from mainspring.features.selection import Calculation
from mainspring.features.view import Pick

__all__ = ["Calculated", "Calculations", "Sample", "SampledPlan", "Samples"]

_MOST = 4096
_NEAR_US = 60_000_000
_AS_THEY_ARE = frozenset({float, int, str, bool, bytes, type(None)})
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


class Sample(msgspec.Struct, frozen=True):
    """An answer that was given.

    Attributes:
        picks: what was asked for, in order.
        keys: the entity keys.
        at_us: the moment of the question, UTC microseconds.
        values: the features' values, in order.
        statuses: the status of each view.
    """

    picks: tuple[Pick, ...]
    keys: Mapping[str, object]
    at_us: int
    values: tuple[object, ...]
    statuses: Mapping[str, str]


class Calculations(msgspec.Struct, frozen=True, eq=False):
    """What a read plan calculates; one for all of its answers.

    Attributes:
        each: in the order they are carried out.
        functions: by name.
        first: where in a row the first calculated value is.
    """

    each: tuple[Calculation, ...]
    functions: Mapping[str, Callable[..., object]]
    first: int


class Calculated(msgspec.Struct, frozen=True):
    """A row of an answer that was given.

    Attributes:
        calculations: what was calculated of it.
        keys: the entity keys.
        at_us: the moment of the question, UTC microseconds.
        values: what was looked up, the request's fields, and what was calculated, as online rows hold them.
    """

    calculations: Calculations
    keys: Mapping[str, object]
    at_us: int
    values: tuple[object, ...]


class Samples:
    """Answers that wait to be computed again; when there are too many, the oldest go.

    Args:
        share: the share of answers that are kept, 0 to 1.
        draw: uniform numbers in [0, 1).
        clock: the time, UTC microseconds: answers about another moment than the present are not kept, because the
            online store does not know what it held then.

    Attributes:
        dropped: how many were lost because nobody took them in time.
    """

    def __init__(
        self,
        share: float,
        draw: Callable[[], float] = random.random,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        # Values are held as bytes: thousands of live numbers among those of the answers that are gone would leave
        # holes all over the memory that answers are made in, and cost an answer of 100 x 50 a tenth of its time.
        self._held: deque[tuple[int, Sample | Calculated, bytes | None]] = deque(maxlen=_MOST)
        self._share = share
        self._draw = draw
        self._clock = clock
        self._left = self._gap()
        self.dropped = 0

    def _gap(self) -> int:
        """How many answers there are up to the next that is kept: geometric, so that nothing beats in time with it."""
        if self._share >= 1:
            return 1
        return 1 + int(math.log(1.0 - self._draw()) / math.log1p(-self._share))

    def due(self) -> bool:
        """Whether the answer that is given now is to be kept."""
        self._left -= 1
        if self._left > 0:
            return False
        self._left = self._gap()
        return True

    def due_among(self, count: int) -> Sequence[int]:
        """The places of those that are to be kept among the answers that are given now; as `due` of each in turn."""
        if self._left > count:
            self._left -= count
            return ()
        found, place = [], self._left - 1
        while place < count:
            found.append(place)
            place += self._gap()
        self._left = place - count + 1
        return found

    def put(
        self,
        picks: tuple[Pick, ...],
        keys: Mapping[str, object],
        at_us: int,
        values: Sequence[object],
        statuses: Mapping[str, str],
    ) -> None:
        """Keep an answer."""
        if abs(self._clock() - at_us) > _NEAR_US:
            return
        self._hold(Sample(picks, dict(keys), at_us, (), dict(statuses)), values)

    def put_calculated(
        self, calculations: Calculations, keys: Mapping[str, object], at_us: int, values: Sequence[object]
    ) -> None:
        """Keep what was calculated for an answer, of what."""
        self._hold(Calculated(calculations, dict(keys), at_us, ()), values)

    def _hold(self, sample: Sample | Calculated, values: Sequence[object]) -> None:
        if len(self._held) == _MOST:
            self.dropped += 1
        packed = _packed(values)
        self._held.append((sample.at_us, sample if packed else replace(sample, values=tuple(values)), packed))

    def take(self, until_us: int, most: int) -> list[Sample | Calculated]:
        """Take out the oldest answers that were given up to a moment.

        Args:
            until_us: the moment, UTC microseconds.
            most: how many at most.
        """
        found: list[Sample | Calculated] = []
        while self._held and len(found) < most and self._held[0][0] <= until_us:
            _, sample, packed = self._held.popleft()
            found.append(sample if packed is None else replace(sample, values=tuple(_unpack(packed))))
        return found


def _packed(values: Sequence[object]) -> bytes | None:
    """Values as bytes; None where they would not come back as what they were."""
    for value in values:
        if type(value) not in _AS_THEY_ARE and not (
            type(value) is list and all(type(part) in _AS_THEY_ARE for part in value)
        ):
            return None
    try:
        return _pack(values)
    except OverflowError:  # a number of more than 64 bits
        return None


class SampledPlan:
    """A read plan of whose answers some are kept.

    Args:
        plan: what reads.
        picks: what it reads.
        samples: where answers are kept.
    """

    def __init__(self, plan: ReadPlan, picks: Sequence[Pick], samples: Samples) -> None:
        self._plan = plan
        self._picks = tuple(picks)
        self._keys = tuple(dict.fromkeys(name for pick in picks for name in pick.view.key_names))
        self._samples = samples
        self.names = plan.names
        self.references = plan.references
        self.read_column = None if plan.read_column is None else self._column(plan.read_column)

    def read_one(self, keys: Mapping[str, object], now_us: int) -> tuple[list[object], dict[str, str]]:
        """As `ReadPlan.read_one`."""
        values, statuses = self._plan.read_one(keys, now_us)
        if self._samples.due():
            self._keep(keys, now_us, values, statuses)
        return values, statuses

    def read_many(
        self, entities: Sequence[Mapping[str, object]], moments: Sequence[int]
    ) -> list[tuple[list[object], dict[str, str]]]:
        """As `ReadPlan.read_many`."""
        found = self._plan.read_many(entities, moments)
        for place in self._samples.due_among(len(found)):
            self._keep(entities[place], moments[place], *found[place])
        return found

    def read_rows(
        self, entities: Sequence[Mapping[str, object]], now_us: int
    ) -> tuple[list[list[object]], dict[str, list[str]], dict[str, list[int | None]]]:
        """As `ReadPlan.read_rows`."""
        rows, statuses, events = self._plan.read_rows(entities, now_us)
        for place in self._samples.due_among(len(rows)):
            found = {view: each[place] for view, each in statuses.items()}
            self._keep(entities[place], now_us, rows[place], found)
        return rows, statuses, events

    def _column(self, read: ColumnReader) -> ColumnReader:
        (name,) = self._keys

        def read_column(column: Sequence[Any], now_us: int) -> Found:
            rows, statuses, events = read(column, now_us)
            for place in self._samples.due_among(len(rows)):
                found = {view: each[place] for view, each in statuses.items()}
                self._keep({name: column[place]}, now_us, rows[place], found)
            return rows, statuses, events

        return read_column

    def _keep(
        self, keys: Mapping[str, object], now_us: int, values: Sequence[object], statuses: Mapping[str, str]
    ) -> None:
        """Keep an answer; a row may carry what is no key."""
        asked = {name: keys[name] for name in self._keys if name in keys}
        self._samples.put(self._picks, asked, now_us, values, statuses)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plan, name)
