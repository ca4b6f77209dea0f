"""The window rows of an entity: made from log rows, merged with what is stored, and answered at a moment."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mainspring.declare.aggregate import Function
from mainspring.declare.record import Kind
from mainspring.features.online.rows import WindowRows
from mainspring.features.view import FeatureDef, View
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = ["SLACK_US", "WindowLayout", "empty_windows", "layout_of", "merge_windows", "version_hash", "window_answers"]

SLACK_US = 7_200_000_000
"""Rows this much older than the longest window are kept too, so that a question about a moment up to two hours before
the newest row is answered exactly."""

_NUMPY: Mapping[Kind, str] = {Kind.FLOAT: "<f8", Kind.INTEGER: "<i8", Kind.TIMESTAMP: "<i8", Kind.BOOLEAN: "<i8"}


@dataclass(frozen=True, slots=True)
class WindowLayout:
    """Where the columns of a view's window rows are.

    Attributes:
        numbers: the columns kept as arrays, in order.
        kinds: their NumPy kinds.
        texts: the columns kept as lists.
        keep_us: rows older than the newest that has happened by more than this are dropped.
        identified: whether rows carry the hash of their version id.
    """

    numbers: tuple[str, ...]
    kinds: tuple[str, ...]
    texts: tuple[str, ...]
    keep_us: int
    identified: bool


def layout_of(view: View) -> WindowLayout:
    """The layout of a view's window rows."""
    numbers = [field for field in view.columns if field.type.kind in _NUMPY]
    texts = tuple(field.name for field in view.columns if field.type.kind not in _NUMPY)
    kinds = tuple(_NUMPY[field.type.kind] for field in numbers)
    names = tuple(field.name for field in numbers)
    return WindowLayout(names, kinds, texts, view.window_us + SLACK_US, view.version_id is not None)


def version_hash(value: object) -> int:
    """A version id as blake2b-64."""
    return int.from_bytes(hashlib.blake2b(repr(value).encode(), digest_size=8).digest(), "little")


def empty_windows(layout: WindowLayout) -> WindowRows:
    """No rows."""
    return WindowRows(
        np.empty(0, np.int64),
        np.empty(0, np.int64),
        np.empty(0, np.uint64),
        tuple(np.empty(0, kind) for kind in layout.kinds),
        tuple(np.empty(0, np.uint8) for _ in layout.kinds),
        tuple([] for _ in layout.texts),
    )


def merge_windows(
    old: WindowRows, new: WindowRows, gone: Sequence[int], layout: WindowLayout, now_us: int
) -> WindowRows:
    """Stored rows and later ones: once each, a corrected version in place of the one before, old rows dropped.

    Args:
        old: what is stored.
        new: rows that arrived later, in order of arrival.
        gone: hashes of the version ids that were deleted.
        layout: of both.
        now_us: rows later than this are ahead of time, and push none out.
    """
    repeated = np.isin(new.seqs, old.seqs)
    both = _joined(old, _taken(new, np.flatnonzero(~repeated)))
    keep = np.ones(len(both.events), bool)
    if layout.identified:
        by_arrival = np.argsort(both.seqs, kind="stable")
        last = dict(zip(both.ids[by_arrival].tolist(), by_arrival.tolist(), strict=True))
        keep[:] = False
        keep[list(last.values())] = True
        keep &= ~np.isin(both.ids, np.array(list(gone), np.uint64))
    if len(both.events):
        due = both.events[both.events <= now_us]
        keep &= both.events > (due.max() if len(due) else both.events.min()) - layout.keep_us
    order = np.lexsort((both.seqs, both.events))
    return _taken(both, order[keep[order]])


def _joined(a: WindowRows, b: WindowRows) -> WindowRows:
    return WindowRows(
        np.concatenate([a.events, b.events]),
        np.concatenate([a.seqs, b.seqs]),
        np.concatenate([a.ids, b.ids]),
        tuple(np.concatenate(pair) for pair in zip(a.columns, b.columns, strict=True)),
        tuple(np.concatenate(pair) for pair in zip(a.nulls, b.nulls, strict=True)),
        tuple([*x, *y] for x, y in zip(a.texts or [[]] * len(b.texts), b.texts, strict=True)),
    )


def _taken(rows: WindowRows, which: NDArray[np.int64]) -> WindowRows:
    return WindowRows(
        rows.events[which],
        rows.seqs[which],
        rows.ids[which] if len(rows.ids) else rows.ids,
        tuple(column[which] for column in rows.columns),
        tuple(null[which] for null in rows.nulls),
        tuple([text[i] for i in which.tolist()] for text in rows.texts),
    )


Answerer = Callable[[WindowRows, int, int], object]


def window_answers(features: Sequence[FeatureDef], layout: WindowLayout) -> Callable[[WindowRows, int], list[object]]:
    """A function from window rows and a moment to the features' values: each over (moment - window, moment]."""
    windows = sorted({feature.window_us or 0 for feature in features})
    plans = [(windows.index(feature.window_us or 0), _answerer(feature, layout)) for feature in features]
    spans = np.array(windows, np.int64)

    def answers(rows: WindowRows, now_us: int) -> list[object]:
        events = rows.events
        stop = int(events.searchsorted(now_us, "right"))
        starts = events.searchsorted(now_us - spans, "right").tolist()
        return [answer(rows, starts[place], stop) for place, answer in plans]

    return answers


def _answerer(feature: FeatureDef, layout: WindowLayout) -> Answerer:
    function, column = feature.aggregate.function, feature.column
    if column is None:
        return lambda rows, start, stop: stop - start
    if column in layout.texts:
        return _text_answerer(function, layout.texts.index(column))
    place = layout.numbers.index(column)
    kind = feature.type.kind
    over = _NUMBERS[function]

    def answer(rows: WindowRows, start: int, stop: int) -> object:
        nulls = rows.nulls[place][start:stop]
        missing = int(np.count_nonzero(nulls))
        values = rows.columns[place][start:stop]
        if missing:
            values = values[nulls == 0]
        if function is Function.COUNT:
            return len(values)
        return None if not len(values) else _restored(over(values), kind)

    return answer


def _restored(value: Any, kind: Kind) -> object:
    if value is None:
        return None
    if kind is Kind.BOOLEAN:
        return bool(value)
    return int(value) if kind in (Kind.INTEGER, Kind.TIMESTAMP) else float(value)


def _variance(values: NDArray[Any]) -> float | None:
    return None if len(values) < 2 else float(np.var(values.astype(np.float64), ddof=1))


def _deviation(values: NDArray[Any]) -> float | None:
    found = _variance(values)
    return None if found is None else math.sqrt(found)


_NUMBERS: Mapping[Function, Callable[[NDArray[Any]], Any]] = {
    Function.TOTAL: lambda values: values.sum(),
    Function.AVG: lambda values: values.sum(dtype=np.float64) / len(values),
    Function.VARIANCE: _variance,
    Function.STDDEV: _deviation,
    Function.LOWEST: lambda values: values.min(),
    Function.HIGHEST: lambda values: values.max(),
    Function.COUNT: len,
}


def _text_answerer(function: Function, place: int) -> Answerer:
    def answer(rows: WindowRows, start: int, stop: int) -> object:
        values = [value for value in rows.texts[place][start:stop] if value is not None]
        if function is Function.COUNT:
            return len(values)
        if not values:
            return None
        return min(values) if function is Function.LOWEST else max(values)  # type: ignore[type-var]

    return answer
