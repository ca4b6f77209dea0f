"""The rows of a source or of a feature view that were set aside, with the reason of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import orjson

from mainspring.features.logs.ingest import REASON
from mainspring.features.logs.log import SourceTable
from mainspring.features.view import BATCH, SEQ, View
from mainspring.features.wal.commit import BATCHES
from mainspring.lazy import lazy
from mainspring.ports.tables import TableStore

if TYPE_CHECKING:
    import pyarrow.compute as pc
else:
    pc = lazy("pyarrow.compute")

__all__ = ["SetAside", "set_aside"]


class SetAside(msgspec.Struct, frozen=True):
    """What is in the quarantine of a source or of a feature view.

    Attributes:
        table: its table's name.
        rows: how many rows.
        reasons: how many of each reason, the commonest first.
        last: the rows that came last, the newest batch first, as texts by column; the reason is one of them.
    """

    table: str
    rows: int
    reasons: dict[str, int]
    last: list[dict[str, str | None]]


def set_aside(tables: TableStore, source: SourceTable | View, limit: int) -> SetAside | None:
    """The quarantine of a source or a view with at most `limit` rows of it; None when nothing was ever set aside.

    All rows' reasons are read, and of the rows themselves only the newest batches.
    """
    name = source.quarantine
    if tables.version(name) is None:
        return None
    counts = pc.value_counts(tables.read(name, columns=[REASON]).column(REASON)).to_pylist()
    reasons = {str(item["values"]): int(item["counts"]) for item in counts}
    return SetAside(
        name,
        sum(reasons.values()),
        dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        _newest(tables, name, limit),
    )


def _newest(tables: TableStore, name: str, limit: int) -> list[dict[str, str | None]]:
    found: list[dict[str, str | None]] = []
    for commit in tables.commits(name):
        if len(found) >= limit:
            break
        if commit.txn is not None:
            batches = orjson.loads(commit.notes[BATCHES]) if BATCHES in commit.notes else [commit.txn.app_id]
            rows = tables.read(name, where=[(BATCH, "in", batches)]).drop_columns([BATCH])
            rows = rows.select([column for column in rows.column_names if column != SEQ])
            found += [
                {column: value if value is None else str(value) for column, value in row.items()}
                for row in rows.slice(0, limit - len(found)).to_pylist()
            ]
    return found
