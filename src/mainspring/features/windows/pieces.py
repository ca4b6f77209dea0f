"""All windows of a view, piece after piece, so that what is held at a time does not grow with the log.

A piece is the questions of some whole entities or, where one entity asks more than a piece's share, those of a stretch
of its time, with the rows that its windows reach back to.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from mainspring.features.view import FeatureDef, View
from mainspring.features.windows import load
from mainspring.features.windows.answer import answer
from mainspring.features.windows.question import Question
from mainspring.features.windows.timeline import Array, Events, Moments
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
else:
    duckdb, np, pa = lazy("duckdb"), lazy("numpy"), lazy("pyarrow")

__all__ = ["PIECE", "Answered", "Piece", "answer_windows", "longest_window", "pieces_of"]

PIECE = 500_000
"""Rows of the log and the spine together that are answered at a time."""

_MOST = 256


class Answered(msgspec.Struct, frozen=True):
    """What was found.

    Attributes:
        columns: the features by name, in the order of the spine.
        kernels: the names of the kernels that were used, sorted, joined by ``+``.
    """

    columns: dict[str, pa.ChunkedArray]
    kernels: str


class Piece(msgspec.Struct, frozen=True):
    """Questions that are answered together.

    Attributes:
        start: the place of the first among all moments.
        stop: one past the place of the last.
        first: the number of the first entity.
        end: one past the number of the last.
        span: the first and the last moment, where the piece is a stretch of one entity's time; None where it is whole
            entities.
    """

    start: int
    stop: int
    first: int
    end: int
    span: tuple[int, int] | None = None


def answer_windows(
    opened: duckdb.DuckDBPyConnection,
    view: View,
    features: Sequence[FeatureDef],
    log: str,
    *,
    held: int,
    rows: int,
    as_known: bool,
    retracted: bool,
    bounds: tuple[int, int] | None = None,
) -> Answered:
    """The windowed features of a view at all questions.

    Where a log is large, it is read once, sorted by entity, and answered in pieces. The pieces follow from the
    questions and the size of the log, never from the machine, so that sums come out the same everywhere to the last
    bit.

    Args:
        opened: a connection with the relations of `mainspring.features.offline.asof.ask`.
        view: the view.
        features: windowed features of it.
        log: SQL of the log's relation.
        held: rows that the log holds.
        rows: rows of the spine.
        as_known: whether rows count only from their ingest time on.
        retracted: whether rows of the log take others away.
        bounds: where this is one piece, which is not cut again: the first and the last moment of the whole spine, or
            of the piece where it is a stretch of one entity's time.
    """
    moments = load.load_moments(opened)
    read = list(dict.fromkeys(feature.column for feature in features if feature.column is not None))
    longest = longest_window(features)
    first, until = bounds or moments.bounds()
    since = first - longest
    statement = load.rows_sql(view, read, log, as_known=as_known, since_us=since, until_us=until, retracted=retracted)
    pieces = pieces_of(moments, held, longest) if bounds is None else [_whole(moments)]
    reaches = [_reach(piece, longest) for piece in pieces]
    found: dict[str, list[pa.Array]] = {feature.name: [] for feature in features}
    used: set[str] = set()
    for piece, events in zip(pieces, load.load_events(opened, view, read, statement, reaches), strict=True):
        question = Question(events, _moments_of(moments, piece.start, piece.stop))
        for feature in features:
            found[feature.name].append(answer(question, view, feature, len(question.moments.t)))
        used |= question.used
    # A row that asks nothing, for its key or moment is null, is answered as one whose entity has no rows.
    nothing = Question(_none_of(events), _moments_of(moments, 0, 0))
    places = np.full(rows, len(moments.t), np.int64)
    places[moments.rid] = np.arange(len(moments.t))
    taken = pa.array(places)
    columns = {}
    for feature in features:
        parts = [*found.pop(feature.name), answer(nothing, view, feature, 1)]
        columns[feature.name] = pa.chunked_array([pa.concat_arrays(parts).take(taken)])
    return Answered(columns, "+".join(sorted(used)))


def longest_window(features: Iterable[FeatureDef]) -> int:
    """The longest window of features, microseconds; 0 where there is none."""
    return max((feature.window_us or 0 for feature in features), default=0)


def pieces_of(moments: Moments, held: int, longest: int) -> list[Piece]:
    """The pieces of questions, in order: about as many questions in each, and as many pieces as are needed.

    An entity is cut in time where it asks more than a piece's share, but not into stretches that are shorter than the
    longest window on the average: the rows before a stretch, which its windows reach back to, are read once more.

    Args:
        moments: the questions.
        held: rows that the log holds.
        longest: the longest window, microseconds.
    """
    size = len(moments.t)
    count = min(_MOST, -(-(size + held) // PIECE), max(1, size))
    if count <= 1:
        return [_whole(moments)]
    asking = moments.entity[np.arange(1, count) * size // count]
    cuts = np.unique(asking)
    starts = np.searchsorted(moments.entity, cuts, "left")
    stops = np.searchsorted(moments.entity, cuts, "right")
    places: list[int] = [0]
    spans: dict[int, tuple[int, int]] = {}
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        share = -(-(stop - start) * count // size)
        time = int(moments.t[stop - 1] - moments.t[start])
        parts = min(share, time // longest if longest else share)
        within = [start + number * (stop - start) // parts for number in range(parts)] if parts > 1 else [start]
        places += within
        if parts > 1:
            places.append(stop)
            for one, two in itertools.pairwise([*within, stop]):
                spans[one] = int(moments.t[one]), int(moments.t[two - 1])
    cut = sorted({*places, size})
    return [
        Piece(one, two, int(moments.entity[one]), int(moments.entity[two - 1]) + 1, spans.get(one))
        for one, two in itertools.pairwise(cut)
    ]


def _whole(moments: Moments) -> Piece:
    return Piece(0, len(moments.t), 0, moments.entities())


def _reach(piece: Piece, longest: int) -> load.Reach:
    if piece.span is None:
        return load.Reach(piece.first, piece.end)
    return load.Reach(piece.first, piece.end, piece.span[0] - longest, piece.span[1])


def _moments_of(moments: Moments, start: int, stop: int) -> Moments:
    return Moments(moments.entity[start:stop], moments.t[start:stop], np.arange(stop - start))


def _none_of(events: Events) -> Events:
    """No rows, with the columns of some."""
    none: Array = np.zeros(0, np.int64)
    return Events(none, none, none, none, {name: values.empty() for name, values in events.columns.items()})
