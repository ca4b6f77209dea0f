"""Rows in JSON as people send them to containers: lists, instances, columns, data frames, one object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mainspring.protocols.arrays import inputs_of_columns, inputs_of_rows, read_nested
from mainspring.protocols.bodies import decode_json
from mainspring.protocols.http import Fault
from mainspring.serving.calls import Array
from mainspring.serving.served import ServedModel

__all__ = ["SHAPES", "read_lines", "read_records"]

SHAPES = (
    '[[..], ..], {"instances": [..]}, {"inputs": ..}, {"data": [..]}, {"input_data": {"columns", "data"}} or one row'
)


def read_records(value: Any, served: ServedModel, max_rows: int) -> dict[str, Array]:
    """A JSON value as a model's inputs.

    Raises:
        Fault: 400, it is none of `SHAPES`, or does not fit the model; 413, there are too many rows.
        Rejected: as `read_nested` raises.
    """
    if isinstance(value, list):
        if value and not isinstance(value[0], (list, dict)):
            value = [value]  # one row
        return inputs_of_rows(value, served, max_rows)
    if not isinstance(value, dict):
        raise Fault(400, f"the body is none of {SHAPES}")
    for key, read in _KEYS.items():
        if key in value:
            return read(value[key], served, max_rows)
    return _one(value, served, max_rows)


def _one(value: Mapping[str, Any], served: ServedModel, max_rows: int) -> dict[str, Array]:
    """One row, or columns that are lists."""
    names = {tensor.name for tensor in served.taken(tuple(value))}
    if not names.intersection(value):
        raise Fault(400, f"the body is none of {SHAPES}, with the columns {', '.join(t.name for t in served.columns)}")
    if any(isinstance(inner, list) for inner in value.values()):
        return inputs_of_columns(dict(value), served, max_rows)
    return inputs_of_rows([value], served, max_rows)


def _frame(value: Any, served: ServedModel, max_rows: int) -> dict[str, Array]:
    """A data frame: its columns' names, and a list a row."""
    if not isinstance(value, dict):
        return read_records(value, served, max_rows) if isinstance(value, list) else _no_frame()
    columns, data = value.get("columns"), value.get("data")
    if columns is None and isinstance(data, list):
        return inputs_of_rows(data, served, max_rows)
    if not isinstance(columns, list) or not isinstance(data, list) or not all(isinstance(c, str) for c in columns):
        return _no_frame()
    if len(set(columns)) != len(columns):
        raise Fault(400, "a column is there twice")
    if len(data) > max_rows:
        raise Fault(413, f"{len(data)} rows; at most {max_rows} are served at once")
    if any(not isinstance(row, list) or len(row) != len(columns) for row in data):
        raise Fault(400, f"every row of data is a list of {len(columns)} values, one a column")
    if not data:
        raise Fault(400, "data has no rows")
    return inputs_of_columns(dict(zip(columns, map(list, zip(*data, strict=True)), strict=True)), served, max_rows)


def _no_frame() -> dict[str, Array]:
    raise Fault(400, 'a data frame is {"columns": [..], "data": [[..], ..]}')


_KEYS: Mapping[str, Callable[[Any, ServedModel, int], dict[str, Array]]] = {
    "instances": inputs_of_rows,
    "inputs": inputs_of_columns,
    "dataframe_split": _frame,
    "dataframe_records": inputs_of_rows,
    "input_data": _frame,
    "data": _frame,
}


def read_lines(body: bytes, served: ServedModel, max_rows: int) -> dict[str, Array]:
    """Lines of JSON, a row each: a list of numbers, an object of columns, or ``{"features": [..]}``.

    Raises:
        Fault: as `read_records` raises.
        Rejected: as `read_nested` raises.
    """
    lines = [line for line in body.splitlines() if line.strip()]
    if len(lines) > max_rows:
        raise Fault(413, f"{len(lines)} rows; at most {max_rows} are served at once")
    rows = [_line(line) for line in lines]
    if rows and isinstance(rows[0], list):
        return {served.inputs[0].name: read_nested(rows, served.inputs[0], max_rows)}
    return inputs_of_rows(rows, served, max_rows)


def _line(line: bytes) -> Any:
    row = decode_json(line)
    return row["features"] if isinstance(row, dict) and list(row) == ["features"] else row
