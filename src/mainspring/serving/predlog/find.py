"""One prediction of an endpoint, by its id."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.lazy import lazy
from mainspring.ports.tables import TableStore
from mainspring.serving.predlog.reader import LogReader

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    pc = lazy("pyarrow.compute")

__all__ = ["find_prediction"]

_ID = "prediction_id"


def find_prediction(folder: Path, endpoint: str, tables: TableStore, prediction: str) -> dict[str, Any] | None:
    """The row of a prediction, by column name, or None when the log does not have it.

    Args:
        folder: where the log's segments are.
        endpoint: whose log it is.
        tables: where compacted segments are.
        prediction: the id that the answer gave.
    """

    def mine(rows: pa.Table) -> pa.Table:
        return rows.filter(pc.equal(rows.column(_ID), prediction))

    found = LogReader(folder, endpoint, tables).parts(((_ID, "==", prediction),), mine)
    rows: list[dict[str, Any]] = [row for part in found for row in part.to_pylist()]
    return rows[0] if rows else None
