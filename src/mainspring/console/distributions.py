"""How the values of a column are distributed: counts by cell of equal width, or the commonest texts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from mainspring.console.state import ConsoleState
from mainspring.features.logs.log import newest, read_log, standing
from mainspring.features.steps import sources_of, views_of
from mainspring.features.view import DELETED, RETRACTS, SEQ
from mainspring.lazy import lazy
from mainspring.plan.graph import Node

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    np, pa, pc = lazy("numpy"), lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = ["columns_of", "distribution"]

_CELLS = 20
_MOST = 5_000_000
"""A column of more rows is not read for a page."""


def columns_of(state: ConsoleState, node: Node) -> list[str]:
    """The columns of a source's or view's log that can be looked at."""
    plan = state.plan()
    if node.kind == "source":
        return [field.name for field in sources_of(plan)[node.name].fields]
    view = views_of(plan)[node.name]
    return [field.name for field in (*view.keys, *view.columns)]


def distribution(state: ConsoleState, node: Node, column: str) -> dict[str, Any] | None:
    """The distribution of a column over the rows that stand; None where there is no such column, or no row.

    Args:
        state: the console's view of the process.
        node: a source or feature view.
        column: a column of its log.
    """
    if column not in columns_of(state, node):
        return None
    plan, tables = state.plan(), state.services.tables
    log = sources_of(plan)[node.name].log if node.kind == "source" else views_of(plan)[node.name].log
    held = None if tables.version(log) is None else newest(tables, log)
    if held is None or not held.rows:
        return None
    if held.rows > _MOST:
        return {"column": column, "rows": held.rows, "nulls": None, "cells": [], "why": "too many rows for a page"}
    rows = standing(read_log(tables, log, held.version, list({column, DELETED, SEQ, RETRACTS})))
    values = rows.filter(pc.invert(rows.column(DELETED))).column(column)
    return {"column": column, "rows": len(values), "nulls": values.null_count, "cells": _cells(values), "why": ""}


def _cells(column: pa.ChunkedArray) -> list[dict[str, object]]:
    kind, held = column.type, column.drop_null()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _numbers(held.cast(pa.float64()), lambda value: value)
    if pa.types.is_timestamp(kind):
        return _numbers(held.cast(pa.int64()).cast(pa.float64(), safe=False), _moment)
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
        return []
    return _commonest(held)


def _moment(us: float) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _numbers(column: pa.ChunkedArray, shown: Any) -> list[dict[str, object]]:
    values = column.to_numpy()
    finite = values[np.isfinite(values)]
    cells: list[dict[str, object]] = []
    if len(finite):
        counts, edges = np.histogram(finite, bins=_CELLS if finite.min() < finite.max() else 1)
        cells = [
            {"from": shown(low), "to": shown(high), "rows": count}
            for low, high, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
        ]
    strange = len(values) - len(finite)
    return cells + ([{"from": "NaN, infinite", "to": "", "rows": strange}] if strange else [])


def _commonest(column: pa.ChunkedArray) -> list[dict[str, object]]:
    counted = pc.value_counts(column).to_pylist()
    counted.sort(key=lambda item: (-item["counts"], str(item["values"])))
    cells: list[dict[str, object]] = [
        {"from": str(item["values"])[:80], "to": "", "rows": item["counts"]} for item in counted[:_CELLS]
    ]
    rest = sum(item["counts"] for item in counted[_CELLS:])
    others = f"{len(counted) - _CELLS:,} other values"
    return cells + ([{"from": others, "to": "", "rows": rest}] if rest else [])
