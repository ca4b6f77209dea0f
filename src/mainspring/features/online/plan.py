"""Compiled read plans: from entity keys and a moment to feature values, without a look-up of any name."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, cast

import msgspec

from mainspring.features.online.answers import WindowReader
from mainspring.features.online.keys import key_packer
from mainspring.features.online.rows import BODY, ORDER, TOMBSTONE, read_plain
from mainspring.features.online.windows import layout_of
from mainspring.features.view import Pick
from mainspring.ports.online import OnlineStore

__all__ = ["ReadPlan", "compile_plan"]

_SIGN = 1 << 63
_event_and_flags = struct.Struct(f">Q{ORDER.size - 8 + 1}xB").unpack_from
_unpack = msgspec.msgpack.Decoder().decode

Reader = Callable[[bytes | None, int], tuple[list[object], str]]
BatchReader = Callable[[Sequence[bytes | None], int], tuple[list[list[object]], list[str], list[int | None]]]


class ReadPlan:
    """Reads the features of some views; made once, replaced whole when definitions change.

    Attributes:
        names: the features' names, in order.
        references: their views' names and theirs.
    """

    def __init__(self, store: OnlineStore, picks: Sequence[Pick]) -> None:
        self._store = store
        self.names = tuple(feature.name for pick in picks for feature in pick.features)
        self._views = [pick.view.name for pick in picks]
        self.references = tuple((pick.view.name, feature.name) for pick in picks for feature in pick.features)
        self._packers = [key_packer(pick.view.id, pick.view.keys, nulls=True) for pick in picks]
        self._readers = [_reader(pick, store) for pick in picks]
        self._parts = list(zip(self._views, self._readers, strict=True))
        self._dated = [_event_of(pick, store) for pick in picks]
        self._batches = [
            _batch(pick, reader, event_of)
            for pick, reader, event_of in zip(picks, self._readers, self._dated, strict=True)
        ]
        if len(picks) == 1:
            # The commonest plan, without loops.
            self.read_one, self.read_rows = self._single(picks[0])  # type: ignore[method-assign]

    def read_one(self, keys: Mapping[str, object], now_us: int) -> tuple[list[object], dict[str, str]]:
        """The features of one set of entity keys at a moment (UTC microseconds): values, status by view.

        A view of which a key is null is MISSING, as it is offline.

        Raises:
            DataError: MS-2120, a key is missing or of the wrong type.
        """
        rows = self._store.get_many([pack(keys) for pack in self._packers])
        values: list[object] = []
        statuses: dict[str, str] = {}
        for (name, reader), row in zip(self._parts, rows, strict=True):
            found, status = reader(row, now_us)
            values += found
            statuses[name] = status
        return values, statuses

    def _single(self, pick: Pick) -> tuple[Callable[..., Any], Callable[..., Any]]:
        (name,), (pack,), (reader,), get = self._views, self._packers, self._readers, self._store.get_many
        (read,), whole, ttl = self._batches, _is_whole(pick), pick.view.ttl_us

        def read_one(keys: Mapping[str, object], now_us: int) -> tuple[list[object], dict[str, str]]:
            values, status = reader(get((pack(keys),))[0], now_us)
            return values, {name: status}

        def read_rows(
            entities: Sequence[Mapping[str, object]], now_us: int
        ) -> tuple[list[list[object]], dict[str, list[str]], dict[str, list[int | None]]]:
            if len(entities) != 1:
                rows, statuses, events = read(get([pack(entity) for entity in entities]), now_us)
                return rows, {name: statuses}, {name: events}
            found = get((pack(entities[0]),))
            row = found[0]
            if whole and row is not None:
                event, flags = _event_and_flags(row)
                event -= _SIGN
                if event <= now_us and not flags and (ttl is None or event >= now_us - ttl):
                    return [_unpack(row[BODY:])], {name: ["PRESENT"]}, {name: [event]}
            rows, statuses, events = read(found, now_us)
            return rows, {name: statuses}, {name: events}

        return read_one, read_rows

    def read_many(
        self, entities: Sequence[Mapping[str, object]], moments: Sequence[int]
    ) -> list[tuple[list[object], dict[str, str]]]:
        """The features of many sets of keys, each at its moment, with one round trip to the store.

        Raises:
            DataError: MS-2120, a key is missing or of the wrong type.
        """
        keys = [pack(entity) for entity in entities for pack in self._packers]
        rows = self._store.get_many(keys)
        width, found = len(self._packers), []
        if not width:
            return [([], {}) for _ in entities]
        for start, now_us in zip(range(0, len(rows), width), moments, strict=True):
            values: list[object] = []
            statuses: dict[str, str] = {}
            for (name, reader), row in zip(self._parts, rows[start : start + width], strict=True):
                answers, statuses[name] = reader(row, now_us)
                values += answers
            found.append((values, statuses))
        return found

    def read_dated(
        self, entities: Sequence[Mapping[str, object]], now_us: int
    ) -> list[tuple[list[object], dict[str, str], dict[str, int | None]]]:
        """As `read_many` at one moment, with the event time of the row that answers, by view; None where none does.

        Raises:
            DataError: MS-2120, a key is missing or of the wrong type.
        """
        keys = [pack(entity) for entity in entities for pack in self._packers]
        rows = self._store.get_many(keys)
        dated = self._dated
        width, found = len(self._packers), []
        if not width:
            return [([], {}, {}) for _ in entities]
        for start in range(0, len(rows), width):
            values: list[object] = []
            statuses: dict[str, str] = {}
            events: dict[str, int | None] = {}
            for (name, reader), event_of, row in zip(self._parts, dated, rows[start : start + width], strict=True):
                answers, statuses[name] = reader(row, now_us)
                values += answers
                events[name] = event_of(row, now_us)
            found.append((values, statuses, events))
        return found

    def read_rows(
        self, entities: Sequence[Mapping[str, object]], now_us: int
    ) -> tuple[list[list[object]], dict[str, list[str]], dict[str, list[int | None]]]:
        """As `read_dated`, by column: the values of each entity, then of each view the statuses and event times.

        Raises:
            DataError: MS-2120, a key is missing or of the wrong type.
        """
        found = self._store.get_many([pack(entity) for pack in self._packers for entity in entities])
        count = len(entities)
        rows: list[list[object]] = []
        statuses: dict[str, list[str]] = {}
        events: dict[str, list[int | None]] = {}
        for place, (name, read) in enumerate(zip(self._views, self._batches, strict=True)):
            part, statuses[name], events[name] = read(found[place * count : (place + 1) * count], now_us)
            if place == 0:
                rows = part
            else:
                for values, more in zip(rows, part, strict=True):
                    values += more
        return rows or [[] for _ in entities], statuses, events


def compile_plan(store: OnlineStore, picks: Sequence[Pick]) -> ReadPlan:
    """A read plan for features of views, in this order."""
    return ReadPlan(store, picks)


def _reader(pick: Pick, store: OnlineStore) -> Reader:
    if pick.view.windowed:
        return _window_reader(pick, store)
    return _plain_reader(pick)


def _is_whole(pick: Pick) -> bool:
    """Whether what is asked for is what a row holds, in its order."""
    view = pick.view
    asked = [str(feature.column) for feature in pick.features if feature.window_us is None]
    return not view.windowed and not view.has_valid_to and asked == [field.name for field in view.columns]


def _batch(pick: Pick, reader: Reader, event_of: Callable[[bytes | None, int], int | None]) -> BatchReader:
    """Reads the rows of many entities, the commonest kind of row without a call for each."""
    view, ttl = pick.view, pick.view.ttl_us
    columns = [field.name for field in view.columns]
    places = [columns.index(str(feature.column)) for feature in pick.features if feature.window_us is None]
    plain = not view.windowed and not view.has_valid_to
    whole = places == list(range(len(columns)))

    picked = itemgetter(*places) if len(places) > 1 else None

    def read(rows: Sequence[bytes | None], now_us: int) -> tuple[list[list[object]], list[str], list[int | None]]:
        least, most = 0 if ttl is None else now_us - ttl + _SIGN, now_us + _SIGN
        if plain and None not in rows and rows:
            present = cast("Sequence[bytes]", rows)
            moments, flags = zip(*[_event_and_flags(row) for row in present], strict=True)
            if least <= min(moments) and max(moments) <= most and not any(flags):  # the commonest: all answer
                held = [_unpack(row[BODY:]) for row in present]
                if not whole:
                    held = [[*picked(one)] for one in held] if picked else [[one[at] for at in places] for one in held]
                return held, ["PRESENT"] * len(held), [moment - _SIGN for moment in moments]
        values: list[list[object]] = []
        statuses: list[str] = []
        events: list[int | None] = []
        for row in rows:
            answers, status = reader(row, now_us)
            values.append(answers)
            statuses.append(status)
            events.append(event_of(row, now_us))
        return values, statuses, events

    return read


def _plain_reader(pick: Pick) -> Reader:
    view, ttl = pick.view, pick.view.ttl_us
    columns = [field.name for field in view.columns]
    places = [columns.index(str(feature.column)) for feature in pick.features]
    whole = places == list(range(len(columns))) and not view.has_valid_to
    width = len(places)
    has_valid_to = view.has_valid_to

    def read(row: bytes | None, now_us: int) -> tuple[list[object], str]:
        if row is None:
            return [None] * width, "MISSING"
        event, flags = _event_and_flags(row)
        event -= _SIGN
        if event > now_us or flags:
            found = _due(row, now_us)
            if found is None:
                return [None] * width, "MISSING"
            event, values = found
        else:
            values = _unpack(row[BODY:])
        if ttl is not None and event < now_us - ttl:
            return [None] * width, "EXPIRED"
        if has_valid_to and values[-1] is not None and values[-1] <= now_us:
            return [None] * width, "EXPIRED"
        return values if whole else [values[place] for place in places], "PRESENT"

    return read


def _due(row: bytes, now_us: int) -> tuple[int, list[Any]] | None:
    """Of a row that is ahead of time or deleted: the event and the values of the newest that has happened, if any."""
    newest = next((one for one in read_plain(row) if one.event <= now_us), None)
    return None if newest is None or newest.flags & TOMBSTONE else (newest.event, list(newest.values))


def _event_of(pick: Pick, store: OnlineStore) -> Callable[[bytes | None, int], int | None]:
    """Reads the event time of the newest row that has happened."""
    if pick.view.windowed:
        rows = WindowReader((), layout_of(pick.view), store.get_many, {})

        def newest_of(row: bytes | None, now_us: int) -> int | None:
            newest = rows.read(row, now_us)[1]
            return None if newest is None or newest.dead else newest.event

        return newest_of

    def event_of(row: bytes | None, now_us: int) -> int | None:
        if row is None:
            return None
        event, flags = _event_and_flags(row)
        event -= _SIGN
        if event <= now_us and not flags:
            return int(event)
        due = _due(row, now_us)
        return None if due is None else due[0]

    return event_of


def _window_reader(pick: Pick, store: OnlineStore) -> Reader:
    view, ttl = pick.view, pick.view.ttl_us
    kinds = {field.name: field.type.kind for field in view.columns}
    rows = WindowReader(pick.features, layout_of(view), store.get_many, kinds)
    newest = [place for place, feature in enumerate(pick.features) if feature.window_us is None]

    def read(row: bytes | None, now_us: int) -> tuple[list[object], str]:
        found, last = rows.read(row, now_us)
        if last is None or last.dead:
            status = "MISSING"
        elif (ttl is not None and last.event < now_us - ttl) or (last.until is not None and now_us >= last.until):
            status = "EXPIRED"
        else:
            status = "PRESENT"
        if status != "PRESENT":
            for place in newest:
                found[place] = None
        return found, status

    return read
