"""Views that a function of the user's makes: running it, and what its answer must look like."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mainspring.declare.data import did_you_mean
from mainspring.declare.frame import Frame
from mainspring.declare.origin import Origin, of_function
from mainspring.declare.record import ColumnType, FieldSpec, Kind
from mainspring.errors import DataError, MainspringError, UserCodeError
from mainspring.features.cast import Reading, UnfitError, cast_column, misfit
from mainspring.features.decorated.choosing import chooses_any
from mainspring.features.duck import connection, query
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa
else:
    pl, pa = lazy("polars"), lazy("pyarrow")

__all__ = ["call", "conform", "described"]


def call(function: Callable[..., object], frames: Mapping[str, pa.Table], view: str) -> pa.Table:
    """What a view's function makes of its sources' rows.

    Args:
        function: takes one `polars.LazyFrame` a source, in order, or nothing; returns a LazyFrame, DataFrame, Frame
            or Arrow table, or DuckDB SQL over the sources' names.
        frames: the sources' rows by name, in order.
        view: the view's name, for errors.

    Raises:
        UserCodeError: MS-2118, the function raised, its SQL failed or reads a file, or it returned something else;
            MS-2290, its SQL takes some rows and does not say which.
    """
    try:
        taken = len(inspect.signature(function).parameters)
        given = [pl.LazyFrame(pl.from_arrow(table)) for table in frames.values()] if taken else []
        found = function(*given)
        if isinstance(found, str):
            return _query(found, frames, view, function)
        if isinstance(found, pl.LazyFrame):
            found = found.collect()
        if not hasattr(found, "__arrow_c_stream__"):
            raise TypeError(f"it returned {type(found).__name__}, not a LazyFrame or SQL")
        return Frame(found).arrow()
    except MainspringError:
        raise
    except Exception as error:
        raise UserCodeError(
            f"the function of feature view {view!r} failed",
            code="MS-2118",
            why=f"{type(error).__name__}: {str(error).partition(chr(10))[0]}",
            origin=str(_line_of(error, function)),
            fix="mend it; it is tried on empty tables first, to find its columns (or declare returns=Record)",
        ) from error


def _line_of(error: Exception, function: Callable[..., object]) -> Origin:
    """The last line of the function's own file that the error came through, or where the function begins."""
    begin = of_function(function)
    own = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == begin.file]
    return Origin(begin.file, own[-1]) if own else begin


def _query(sql: str, frames: Mapping[str, pa.Table], view: str, function: Callable[..., object]) -> pa.Table:
    with connection() as opened:
        if words := chooses_any(opened, sql):
            raise UserCodeError(
                f"the SQL of feature view {view!r} takes some rows and does not say which",
                code="MS-2290",
                why=f"it has {words}: other rows tomorrow, and no training set can be made again",
                origin=str(of_function(function)),
                fix="order by what tells the rows apart, or leave it out; to sample, compare hash(key) with a number",
            )
    return query(sql, frames)


def conform(
    function: Callable[..., object], table: pa.Table, fields: Sequence[FieldSpec], view: str
) -> dict[str, pa.ChunkedArray]:
    """The columns that a view needs of what its function returned, in their types.

    Raises:
        DataError: MS-2119, a column is missing or has another type.
    """
    origin = str(of_function(function))
    columns = {}
    for field in fields:
        if field.name not in table.column_names:
            raise DataError(
                f"feature view {view!r} returns no column {field.name!r}",
                code="MS-2119",
                why="its function keeps the entity's keys and the time, and adds its features",
                origin=origin,
                fix=did_you_mean(field.name, table.column_names),
            )
        column = table.column(field.name)
        try:
            columns[field.name] = cast_column(column, field.type, Reading())
        except UnfitError as error:
            raise DataError(
                f"column {field.name!r} of feature view {view!r} does not fit {field.type}",
                code="MS-2119",
                why=misfit(column, field.type, error),
                origin=origin,
                fix="cast it in the function",
            ) from error
    return columns


def described(kind: pa.DataType) -> ColumnType | None:
    """The column type of an Arrow type, or None when no column can hold it."""
    if pa.types.is_dictionary(kind):
        return described(kind.value_type)
    if pa.types.is_decimal(kind):
        return ColumnType(Kind.DECIMAL, True, kind.precision, kind.scale)
    if pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type):
        return ColumnType(Kind.VECTOR, True, length=kind.list_size)
    for fits, found in (
        (pa.types.is_boolean, Kind.BOOLEAN),
        (pa.types.is_integer, Kind.INTEGER),
        (pa.types.is_floating, Kind.FLOAT),
        (pa.types.is_timestamp, Kind.TIMESTAMP),
        (pa.types.is_date, Kind.DATE),
    ):
        if fits(kind):
            return ColumnType(found, True)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return ColumnType(Kind.STRING, True)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return ColumnType(Kind.BYTES, True)
    return None
