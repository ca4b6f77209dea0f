"""The window rows of an entity: made from log rows, and merged with what is stored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from mainspring.declare.aggregate import Function
from mainspring.declare.record import Kind
from mainspring.features.online.rows import MarkedRows, WindowRows
from mainspring.features.view import VALID_TO, View
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = [
    "BESIDE_MOST",
    "LONG_AGO",
    "SLACK_US",
    "WindowLayout",
    "empty_windows",
    "joined",
    "layout_of",
    "merge_windows",
    "taken",
    "version_hash",
]

SLACK_US = 7_200_000_000
"""Rows this much older than the longest window are kept too, so that a question about a moment up to two hours before
the newest row is answered exactly."""
BESIDE_MOST = 2048
"""Rows that have happened and are in no window, of which an entity keeps the newest: one that has more deleted or moved
within two hours answers exactly as far back as these go, and always about the present."""
LONG_AGO = -(1 << 62)
"""Before all events."""

_NUMPY: Mapping[Kind, str] = {
    Kind.FLOAT: "<f8",
    Kind.INTEGER: "<i8",
    Kind.TIMESTAMP: "<i8",
    Kind.BOOLEAN: "<i8",
    Kind.DATE: "<i8",
}
_SKETCHED = (Function.DISTINCT, Function.QUANTILE)
_COMPARED = (Function.LOWEST, Function.HIGHEST)


class WindowLayout(msgspec.Struct, frozen=True):
    """Where the columns of a view's window rows are.

    Attributes:
        numbers: the columns kept as arrays, in order.
        kinds: their NumPy kinds; ``<u8`` are hashes of the texts of a column, by which different ones are counted.
        texts: the columns kept as lists.
        decimals: those of them that are decimals, as they are written.
        keep_us: rows older than the newest that has happened by more than this are dropped.
        identified: whether rows carry the hash of their version id.
        until: the place among the numbers of the moment from which a row is valid no more, or None.
        sketches: what is kept of a chunk besides sums and extremes of numbers: function and column.
    """

    numbers: tuple[str, ...]
    kinds: tuple[str, ...]
    texts: tuple[str, ...]
    decimals: frozenset[str]
    keep_us: int
    identified: bool
    until: int | None
    sketches: tuple[tuple[Function, str], ...]

    def hashes(self, column: str) -> int:
        """The place among the numbers of the hashes of a text column."""
        return self.numbers.index(_hashed(column))


def layout_of(view: View) -> WindowLayout:
    """The layout of a view's window rows."""
    fields = [field for field in view.columns if field.type.kind in _NUMPY]
    texts = tuple(field.name for field in view.columns if field.type.kind not in _NUMPY)
    kept = {field.name for field in view.columns}  # keys are not
    uses = {(one.aggregate.function, str(one.column)) for one in view.windowed if one.column in kept}
    hashed = [name for name in texts if (Function.DISTINCT, name) in uses]
    ends = [VALID_TO] if view.has_valid_to else []
    sketches = [use for use in uses if use[0] in _SKETCHED or (use[0] in _COMPARED and use[1] in texts)]
    return WindowLayout(
        (*(field.name for field in fields), *ends, *map(_hashed, hashed)),
        (*(_NUMPY[field.type.kind] for field in fields), *("<i8" for _ in ends), *("<u8" for _ in hashed)),
        texts,
        frozenset(field.name for field in view.columns if field.type.kind is Kind.DECIMAL),
        view.window_us + SLACK_US,
        view.version_id is not None,
        len(fields) if ends else None,
        tuple(sorted(sketches)),
    )


def _hashed(column: str) -> str:
    return f"#{column}"  # no column's name


def version_hash(value: object) -> int:
    """A version id as blake2b-64."""
    return int.from_bytes(hashlib.blake2b(repr(value).encode(), digest_size=8).digest(), "little")


def empty_windows(layout: WindowLayout) -> WindowRows:
    """No rows."""
    return WindowRows(
        np.empty(0, np.int64),
        np.empty(0, np.int64),
        np.empty(0, np.int64),
        np.empty(0, np.uint64),
        tuple(np.empty(0, kind) for kind in layout.kinds),
        tuple(np.empty(0, np.uint8) for _ in layout.kinds),
        tuple([] for _ in layout.texts),
    )


def merge_windows(
    old: WindowRows,
    beside: MarkedRows | None,
    new: MarkedRows,
    layout: WindowLayout,
    latest: int | None,
    covered: int = LONG_AGO,
) -> tuple[WindowRows, MarkedRows | None]:
    """Stored rows and later ones: those of the windows, and those that are in none and yet can be the newest.

    Windows hold each row once, a corrected version in place of the one before, and neither deleted rows nor those
    that are too old. Which row is the newest is asked of all of them (rule 1), at moments from `SLACK_US` before the
    latest on: of the others those stay beside the windows that no row of the same event time comes after.

    Args:
        old: what is stored of the windows, save parts to which `new` changes nothing.
        beside: what is stored of other rows, if any.
        new: rows that arrived later.
        layout: of all.
        latest: the event of the newest row that has happened, of all rows; None where none has.
        covered: the event of a row in the other parts, at least `SLACK_US` before the latest.
    """
    stored = old if beside is None else joined(old, beside.rows)
    fresh = np.flatnonzero(~np.isin(new.rows.seqs, stored.seqs))
    both = joined(stored, taken(new.rows, fresh))
    dead, marked = np.zeros(len(both.events), np.uint8), bool(new.dead.any())
    if marked:
        dead[len(stored.events) :] = new.dead[fresh]
    inside = dead == 0
    if beside is not None:
        dead[len(old.events) : len(stored.events)] = beside.dead
        inside[len(old.events) : len(stored.events)] = False  # what was replaced stays replaced
    if layout.identified:
        by_arrival = np.lexsort((both.seqs, both.ingests))
        last = dict(zip(both.ids[by_arrival].tolist(), by_arrival.tolist(), strict=True))
        current = np.zeros(len(inside), bool)
        current[list(last.values())] = True
        inside &= current
    if latest is not None:
        inside &= both.events > latest - layout.keep_us
    order = np.lexsort((both.seqs, both.ingests, both.events))
    inside = inside[order]
    rows = taken(both, order[inside])
    if inside.all():
        return rows, None
    chosen = order[_newest_at_times(both.events[order], ~inside, latest, covered)]
    return rows, MarkedRows(taken(both, chosen), dead[chosen]) if len(chosen) else None


def _newest_at_times(
    events: NDArray[np.int64], outside: NDArray[np.bool_], latest: int | None, covered: int
) -> NDArray[np.int64]:
    """The places of the rows outside of the windows that are the newest at some moment that may be asked about.

    Args:
        events: of all rows, in order of rule 1.
        outside: which of them are in no window.
        latest: as in `merge_windows`.
        covered: as in `merge_windows`.
    """
    chosen = outside & np.append(events[1:] != events[:-1], True)
    if latest is None:
        return np.flatnonzero(chosen)
    first = max(int(events.searchsorted(latest - SLACK_US, "right")) - 1, int(events.searchsorted(covered)), 0)
    places = np.flatnonzero(chosen)
    places = places[places >= first]
    due = int(np.count_nonzero(events[places] <= latest))
    return places[max(due - BESIDE_MOST, 0) :]


def joined(a: WindowRows, b: WindowRows) -> WindowRows:
    """The rows of one after those of the other."""
    return WindowRows(
        np.concatenate([a.events, b.events]),
        np.concatenate([a.ingests, b.ingests]),
        np.concatenate([a.seqs, b.seqs]),
        np.concatenate([a.ids, b.ids]),
        tuple(np.concatenate(pair) for pair in zip(a.columns, b.columns, strict=True)),
        tuple(np.concatenate(pair) for pair in zip(a.nulls, b.nulls, strict=True)),
        tuple([*x, *y] for x, y in zip(a.texts or [[]] * len(b.texts), b.texts, strict=True)),
    )


def taken(rows: WindowRows, which: NDArray[np.int64]) -> WindowRows:
    """Some rows, by their places."""
    return WindowRows(
        rows.events[which],
        rows.ingests[which],
        rows.seqs[which],
        rows.ids[which] if len(rows.ids) else rows.ids,
        tuple(column[which] for column in rows.columns),
        tuple(null[which] for null in rows.nulls),
        tuple([text[i] for i in which.tolist()] for text in rows.texts),
    )
