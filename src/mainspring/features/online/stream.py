"""The rows of a view's log in batches of whole entities, in memory that does not grow with the log.

Rows that are many are first laid in files by ranges of `_hash`, in one pass over the log; then one file is read after
the other. To sort them instead takes more memory the more entities there are.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mainspring.errors import StoreError
from mainspring.features.duck import connection, quoted, scan
from mainspring.features.view import ASSUMED, BATCH, DEFINITION, EVENT, HASH, RETRACTS, SEQ, View, log_schema
from mainspring.lazy import lazy
from mainspring.ports.tables import TableStore

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
else:
    duckdb, np, pa = lazy("duckdb"), lazy("numpy"), lazy("pyarrow")

__all__ = ["entities_in_order"]

_BATCH = 50_000
"""Rows that a batch is meant to have; one of an entity that has more has those."""
_MOST = 256
"""Files that are open at once: of more than 12 million rows the batches are larger."""
_READ = 65_536
_THREADS = 1
"""Each holds row groups of the log, and laying them out takes longer than to read them."""
_END = 1 << 31
_UNUSED = (ASSUMED, DEFINITION, BATCH)
"""Columns of which the online store keeps nothing."""


def entities_in_order(
    view: View, tables: TableStore, version: int | None, after: int, to: int, first: int, now_us: int
) -> Iterator[tuple[pa.Table, int | None]]:
    """Rows of a version of a log in ranges of `_hash`, in order, so that all of an entity are in one batch.

    Of a view without windows only rows that can answer come: those of an entity's newest event that has happened, of
    events to come, and those that take others away. One process at a time may do this for a view.

    Args:
        view: the view.
        tables: where its log is.
        version: the log's version; the newest when left out.
        after: the rows' `_seq` is greater than this.
        to: the greatest `_seq`.
        first: the least `_hash`.
        now_us: the present, in microseconds since 1970.

    Yields:
        Rows with the columns that the online store needs, and the least `_hash` of those that are left, or None.

    Raises:
        StoreError: MS-4136, a batch does not fit in the memory that there may be; MS-4307, rows cannot be laid aside.
    """
    whole = log_schema(view)
    schema = pa.schema([field for field in whole if field.name not in _UNUSED])
    with connection(tables.limits, threads=_THREADS) as opened:
        log = scan(opened, tables.files(view.log, version), whole, "empty_log")
        held = set(tables.schema(view.log, version).names)
        columns = ", ".join(quoted(name) if name in held else f"null as {quoted(name)}" for name in schema.names)
        meant = f"from {log} where {SEQ} > {after} and {SEQ} <= {to} and {HASH} >= {first}"
        ((count,),) = opened.sql(f"select count(*) {meant}").fetchall()
        parts = max(1, min(_MOST, -(-count // _BATCH)))
        edges = [first + (_END - first) * part // parts for part in range(parts + 1)]
        reader = opened.sql(f"select {columns} {meant}").to_arrow_reader(_READ)
        if parts == 1:
            yield _answering(view, opened, reader.read_all().cast(schema), now_us), None
            return
        with _laid_out(tables.beside(f".spill/online-{view.id}"), reader, edges, schema) as files:
            for edge, file in zip(edges[1:], files, strict=True):
                with pa.memory_map(str(file)) as source, pa.ipc.open_stream(source) as stream:
                    rows = stream.read_all()
                    yield _answering(view, opened, rows, now_us), None if edge == _END else edge


@contextlib.contextmanager
def _laid_out(folder: Path, reader: pa.RecordBatchReader, edges: list[int], schema: pa.Schema) -> Iterator[list[Path]]:
    """Rows in a file for each range of `_hash`; what a process left that was killed is removed, too."""
    files = [folder / f"{number}.arrow" for number in range(len(edges) - 1)]
    try:
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            _lay_out(files, reader, edges, schema)
        except OSError as error:
            raise StoreError(
                "rows on their way to the online store cannot be laid aside",
                code="MS-4307",
                why=str(error),
                fix="see to space and rights beside the tables, and run it again: it goes on where it was",
            ) from error
        yield files
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lay_out(files: list[Path], reader: pa.RecordBatchReader, edges: list[int], schema: pa.Schema) -> None:
    with contextlib.ExitStack() as opened:
        sinks = [opened.enter_context(pa.OSFile(str(file), "wb")) for file in files]
        writers = [opened.enter_context(pa.ipc.new_stream(sink, schema)) for sink in sinks]
        for batch in reader:
            rows = pa.Table.from_batches([batch]).cast(schema)
            place = np.searchsorted(edges[1:-1], np.asarray(rows.column(HASH)), side="right")
            rows = rows.take(pa.array(np.argsort(place, kind="stable")))
            ends = np.cumsum(np.bincount(place, minlength=len(files))).tolist()
            for writer, start, end in zip(writers, [0, *ends], ends, strict=False):
                if end > start:
                    writer.write_table(rows.slice(start, end - start))


def _answering(view: View, opened: duckdb.DuckDBPyConnection, rows: pa.Table, now_us: int) -> pa.Table:
    """Of a view without windows, the rows that can answer."""
    if view.windowed or not len(rows):
        return rows
    keys = ", ".join(quoted(name) for name in view.key_names)
    opened.register("candidates", rows.append_column("place", pa.array(np.arange(len(rows)))))
    newest = (
        f"select {keys}, max({EVENT}) as top from candidates "
        f"where epoch_us({EVENT}) <= {now_us} and {RETRACTS} is null group by all"
    )
    places = opened.sql(
        f"select place from candidates left join ({newest}) using ({keys}) "
        f"where {RETRACTS} is not null or {EVENT} >= coalesce(top, {EVENT})"
    ).to_arrow_table()
    opened.unregister("candidates")
    return rows if len(places) == len(rows) else rows.take(places.column("place"))
