"""The window rows of an entity: made from log rows, and merged with what is stored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mainspring.declare.aggregate import Function
from mainspring.declare.record import Kind
from mainspring.features.online.rows import WindowRows
from mainspring.features.view import View
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = [
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

_NUMPY: Mapping[Kind, str] = {
    Kind.FLOAT: "<f8",
    Kind.INTEGER: "<i8",
    Kind.TIMESTAMP: "<i8",
    Kind.BOOLEAN: "<i8",
    Kind.DATE: "<i8",
}
_SKETCHED = (Function.DISTINCT, Function.QUANTILE)
_COMPARED = (Function.LOWEST, Function.HIGHEST)


@dataclass(frozen=True, slots=True)
class WindowLayout:
    """Where the columns of a view's window rows are.

    Attributes:
        numbers: the columns kept as arrays, in order.
        kinds: their NumPy kinds; ``<u8`` are hashes of the texts of a column, by which different ones are counted.
        texts: the columns kept as lists.
        decimals: those of them that are decimals, as they are written.
        keep_us: rows older than the newest that has happened by more than this are dropped.
        identified: whether rows carry the hash of their version id.
        sketches: what is kept of a chunk besides sums and extremes of numbers: function and column.
    """

    numbers: tuple[str, ...]
    kinds: tuple[str, ...]
    texts: tuple[str, ...]
    decimals: frozenset[str]
    keep_us: int
    identified: bool
    sketches: tuple[tuple[Function, str], ...]

    def hashes(self, column: str) -> int:
        """The place among the numbers of the hashes of a text column."""
        return self.numbers.index(_hashed(column))


def layout_of(view: View) -> WindowLayout:
    """The layout of a view's window rows."""
    fields = [field for field in view.columns if field.type.kind in _NUMPY]
    texts = tuple(field.name for field in view.columns if field.type.kind not in _NUMPY)
    uses = {(feature.aggregate.function, str(feature.column)) for feature in view.windowed}
    hashed = [name for name in texts if (Function.DISTINCT, name) in uses]
    sketches = [use for use in uses if use[0] in _SKETCHED or (use[0] in _COMPARED and use[1] in texts)]
    return WindowLayout(
        (*(field.name for field in fields), *map(_hashed, hashed)),
        (*(_NUMPY[field.type.kind] for field in fields), *("<u8" for _ in hashed)),
        texts,
        frozenset(field.name for field in view.columns if field.type.kind is Kind.DECIMAL),
        view.window_us + SLACK_US,
        view.version_id is not None,
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
    both = joined(old, taken(new, np.flatnonzero(~repeated)))
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
    order = np.lexsort((both.seqs, both.ingests, both.events))
    return taken(both, order[keep[order]])


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
