"""What one view answers to its questions: the newest row known, and windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from mainspring.features.offline.asof import (
    HITS,
    MISSING,
    PRESENT,
    STEPS,
    Shape,
    ask,
    gather_sql,
    hits_sql,
    retracted_sql,
)
from mainspring.features.offline.retract import has_retractions, newest_steps
from mainspring.features.view import FeatureDef, View, arrow_type
from mainspring.features.windows.pieces import answer_windows
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
else:
    duckdb, np, pa = lazy("duckdb"), lazy("numpy"), lazy("pyarrow")

__all__ = ["STATES", "Asked", "Joined", "join", "placed", "places_of"]

STATES = ("MISSING", "EXPIRED", "PRESENT")
"""The states of an answer, by number."""

_WIDE = {"string": "large_string", "binary": "large_binary"}
_MOST_BYTES = 1 << 31
_CHUNK = 1 << 16


class Joined(msgspec.Struct, frozen=True):
    """What was found, in the order of the spine.

    Attributes:
        columns: the features by name.
        state: by number, as `STATES`; None where nothing needed it.
        event: when the row that answers happened, likewise.
        kernel: the names of the kernels that windows were answered by.
    """

    columns: dict[str, pa.ChunkedArray]
    state: pa.ChunkedArray | None
    event: pa.ChunkedArray | None
    kernel: str

    def status(self) -> pa.ChunkedArray:
        """The states as words."""
        assert self.state is not None
        return pa.chunked_array([pa.array(STATES)]).take(self.state.cast(pa.int64()))


class Asked(msgspec.Struct, frozen=True):
    """What is asked of a view.

    Attributes:
        view: the view.
        features: of it, in order.
        log: SQL of its log's relation.
        as_known: whether rows count only from their ingest time on.
        status: whether the state and the event time are wanted too.
        tidy: whether no row of the log is late and no two of an entity happen at once.
        held: rows that the log holds.
        rows: rows of the spine.
        bounds: the first and the last moment that the whole spine asks about, where this is a part of it, or that the
            part does.
        stretch: whether the part is a stretch of one entity's time.
    """

    view: View
    features: tuple[FeatureDef, ...]
    log: str
    as_known: bool
    status: bool
    tidy: bool
    held: int
    rows: int
    bounds: tuple[int, int] | None = None
    stretch: bool = False


def join(opened: duckdb.DuckDBPyConnection, asked: Asked) -> Joined:
    """The answers of a view to the questions of the relation `mainspring.features.offline.asof.SPINE`."""
    view, log = asked.view, asked.log
    last = [feature for feature in asked.features if feature.window_us is None]
    windowed = [feature for feature in asked.features if feature.window_us is not None]
    columns: dict[str, pa.ChunkedArray] = {}
    state = event = None
    retracted = not asked.tidy and has_retractions(opened, log)
    ask(opened, len(view.keys))
    if last or asked.status:
        read = list(dict.fromkeys(str(feature.column) for feature in last))
        newest = _newest(opened, asked, retracted, read)
        state, event = newest.state, newest.event
        for feature in last:
            columns[feature.name] = newest.columns[str(feature.column)].cast(arrow_type(feature.type))
    kernel = ""
    if windowed:
        done = answer_windows(
            opened,
            view,
            windowed,
            log,
            held=asked.held,
            rows=asked.rows,
            as_known=asked.as_known,
            retracted=retracted,
            bounds=asked.bounds,
        )
        columns, kernel = columns | done.columns, done.kernels
    return Joined(columns, state, event, kernel)


class _Newest(msgspec.Struct, frozen=True):
    """The newest rows known, in the spine's order."""

    state: pa.ChunkedArray
    event: pa.ChunkedArray
    columns: dict[str, pa.ChunkedArray]


def _newest(opened: duckdb.DuckDBPyConnection, asked: Asked, retracted: bool, columns: Sequence[str]) -> _Newest:
    shape = Shape.of(asked.view, asked.as_known, asked.tidy, retracted)
    stretch = asked.bounds if asked.stretch else None
    if retracted and asked.as_known:
        opened.register(STEPS, newest_steps(opened.sql(retracted_sql(shape, asked.log)).to_arrow_table()))
    hits = opened.sql(hits_sql(shape, asked.log, stretch)).to_arrow_table()
    rid, status = hits.column("rid").to_numpy(), hits.column("status").to_numpy()
    state = np.full(asked.rows, MISSING, np.int8)
    state[rid] = status
    event = placed(hits.column("event"), places_of(rid, asked.rows)).cast(pa.timestamp("us", "UTC"))
    found: dict[str, pa.ChunkedArray] = {}
    if columns:
        opened.register(HITS, hits.select(["rid", "seq"]).filter(pa.array(status == PRESENT)))
        wide = opened.sql(gather_sql(columns, asked.log)).to_arrow_table()
        places = places_of(wide.column("rid").to_numpy(), asked.rows)
        for index, name in enumerate(columns):  # one at a time: the order as they come may go when it is read
            found[name] = placed(wide.column(f"c{index}"), places)
            wide = wide.drop_columns(f"c{index}")
    return _Newest(pa.chunked_array([pa.array(state)]), event, found)


def places_of(rid: NDArray[np.int64], rows: int) -> pa.Array:
    """Where the answer to each row of the spine is; null where there is none."""
    places = np.full(rows, -1, np.int64)
    places[rid] = np.arange(len(rid))
    return pa.array(places, mask=places < 0)


def placed(column: pa.ChunkedArray, places: pa.Array) -> pa.ChunkedArray:
    """A column in the order of `places`; texts beyond what 32-bit offsets reach come in several chunks."""
    wide = _WIDE.get(str(column.type)) if column.nbytes >= _MOST_BYTES else None
    if wide is None:
        return pa.chunked_array([column.combine_chunks().take(places)])
    source = column.cast(getattr(pa, wide)()).combine_chunks()
    starts = range(0, len(places), _CHUNK)
    return pa.chunked_array([source.take(places.slice(start, _CHUNK)).cast(column.type) for start in starts])
