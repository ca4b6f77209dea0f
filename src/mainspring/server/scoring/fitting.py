"""The rows of a batch that a model can score, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mainspring.declare.data import did_you_mean
from mainspring.declare.record import ColumnType
from mainspring.errors import DataError
from mainspring.features.cast import Reading, UnfitError, bad_rows, cast_column
from mainspring.features.view import arrow_type
from mainspring.lazy import lazy
from mainspring.server.scoring.shape import Carried

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    np, pa, pc = lazy("numpy"), lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = ["Fitted", "checked_columns", "fitted"]


class Fitted:
    """Rows in the types that are asked for.

    Attributes:
        columns: by name, of the rows that fit.
        rows: their places in the batch, (rows that fit,) int64.
        bad: place to what is wrong, for the others.
    """

    def __init__(self, columns: dict[str, pa.ChunkedArray], rows: Any, bad: dict[int, str]) -> None:
        self.columns = columns
        self.rows = rows
        self.bad = bad


def checked_columns(carried: Sequence[Carried], schema: pa.Schema, how: Reading, *, of: str) -> None:
    """Hold a table's columns against what is asked for, before a row is read.

    Args:
        carried: what is asked for.
        schema: what there is.
        how: how values are to be understood.
        of: the table's name.

    Raises:
        DataError: MS-5124, a column is missing, there twice, or of a type whose values never fit.
    """
    for column in carried:
        if (count := schema.names.count(column.name)) != 1:
            raise DataError(
                f"table {of!r} has {'no' if not count else 'more than one'} column {column.name!r}",
                code="MS-5124",
                why="the model, or the look-up of its features, asks for it",
                fix=did_you_mean(column.name, schema.names) if not count else "leave one of them out",
            )
        held = schema.field(column.name).type
        try:
            cast_column(pa.chunked_array([], held), column.type, how)
        except UnfitError as error:
            raise DataError(
                f"column {column.name!r} of table {of!r} is no {column.type.kind.value}",
                code="MS-5124",
                why=str(error),
                fix=f"cast it to {arrow_type(column.type)} before",
            ) from error


def fitted(batch: pa.Table, carried: Sequence[Carried], how: Reading) -> Fitted:
    """Cast what is asked for; a row with a value that does not fit, or without one that it needs, is told apart.

    Args:
        batch: rows.
        carried: what is asked for, which `checked_columns` has found there.
        how: how values are to be understood.
    """
    bad: dict[int, str] = {}
    for column in carried:
        held = batch.column(column.name)
        for row, value, why in _misfits(held, column.type, how):
            bad.setdefault(row, f"{column.name} is {value!r}: {why}")
    good = np.setdiff1d(np.arange(len(batch)), np.fromiter(bad, np.int64, len(bad)), assume_unique=True)
    columns = {one.name: cast_column(batch.column(one.name).take(good), one.type, how) for one in carried}
    for column in carried:
        if not column.type.nullable:
            for place in _missing(columns[column.name]):
                bad.setdefault(int(good[place]), f"{column.name} is missing")
    if len(good) + len(bad) > len(batch):
        kept = ~np.isin(good, np.fromiter(bad, np.int64, len(bad)))
        columns = {name: values.filter(pa.array(kept)) for name, values in columns.items()}
        good = good[kept]
    return Fitted(columns, good, bad)


def _misfits(column: pa.ChunkedArray, kind: ColumnType, how: Reading) -> list[tuple[int, object, str]]:
    try:
        cast_column(column, kind, how)
    except UnfitError:
        return bad_rows(column, kind, how, len(column))
    return []


def _missing(column: pa.ChunkedArray) -> Any:
    """The places of values that are not there; NaN is none."""
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    if not column.null_count:
        return ()
    return np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False))
