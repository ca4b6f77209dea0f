"""Rows that were taken away again: which of them was the newest known, at each moment that it changed.

A row of a log that another names in `RETRACTS` counts from the moment it was visible until that other became known.
The newest of such rows at a moment is no running maximum, for it may leave before those below it; so they are swept
once, entity by entity, with a heap of those that count (as in any sweep over intervals), and what remains is a step
function that one ASOF join can ask.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mainspring.features.view import RETRACTS
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
else:
    duckdb, np, pa = lazy("duckdb"), lazy("numpy"), lazy("pyarrow")

__all__ = ["has_retractions", "newest_steps"]


def has_retractions(opened: duckdb.DuckDBPyConnection, log: str) -> bool:
    """Whether a log (SQL of its relation) has rows that take others away."""
    ((found,),) = opened.sql(f"select count({RETRACTS}) from {log}").fetchall()
    return bool(found)


def newest_steps(rows: pa.Table) -> pa.Table:
    """The newest row that counts, by entity, from each moment on at which it is another one.

    Args:
        rows: ``entity``, ``vis`` and ``ended`` (int64 microseconds: a row counts in [vis, ended)), ``event``,
            ``ingest`` and ``seq``, which order the rows, and whatever else shall come along; sorted by ``entity``
            (from 0 on), in any order within one.

    Returns:
        The columns of `rows`, ``vis`` being the moment from which on the row is the newest; all but ``entity`` and
        ``vis`` are null where none counts.
    """
    names = ("entity", "vis", "ended", "event", "ingest", "seq")
    entity, vis, ended, event, ingest, seq = (rows.column(name).to_numpy() for name in names)
    rank = np.empty(len(rows), np.int64)
    rank[np.lexsort((seq, ingest, event))] = np.arange(len(rows))
    bounds = np.flatnonzero(np.diff(entity, prepend=-1)).tolist()
    first, since, best = [], [], []
    for start, stop in zip(bounds, [*bounds, len(rows)][1:], strict=True):
        part = slice(start, stop)
        for moment, place in _sweep(vis[part].tolist(), ended[part].tolist(), rank[part].tolist()):
            first.append(start)
            since.append(moment)
            best.append(None if place is None else start + place)
    found = rows.take(pa.array(best, pa.int64()))
    columns = {name: found.column(name) for name in rows.column_names}
    columns["entity"] = rows.column("entity").take(pa.array(first, pa.int64()))
    columns["vis"] = pa.chunked_array([pa.array(since, pa.int64())])
    return pa.table(columns)


def _sweep(vis: list[int], ended: list[int], rank: list[int]) -> Iterator[tuple[int, int | None]]:
    """(moment, place of the newest row that counts from then on, or None) whenever it changes."""
    order = sorted(range(len(vis)), key=vis.__getitem__)
    heap: list[tuple[int, int]] = []
    known, last = 0, None
    for moment in sorted({*vis, *ended}):
        while known < len(order) and vis[order[known]] <= moment:
            heapq.heappush(heap, (-rank[order[known]], order[known]))
            known += 1
        while heap and ended[heap[0][1]] <= moment:
            heapq.heappop(heap)
        best = heap[0][1] if heap else None
        if best != last:
            yield moment, best
            last = best
