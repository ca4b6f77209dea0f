"""The rows of a view's log entity by entity, in memory that does not grow with the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mainspring.features.duck import connection, quoted, scan
from mainspring.features.view import EVENT, HASH, RETRACTS, SEQ, View, log_schema
from mainspring.lazy import lazy
from mainspring.ports.tables import Limits, TableStore

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
else:
    duckdb, np, pa = lazy("duckdb"), lazy("numpy"), lazy("pyarrow")

__all__ = ["entities_in_order"]

_BATCH = 20_000
"""Rows that are handed on at once, or those of one entity that has more."""
_MEMORY = "384MiB"
_THREADS = 2
"""What sorts takes its memory by thread."""


def entities_in_order(
    view: View, tables: TableStore, version: int | None, after: int, to: int, first: int, now_us: int
) -> Iterator[tuple[pa.Table, int | None]]:
    """Rows of a version of a log in the order of their entities' `_hash`, all of an entity in one batch.

    Of a view without windows only rows that can answer come: those of an entity's newest event that has happened, of
    events to come, and those that take others away.

    Args:
        view: the view.
        tables: where its log is.
        version: the log's version; the newest when left out.
        after: the rows' `_seq` is greater than this.
        to: the greatest `_seq`.
        first: the least `_hash`.
        now_us: the present, in microseconds since 1970.

    Yields:
        Rows with the log's columns, and the `_hash` that the next batch begins with, or None after the last.

    Raises:
        StoreError: MS-4136, the log cannot be sorted in the memory that there may be.
    """
    schema = log_schema(view)
    limits = tables.limits
    if limits.memory is None:
        limits = Limits(_MEMORY, limits.spill or str(tables.beside(".spill")))
    held: list[pa.Table] = []
    count = 0
    with connection(limits, threads=_THREADS) as opened:
        log = scan(opened, tables.files(view.log, version), schema, "empty_log")
        missing = {RETRACTS} - set(tables.schema(view.log, version).names)
        statement = _sql(view, log, schema, missing, after, to, first, now_us)
        for batch in opened.sql(statement).to_arrow_reader(_BATCH):
            held.append(pa.Table.from_batches([batch]).cast(schema))
            count += len(batch)
            if count < _BATCH:
                continue
            rows = pa.concat_tables(held).combine_chunks()
            hashes = np.asarray(rows.column(HASH).combine_chunks())
            begun = int(hashes[-1])  # this entity may go on
            place = int(np.searchsorted(hashes, begun))
            if place:
                yield rows.slice(0, place), begun
            held, count = [rows.slice(place)], len(rows) - place
    if count:
        yield pa.concat_tables(held).combine_chunks(), None


def _sql(
    view: View, log: str, schema: pa.Schema, missing: set[str], after: int, to: int, first: int, now_us: int
) -> str:
    columns = ", ".join(f"null as {quoted(name)}" if name in missing else f"l.{quoted(name)}" for name in schema.names)
    meant = f"{SEQ} > {after} and {SEQ} <= {to} and {HASH} >= {first}"
    retracts = "false" if missing else f"{RETRACTS} is not null"
    if view.windowed:
        return f"select {columns} from {log} l where {meant} order by l.{HASH}"
    keys = ", ".join(quoted(name) for name in view.key_names)
    same = " and ".join(f"l.{quoted(name)} = t.{quoted(name)}" for name in view.key_names)
    return (
        f"with tops as (select {keys}, max({EVENT}) as top from {log} "
        f"where {meant} and epoch_us({EVENT}) <= {now_us} and not ({retracts}) group by all) "
        f"select {columns} from {log} l left join tops t on {same} "
        f"where {meant} and ({retracts} or l.{EVENT} >= coalesce(t.top, l.{EVENT})) order by l.{HASH}"
    )
