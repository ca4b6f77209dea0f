"""Rows apart by the values of a column: which values have rows enough for a reference, and which rows are theirs.

A segment has cells of its own: what is rare among all rows may be all that it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from mainspring.lazy import lazy
from mainspring.monitoring.stats.baseline import Apart, Baseline, Segment
from mainspring.monitoring.stats.columns import encoded
from mainspring.monitoring.stats.register import Watched, register

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from mainspring.metrics.arrays import Ints
    from mainspring.monitoring.stats.columns import Column
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")

__all__ = ["LEAST_ROWS", "MOST", "partition", "register_segments", "segment_name", "take"]

MOST = 16
"""Values of one column that are watched apart: the commonest."""

LEAST_ROWS = 30
"""Rows that a value must have in a block of the reference, on average, to be watched apart."""


def segment_name(column: str, value: str | None) -> str:
    """What a segment is called in alarms, metrics and stored blocks: ``origin=JFK``, ``origin is null``."""
    return f"{column} is null" if value is None else f"{column}={value}"


def partition(column: Column) -> tuple[list[str | None], Ints]:
    """The distinct values of a column as text, null last, and the place of each row's value among them (rows,)."""
    codes = encoded(column)
    values: list[str | None] = [_text(value) for value in codes.words.values]
    return [*values, None], codes.codes.astype(np.int64)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def take(table: pa.Table, rows: Ints) -> pa.Table:
    """The rows of these numbers (n,), int64."""
    # Not `pa.array(rows)`: that imports pandas.
    return table.take(pa.Array.from_buffers(pa.int64(), len(rows), [None, pa.py_buffer(np.ascontiguousarray(rows))]))


def register_segments(
    baseline: Baseline,
    table: pa.Table,
    time: str,
    features: Sequence[Watched],
    columns: Mapping[str, Column],
    block: Literal["hour", "day"],
) -> Baseline:
    """The baseline with a reference for each value of each column that has rows enough.

    Args:
        baseline: of all rows.
        table: the reference rows.
        time: the column of the event time.
        features: what to watch.
        columns: by name, the value of each reference row (rows,): text, truths or whole numbers.
        block: the length of the blocks that will be compared.

    Raises:
        DataError: as `register`.
    """
    segments: list[Segment] = []
    apart: list[Apart] = []
    for name, column in columns.items():
        values, places = partition(column)
        counts = np.bincount(places, minlength=len(values))
        chosen = _chosen(values, counts, len(baseline.starts))
        for place in chosen:
            rows = take(table, np.flatnonzero(places == place))
            segments.append(Segment(column=name, value=values[place], baseline=register(rows, time, features, block)))
        seen = int((counts > 0).sum())
        left = int(counts.sum() - counts[chosen].sum())
        apart.append(Apart(column=name, watched=len(chosen), values=seen, rows_left=left))
    return msgspec.structs.replace(baseline, segments=tuple(segments), apart=tuple(apart))


def _chosen(values: Sequence[str | None], counts: Ints, blocks: int) -> list[int]:
    """The places of the values that are watched, the commonest first; equal ones by their text."""
    enough: Iterable[int] = np.flatnonzero(counts >= max(LEAST_ROWS * blocks, 1)).tolist()
    return sorted(enough, key=lambda place: (-counts[place], values[place] is None, values[place] or ""))[:MOST]
