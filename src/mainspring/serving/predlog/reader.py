"""Reading the prediction log: the lake, sealed segments and the rows that are being written, each row once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mainspring.lazy import lazy
from mainspring.ports.tables import TableStore, Txn, Where
from mainspring.serving.predlog.arrow import to_arrow
from mainspring.serving.predlog.categories import read_categories
from mainspring.serving.predlog.segment import open_segment, segment_name

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq
else:
    np, pa, pq = lazy("numpy"), lazy("pyarrow"), lazy("pyarrow.parquet")

__all__ = ["SEGMENT", "LogReader", "compact", "log_table"]

SEGMENT = "segment"
"""The column of the lake that names the segment a row came from."""

_LOOKS = 20
_SCORED = ("prediction_id", "score", "weight")
_EPOCH, _MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)


def log_table(endpoint: str) -> str:
    """The lake's table of an endpoint's predictions."""
    return f"predictions/{endpoint}"


class LogReader(msgspec.Struct):
    """Follows the log of an endpoint.

    Attributes:
        folder: where the segments are.
        endpoint: whose log it is.
        tables: where compacted segments are.
        since: rows of the lake older than this moment (UTC) are passed over; None takes all.
        taken: how many rows of each segment were given out; None before the first look.
    """

    folder: Path
    endpoint: str
    tables: TableStore
    since: datetime | None = None
    taken: dict[str, int] | None = None

    def new_rows(self) -> Iterator[pa.Table]:
        """The rows that were not given out before; a segment's rows keep their places when it is sealed."""
        if self.taken is None:
            self.taken = {}
            yield from self._lake(self.taken)
        for path in sorted([*self.folder.glob("seg-*.parquet"), *self.folder.glob("wal-*")], key=segment_name):
            name = segment_name(path)
            table = _read(path, self.taken.get(name, 0))
            if table is not None and len(table):
                self.taken[name] = self.taken.get(name, 0) + len(table)
                yield table

    def _lake(self, taken: dict[str, int]) -> Iterator[pa.Table]:
        table = log_table(self.endpoint)
        if self.tables.version(table) is None:
            return
        version = self.tables.version(table)
        counts = self.tables.read(table, version=version, columns=[SEGMENT]).column(SEGMENT).value_counts()
        for entry in counts.to_pylist():
            taken[entry["values"]] = entry["counts"]
        where = () if self.since is None else (("at", ">=", self.since),)
        yield self.tables.read(table, version=version, where=where).drop_columns([SEGMENT])

    def between(self, start: datetime, stop: datetime) -> pa.Table:
        """The rows of a span of event time (UTC), its stop left out, each once: `prediction_id`, `score`, `weight`."""
        first, last = (round((moment - _EPOCH) / _MICROSECOND) for moment in (start, stop))

        def mine(rows: pa.Table) -> pa.Table:
            at = np.asarray(rows.column("at").cast(pa.int64()))
            places = np.flatnonzero((at >= first) & (at < last))
            numbers = pa.Array.from_buffers(pa.int64(), len(places), [None, pa.py_buffer(places)])
            return rows.select(list(_SCORED)).take(numbers)

        parts = [_nothing(), *self.parts((("at", ">=", start), ("at", "<", stop)), mine, _SCORED)]
        return pa.concat_tables([part.cast(parts[0].schema) for part in parts])

    def parts(
        self, where: Sequence[Where], mine: Callable[[pa.Table], pa.Table], columns: Sequence[str] | None = None
    ) -> list[pa.Table]:
        """The rows that meet a condition, each once, whatever is sealed and compacted meanwhile.

        Args:
            where: the condition, for the lake.
            mine: the same condition, for the rows of a segment.
            columns: the columns wanted of the lake; all when left out.
        """
        for _ in range(_LOOKS):
            try:
                return self._parts(where, mine, columns)
            except FileNotFoundError:  # a segment went on between two looks: it is somewhere else now
                continue
        return self._parts(where, mine, columns)

    def _parts(
        self, where: Sequence[Where], mine: Callable[[pa.Table], pa.Table], columns: Sequence[str] | None
    ) -> list[pa.Table]:
        table, parts, moved = log_table(self.endpoint), [], set[str]()
        # A row goes from a segment that is written to one that is sealed, and on into the lake, and is in the next
        # place before it leaves the last one: looked for in this order, none is passed over.
        paths = [*self.folder.glob("wal-*"), *self.folder.glob("seg-*.parquet")]
        version = self.tables.version(table)
        if version is not None:
            wanted = None if columns is None else [*columns, SEGMENT]
            lake = self.tables.read(table, version=version, columns=wanted, where=where)
            there = self.tables.read(table, version=version, columns=[SEGMENT])
            moved = set(there.column(SEGMENT).unique().to_pylist())
            parts.append(lake.drop_columns([SEGMENT]))
        for path in paths:
            name = segment_name(path)
            if name in moved:
                continue
            rows = _rows(path, 0)
            moved.add(name)  # one that is sealed between the two looks is in both
            if rows is not None and len(rows):
                parts.append(mine(rows))
        return parts


def _nothing() -> pa.Table:
    kinds = (pa.string(), pa.float64(), pa.float32())
    return pa.table({name: pa.array([], kind) for name, kind in zip(_SCORED, kinds, strict=True)})


def _read(path: Path, first: int) -> pa.Table | None:
    """The rows of a segment from the `first` on; None when it cannot be read now."""
    try:
        return _rows(path, first)
    except FileNotFoundError:  # it was sealed meanwhile: the next look finds it
        return None


def _rows(path: Path, first: int) -> pa.Table | None:
    """The rows of a segment from the `first` on; None when there is nothing whole yet.

    Raises:
        FileNotFoundError: it was sealed, or compacted, since its folder was looked at.
    """
    if path.suffix == ".parquet":
        return pq.read_table(path).slice(first)
    segment = open_segment(path)
    if segment is None:
        return None
    return to_arrow(segment.schema, segment.records(first), read_categories(path.parent))


def compact(folder: Path, tables: TableStore, endpoint: str, keep: int = 0) -> int:
    """Move sealed segments into the lake, exactly once by the segment's name; how many rows were moved.

    Args:
        folder: where the segments are.
        tables: the table store.
        endpoint: whose log it is.
        keep: leave the newest so many segments for readers that follow the folder.
    """
    moved = 0
    sealed = sorted(folder.glob("seg-*.parquet"), key=segment_name)
    for path in sealed[: len(sealed) - keep]:
        rows = pq.read_table(path)
        rows = rows.append_column(SEGMENT, pa.repeat(segment_name(path), len(rows)))
        commit = tables.append(log_table(endpoint), rows, Txn(f"predlog/{segment_name(path)}", 1))
        moved += 0 if commit.repeated else len(rows)
        path.unlink()
    return moved
