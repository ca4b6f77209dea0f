"""The windows of an entity at a moment, from what is stored of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mainspring.declare.aggregate import Function
from mainspring.declare.record import Kind
from mainspring.errors import DataError, StoreError
from mainspring.features.online.chunks import Directory, chunk_key, group_key, read_busy, sketch_key
from mainspring.features.online.partials import (
    Numbers,
    Sketch,
    compared,
    count_different,
    find_quantile,
    numbers_of,
    read_sketches,
    sketch_of,
    values_of,
)
from mainspring.features.online.rows import BODY, MarkedRows, WindowRows, read_windows
from mainspring.features.online.windows import WindowLayout, empty_windows
from mainspring.features.view import FeatureDef
from mainspring.features.windows.sketch import EXACT, bits_of, bucket_values, buckets, place_of
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = ["Newest", "WindowReader"]

_TRIES = 20
_EPOCH_DAY = 719_163  # date(1970, 1, 1).toordinal()
Get = Callable[[Sequence[bytes]], list[bytes | None]]


class _Window(NamedTuple):
    """The rows of one window: some of them at hand, and whole chunks that were not read.

    Attributes:
        layout: of the rows.
        slices: rows with the first and one past the last, the oldest first.
        directory: of the chunks, or None where there are none.
        inner: the places of the chunks.
        sketches: theirs or their groups', where some were asked for.
    """

    layout: WindowLayout
    slices: Sequence[tuple[WindowRows, int, int]]
    directory: Directory | None = None
    inner: Sequence[int] = ()
    sketches: Sequence[Sequence[Sketch]] = ()


_Answer = Callable[[_Window], object]


class Newest(NamedTuple):
    """The newest row that has happened.

    Attributes:
        event: microseconds.
        dead: whether it is a tombstone.
        until: from when on it is valid no more, in microseconds, or None.
    """

    event: int
    dead: bool = False
    until: int | None = None


_Read = tuple[list[object], Newest | None]


class WindowReader:
    """Answers some features of a view from a stored window row.

    Args:
        features: the features, in order; one without a window is that of the newest row.
        layout: of the stored rows.
        get: reads further rows of the store, for entities that have many.
        fields: the kinds of the columns by name.
    """

    def __init__(
        self, features: Sequence[FeatureDef], layout: WindowLayout, get: Get, fields: Mapping[str, Kind]
    ) -> None:
        self._layout = layout
        self._get = get
        windows = sorted({feature.window_us for feature in features if feature.window_us is not None})
        self._spans = np.array(windows, np.int64)
        self._plans = [
            (None if one.window_us is None else windows.index(one.window_us), _answer_of(one, layout, fields))
            for one in features
        ]
        last = [one.aggregate.size or 1 for one in features if one.aggregate.function in _FROM_THE_END]
        self._back = max(last, default=0 if layout.until is None else 1)
        # Where a window begins, its chunk is read whole if its first row is asked for.
        self._firsts = {
            windows.index(one.window_us)
            for one in features
            if one.window_us is not None and one.aggregate.function is Function.FIRST
        }
        used = [(one.aggregate.function, one.column) for one in features]
        self._sketched = {
            windows.index(one.window_us)
            for one, use in zip(features, used, strict=True)
            if one.window_us is not None and use in layout.sketches
        }

    def read(self, row: bytes | None, now_us: int) -> _Read:
        """The features, those of the newest row even if it is dead, and that row; None where none has happened.

        Raises:
            DataError: MS-2117, a total does not fit int64.
            StoreError: MS-4143, the rows of the entity are not all there.
        """
        directory, tail, beside = self._parts(row)
        if directory is None:
            return self._at_hand(tail, beside, now_us)
        for _ in range(_TRIES):
            held = _Held(directory, tail, self._layout)
            if held.fetch(self._get, self._needed(held, now_us)):
                return self._from(held, beside, now_us)
            (row,) = self._get([directory.key])  # another writer has put other chunks in their place
            directory, tail, beside = self._parts(row)
            if directory is None:
                return self._at_hand(tail, beside, now_us)
        raise StoreError(
            "the online rows of an entity are not all there",
            code="MS-4143",
            why=f"a part was missing in {_TRIES} tries, each with the newest list of parts",
            fix="run mainspring apply, which writes them anew from the log",
        )

    def _parts(self, row: bytes | None) -> tuple[Directory | None, WindowRows, MarkedRows | None]:
        return (None, empty_windows(self._layout), None) if row is None else read_busy(row, self._layout)

    def _at_hand(self, rows: WindowRows, beside: MarkedRows | None, now_us: int) -> _Read:
        events, layout = rows.events, self._layout
        stop = int(events.searchsorted(now_us, "right"))
        starts = events.searchsorted(now_us - self._spans, "right").tolist()
        windows = [_Window(layout, ((rows, start, stop),)) for start in starts]
        newest, found = (rows, stop - 1) if stop else None, None
        if stop:
            found = Newest(int(events[stop - 1])) if layout.until is None else _newest_of(rows, stop - 1, layout)
        if beside is not None:
            newest, found = self._newer(beside, newest, found, now_us)
        return self._answers(windows, newest), found

    def _answers(self, windows: Sequence[_Window], newest: tuple[WindowRows, int] | None) -> list[object]:
        alone = _Window(self._layout, () if newest is None else ((newest[0], newest[1], newest[1] + 1),))
        return [answer(alone if place is None else windows[place]) for place, answer in self._plans]

    def _newer(
        self,
        beside: MarkedRows,
        newest: tuple[WindowRows, int] | None,
        found: Newest | None,
        now_us: int,
        order: tuple[int, int, int] | None = None,
    ) -> tuple[tuple[WindowRows, int] | None, Newest | None]:
        """The newest row, which may be one beside the windows."""
        place = int(beside.rows.events.searchsorted(now_us, "right")) - 1
        if newest is not None:
            order = _order(*newest)
        if place < 0 or (order is not None and order > _order(beside.rows, place)):
            return newest, found
        return (beside.rows, place), _newest_of(beside.rows, place, self._layout, bool(beside.dead[place]))

    def _needed(self, held: _Held, now_us: int) -> tuple[list[int], list[bytes]]:
        """The chunks whose rows are read, and the keys of the sketches of others."""
        stop = held.part(now_us)
        whole = {stop} if held.splits(stop, now_us) else set()
        if stop < held.size:
            behind, place = self._back, stop - 1
        else:
            behind, place = self._back - int(held.tail.events.searchsorted(now_us, "right")), stop - 1
        while behind > 0 and place >= 0:
            whole.add(place)
            behind, place = behind - int(held.directory.counts[place]), place - 1
        starts = []
        for window, span in enumerate(self._spans.tolist()):
            start = held.part(now_us - span)
            if start < held.size and (held.splits(start, now_us - span) or (window in self._firsts and start < stop)):
                whole.add(start)
            starts += [start] if window in self._sketched else []
        sketches = {key for start in starts for key in held.sketches(start, stop, whole)}
        return sorted(whole), sorted(sketches)

    def _from(self, held: _Held, beside: MarkedRows | None, now_us: int) -> _Read:
        windows = [
            held.window(now_us - span, now_us, place in self._sketched)
            for place, span in enumerate(self._spans.tolist())
        ]
        newest, order = held.newest(now_us), held.newest_order(now_us)
        found = None
        if newest is not None:
            found = _newest_of(*newest, self._layout)
        elif order is not None:
            found = Newest(order[0])
        if beside is not None:
            newest, found = self._newer(beside, newest, found, now_us, order)
        return self._answers(windows, newest), found


def _newest_of(rows: WindowRows, place: int, layout: WindowLayout, dead: bool = False) -> Newest:
    ends = layout.until
    until = None if ends is None or rows.nulls[ends][place] else int(rows.columns[ends][place])
    return Newest(int(rows.events[place]), dead, until)


def _order(rows: WindowRows, place: int) -> tuple[int, int, int]:
    return int(rows.events[place]), int(rows.ingests[place]), int(rows.seqs[place])


class _Held:
    """What was read of an entity that has chunks."""

    def __init__(self, directory: Directory, tail: WindowRows, layout: WindowLayout) -> None:
        self.directory = directory
        self.tail = tail
        self.size = len(directory.chunks)
        self._layout = layout
        self._rows: dict[int, WindowRows] = {self.size: tail}
        self._sketches: dict[bytes, list[Sketch]] = {}

    def sketches(self, start: int, stop: int, read: Container[int]) -> list[bytes]:
        """The keys of sketches of some chunks, save those that are read; of a group where all of it counts."""
        key, groups, place = self.directory.key, self.directory.groups, start
        found: list[bytes] = []
        while place < stop:
            group = groups[place]
            end = place + 1
            if group and (place == 0 or groups[place - 1] != group):
                end += int(np.argmin(np.append(groups[place + 1 :] == group, False)))
                if end <= stop and not any(part in read for part in range(place, end)):
                    found.append(group_key(key, int(group)))
                    place = end
                    continue
            found += [sketch_key(key, int(self.directory.chunks[place]))] if place not in read else []
            place += 1
        return found

    def part(self, moment: int) -> int:
        """The chunk with the first row after a moment; one past the last for the tail."""
        return int(self.directory.lasts[0].searchsorted(moment, "right"))

    def splits(self, part: int, moment: int) -> bool:
        """Whether a chunk has rows up to a moment and after it."""
        return part < self.size and int(self.directory.firsts[part]) <= moment

    def fetch(self, get: Get, needed: tuple[Sequence[int], Sequence[bytes]]) -> bool:
        """Read chunks and sketches in one trip; whether all were there."""
        whole, sketched = needed
        key, chunks = self.directory.key, self.directory.chunks
        names = [chunk_key(key, int(chunks[part])) for part in whole]
        found = get([*names, *sketched]) if names or sketched else []
        if None in found:
            return False
        rows = [row for row in found if row is not None]
        for part, row in zip(whole, rows, strict=False):
            self._rows[part] = read_windows(row, self._layout.kinds)
        for name, row in zip(sketched, rows[len(whole) :], strict=True):
            self._sketches[name] = read_sketches(self._layout, row[BODY:])
        return True

    def window(self, since: int, until: int, sketched: bool) -> _Window:
        """The rows with ``since < event <= until``."""
        start, stop = self.part(since), self.part(until)
        slices, inner = [], []
        for part in range(start, min(stop, self.size - 1) + 1):
            if part not in self._rows:
                inner += [part] if part < stop else []
                continue
            rows = self._rows[part]
            slices.append(
                (rows, int(rows.events.searchsorted(since, "right")), int(rows.events.searchsorted(until, "right")))
            )
        if stop == self.size:
            events = self.tail.events
            slices.append(
                (self.tail, int(events.searchsorted(since, "right")), int(events.searchsorted(until, "right")))
            )
        sketches = [self._sketches[name] for name in self.sketches(start, stop, self._rows)] if sketched else []
        return _Window(self._layout, slices, self.directory, inner, sketches)

    def newest(self, until: int) -> tuple[WindowRows, int] | None:
        """The newest row up to a moment and its place among its neighbours, if it was read."""
        part = self.part(until)
        for one in (part, part - 1):
            rows = self._rows.get(one)
            stop = 0 if rows is None else int(rows.events.searchsorted(until, "right"))
            if rows is not None and stop:
                return rows, stop - 1
            if rows is None and (one < part or self.splits(one, until)):
                break
        return None

    def newest_order(self, until: int) -> tuple[int, int, int] | None:
        """Event, ingest and seq of the newest row up to a moment."""
        if (newest := self.newest(until)) is not None:
            return _order(*newest)
        part = self.part(until) - 1
        if part < 0:
            return None
        event, ingest, seq = self.directory.lasts[:, part].tolist()
        return event, ingest, seq


_FROM_THE_END = (Function.LAST, Function.LAST_N)


def _answer_of(feature: FeatureDef, layout: WindowLayout, fields: Mapping[str, Kind]) -> _Answer:
    function, column = feature.aggregate.function, feature.column
    if column is None or (column not in fields and function is Function.COUNT):  # a key is never null
        return _count_rows
    if column not in fields and function is Function.DISTINCT:
        return lambda window: 1 if _count_rows(window) else None
    if function in (Function.FIRST, Function.LAST, Function.LAST_N):
        return _of_rows(feature, column, layout, fields[column])
    if (function, column) in layout.sketches:
        return _of_sketches(feature, column, layout, fields[column])
    if column in layout.texts:
        return _count_texts(layout.texts.index(column))
    return _of_numbers(feature, layout.numbers.index(column), fields[column])


def _restored(value: Any, kind: Kind) -> object:
    if kind is Kind.BOOLEAN:
        return bool(value)
    if kind is Kind.DATE:
        return int(value) + _EPOCH_DAY
    return int(value) if kind in (Kind.INTEGER, Kind.TIMESTAMP) else float(value)


def _count_rows(window: _Window) -> int:
    inside = sum(stop - start for _, start, stop in window.slices)
    if window.directory is not None:
        inside += int(window.directory.counts[list(window.inner)].sum())
    return inside


def _count_texts(place: int) -> _Answer:
    def answer(window: _Window) -> object:
        inside = sum(text is not None for rows, a, b in window.slices for text in rows.texts[place][a:b])
        if window.directory is not None:
            inside += int(window.directory.filled[place][list(window.inner)].sum())
        return inside

    return answer


def _of_rows(feature: FeatureDef, column: str, layout: WindowLayout, kind: Kind) -> _Answer:
    """``first``, ``last`` and ``last_n``: null values count."""
    size, values = feature.aggregate.size or 1, _reading(column, layout, kind)

    def first(window: _Window) -> object:
        found = (values(rows, start, start + 1)[0] for rows, start, stop in window.slices if start < stop)
        return next(found, None)

    def newest(window: _Window) -> list[object]:
        found: list[object] = []
        for rows, start, stop in reversed(window.slices):
            found = values(rows, max(start, stop - size + len(found)), stop) + found
            if len(found) >= size:
                break
        return found

    if feature.aggregate.function is Function.FIRST:
        return first
    if feature.aggregate.function is Function.LAST_N:
        return lambda window: newest(window) or None
    return lambda window: next(iter(newest(window)), None)


def _reading(column: str, layout: WindowLayout, kind: Kind) -> Callable[[WindowRows, int, int], list[object]]:
    """Reads a column's values in some rows."""
    if column in layout.texts:
        text = layout.texts.index(column)
        return lambda rows, start, stop: list(rows.texts[text][start:stop])
    place = layout.numbers.index(column)

    def values(rows: WindowRows, start: int, stop: int) -> list[object]:
        nulls, data = rows.nulls[place], rows.columns[place]
        return [None if nulls[i] else _restored(data[i], kind) for i in range(start, stop)]

    return values


def _of_sketches(feature: FeatureDef, column: str, layout: WindowLayout, kind: Kind) -> _Answer:
    function, share = feature.aggregate.function, feature.aggregate.share
    place = layout.sketches.index((function, column))
    use = (function, column)
    text = column in layout.texts
    at = None if function in _EXTREMES else layout.hashes(column) if text else layout.numbers.index(column)

    def answer(window: _Window) -> object:
        if at is not None and len(window.slices) == 1 and not window.inner:
            rows, start, stop = window.slices[0]
            values = values_of(rows, at, start, stop)
            found = _distinct(values) if function is Function.DISTINCT else _quantile(values, share)
            if found is not _MANY:
                return found
        sketches = [sketch_of(use, layout, rows, a, b) for rows, a, b in window.slices]
        sketches += [sketch[place] for sketch in window.sketches]
        if not sketches:
            return None
        if function is Function.DISTINCT:
            return count_different(sketches)
        if function is Function.QUANTILE:
            return find_quantile(sketches, share)
        texts = [value for (values,) in sketches for value in values]
        return compared(function, column, layout, texts) if texts else None

    return answer


_EXTREMES = (Function.LOWEST, Function.HIGHEST)
_MANY = object()


def _distinct(values: NDArray[Any]) -> object:
    """How many different values, where they are few enough to be counted."""
    found = len(np.unique(values if values.dtype.kind == "u" else bits_of(values)))
    return (found or None) if found <= EXACT else _MANY


def _quantile(values: NDArray[Any], share: float) -> object:
    if not len(values):
        return None
    data = values.astype(np.float64)
    if np.isnan(data).any():
        return math.nan
    place = int(place_of(share, np.array([len(data)]))[0])
    return float(bucket_values(buckets(np.partition(data, place)[place : place + 1]))[0])


def _of_numbers(feature: FeatureDef, place: int, kind: Kind) -> _Answer:
    function = feature.aggregate.function
    alone, together = _ALONE[function], _TOGETHER[function]

    def restored(value: Any) -> object:
        if value is None or function not in (Function.TOTAL, *_EXTREMES):
            return value
        return _fits(value, feature) if function is Function.TOTAL else _restored(value, kind)

    def answer(window: _Window) -> object:
        if len(window.slices) == 1 and not window.inner:
            values = values_of(window.slices[0][0], place, *window.slices[0][1:])
            if function is Function.COUNT:
                return len(values)
            return restored(alone(values)) if len(values) else None
        assert window.directory is not None
        stored, inner = window.directory.numbers[place], list(window.inner)
        parts = [Numbers(*(array[inner] for array in stored.arrays()))]
        parts += [numbers_of(values_of(rows, place, a, b)) for rows, a, b in window.slices]
        all_ = Numbers(*map(np.concatenate, zip(*(part.arrays() for part in parts), strict=True)))
        if function is Function.COUNT:
            return int(all_.n.sum())
        some = Numbers(*(array[all_.n > 0] for array in all_.arrays()))
        return restored(together(some)) if len(some.n) else None

    return answer


def _fits(value: Any, feature: FeatureDef) -> object:
    if isinstance(value, float):
        return value
    if not -(1 << 63) <= value < 1 << 63:
        raise DataError(
            f"feature {feature.name} does not fit 64 bits",
            code="MS-2117",
            why=f"{feature.aggregate} passes 9223372036854775807 at this moment",
            fix="declare the column as float, or use avg",
        )
    return value


def _sum(values: NDArray[Any]) -> int | float:
    if values.dtype.kind == "f":
        with np.errstate(invalid="ignore", over="ignore"):
            return float(values.sum(dtype=np.longdouble))
    return (int((values >> 32).sum()) << 32) + int((values & _LOW).sum())


_LOW = (1 << 32) - 1


def _variance(values: NDArray[Any]) -> float | None:
    if len(values) < 2:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        wide = values.astype(np.longdouble)
        wide -= wide.sum() / len(values)
        return float((wide * wide).sum() / (len(values) - 1))


def _root(value: float | None) -> float | None:
    return None if value is None else math.sqrt(value)


_ALONE: Mapping[Function, Callable[[NDArray[Any]], Any]] = {
    Function.COUNT: len,
    Function.TOTAL: _sum,
    Function.AVG: lambda values: _sum(values) / len(values),
    Function.VARIANCE: _variance,
    Function.STDDEV: lambda values: _root(_variance(values)),
    Function.LOWEST: lambda values: values.min(),
    Function.HIGHEST: lambda values: values.max(),
}


def _sum_together(parts: Numbers) -> int | float:
    if parts.high.dtype.kind == "i":
        return (int(parts.high.sum()) << 32) + int(parts.low.sum())
    with np.errstate(invalid="ignore", over="ignore"):
        return float(parts.high.sum(dtype=np.longdouble) + parts.low.sum(dtype=np.longdouble))


def _variance_together(parts: Numbers) -> float | None:
    """By Chan, Golub and LeVeque: the spread within the parts and that of their means."""
    n = int(parts.n.sum())
    if n < 2:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        means = parts.means
        away = means - (means * parts.n).sum() / n
        return float((parts.spread.sum() + (parts.n * away * away).sum()) / (n - 1))


_TOGETHER: Mapping[Function, Callable[[Numbers], Any]] = {
    Function.COUNT: lambda parts: int(parts.n.sum()),
    Function.TOTAL: _sum_together,
    Function.AVG: lambda parts: _sum_together(parts) / int(parts.n.sum()),
    Function.VARIANCE: _variance_together,
    Function.STDDEV: lambda parts: _root(_variance_together(parts)),
    Function.LOWEST: lambda parts: parts.least.min(),
    Function.HIGHEST: lambda parts: parts.most.max(),
}
