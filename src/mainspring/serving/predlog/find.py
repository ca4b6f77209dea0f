"""One prediction of an endpoint, by its id."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mainspring.lazy import lazy
from mainspring.ports.tables import TableStore
from mainspring.serving.predlog.reader import LogReader, log_table

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
    for rows in _parts(folder, endpoint, tables, prediction):
        place = pc.index(rows.column(_ID), prediction).as_py()
        if place >= 0:
            found: dict[str, Any] = rows.slice(place, 1).to_pylist()[0]
            return found
    return None


def _parts(folder: Path, endpoint: str, tables: TableStore, prediction: str) -> Iterator[pa.Table]:
    yield from LogReader(folder, endpoint, tables, taken={}).new_rows()
    lake = log_table(endpoint)
    if tables.version(lake) is not None:
        yield tables.read(lake, where=[(_ID, "==", prediction)])
