"""All windows of a view, entity after entity, so that what is held at a time does not grow with the log."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

__all__ = ["PIECE", "Answered", "answer_windows", "piece_ends"]

PIECE = 500_000
"""Rows of the log and the spine together that are answered at a time, unless one entity has more."""

_MOST = 256


@dataclass(frozen=True, slots=True)
class Answered:
    """What was found.

    Attributes:
        columns: the features by name, in the order of the spine.
        kernels: the names of the kernels that were used, sorted, joined by ``+``.
    """

    columns: dict[str, pa.ChunkedArray]
    kernels: str


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

    Where a log is large, it is read once, sorted by entity, and answered in pieces of whole entities. The pieces
    follow from the questions and the size of the log, never from the machine, so that sums come out the same
    everywhere to the last bit.

    Args:
        opened: a connection with the relations of `mainspring.features.asof.ask`.
        view: the view.
        features: windowed features of it.
        log: SQL of the log's relation.
        held: rows that the log holds.
        rows: rows of the spine.
        as_known: whether rows count only from their ingest time on.
        retracted: whether rows of the log take others away.
        bounds: the first and the last moment of the whole spine, where this is one piece of it: it is not cut again.
    """
    moments = load.load_moments(opened)
    read = list(dict.fromkeys(feature.column for feature in features if feature.column is not None))
    longest = max(feature.window_us or 0 for feature in features)
    first, until = bounds or moments.bounds()
    since = first - longest
    statement = load.rows_sql(view, read, log, as_known=as_known, since_us=since, until_us=until, retracted=retracted)
    ends = piece_ends(moments, held) if bounds is None else [moments.entities()]
    cuts = np.append(0, np.searchsorted(moments.entity, ends))
    found: dict[str, list[pa.Array]] = {feature.name: [] for feature in features}
    used: set[str] = set()
    for number, events in enumerate(load.load_events(opened, view, read, statement, ends)):
        question = Question(events, _piece(moments, int(cuts[number]), int(cuts[number + 1])))
        for feature in features:
            found[feature.name].append(answer(question, view, feature, len(question.moments.t)))
        used |= question.used
    # A row that asks nothing, for its key or moment is null, is answered as one whose entity has no rows.
    nothing = Question(_none_of(events), _piece(moments, 0, 0))
    places = np.full(rows, len(moments.t), np.int64)
    places[moments.rid] = np.arange(len(moments.t))
    taken = pa.array(places)
    columns = {}
    for feature in features:
        parts = [*found.pop(feature.name), answer(nothing, view, feature, 1)]
        columns[feature.name] = pa.chunked_array([pa.concat_arrays(parts).take(taken)])
    return Answered(columns, "+".join(sorted(used)))


def piece_ends(moments: Moments, held: int) -> list[int]:
    """For each piece one past the number of its last entity: about as many questions in each, as many as are needed."""
    count = min(_MOST, -(-(len(moments.t) + held) // PIECE), max(1, len(moments.t)))
    last = moments.entities()
    places = np.arange(1, count) * len(moments.t) // count
    return [*np.unique(moments.entity[places]).tolist(), last] if count > 1 else [last]


def _piece(moments: Moments, start: int, stop: int) -> Moments:
    return Moments(moments.entity[start:stop], moments.t[start:stop], np.arange(stop - start))


def _none_of(events: Events) -> Events:
    """No rows, with the columns of some."""
    none: Array = np.zeros(0, np.int64)
    return Events(none, none, none, none, {name: values.empty() for name, values in events.columns.items()})
