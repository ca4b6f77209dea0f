"""Carrying out on-demand functions: a row at a time or a batch, with one meaning of their values on both paths.

What a function is given and returns are Python's values: aware datetimes in UTC, dates, decimals, lists. `native` and
`kept` lead from and to the values that online rows hold, so that both paths hand over the same.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from mainspring.declare.data import did_you_mean
from mainspring.declare.frame import Frame
from mainspring.declare.origin import Origin, of_function
from mainspring.declare.record import ColumnType, FieldSpec, Kind, Record
from mainspring.errors import DataError, MainspringError, UserCodeError
from mainspring.features.cast import Reading, UnfitError, cast_column, misfit
from mainspring.features.decimals import to_scale
from mainspring.features.duck import query
from mainspring.features.selection import Calculation
from mainspring.features.view import arrow_type
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa
else:
    pl, pa = lazy("polars"), lazy("pyarrow")

__all__ = ["Runner", "kept", "native", "runner_of"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT64 = 1 << 63
_ALONE = 8
"""How many rows of a batch are computed alone too, to see that no row looks at another."""

Function = Callable[..., Any]


class Runner(Protocol):
    """An on-demand function, ready to be called."""

    def values(self, columns: Sequence[Sequence[Any]]) -> list[list[Any]]:
        """Columns of Python values in, a list of values for each feature out."""

    def table(self, table: pa.Table) -> list[pa.ChunkedArray]:
        """The same of an Arrow table whose columns bear the parameters' names."""


def runner_of(calculation: Calculation, function: Function) -> Runner:
    """The runner of an on-demand function.

    Its methods raise:
        UserCodeError: MS-2161, the function failed, at which row; MS-2163, rows of a batch depend on each other.
        DataError: MS-2162, what it returned does not fit its declaration.
    """
    if calculation.written == "scalar":
        return _Scalar(calculation, function)
    return _Batch(calculation, function)


class _Scalar:
    def __init__(self, calculation: Calculation, function: Function) -> None:
        self._of = calculation
        self._function = function
        self._names = tuple(given.name for given in calculation.inputs)
        self._fields = calculation.fields
        self._single = len(self._fields) == 1 and self._fields[0].name == calculation.name
        self._fit = [_fitting(one.type) for one in self._fields]

    def values(self, columns: Sequence[Sequence[Any]]) -> list[list[Any]]:
        function, names = self._function, self._names
        found: list[list[Any]] = [[] for _ in self._fields]
        for row, given in enumerate(zip(*columns, strict=True)):
            try:
                answer = function(**dict(zip(names, given, strict=True)))
            except MainspringError:
                raise
            except Exception as error:
                raise _failed(self._of, function, error, row, dict(zip(names, given, strict=True))) from error
            parts = [answer] if self._single and not isinstance(answer, Record | Mapping) else self._parts(answer, row)
            for one, fit, part, into in zip(self._fields, self._fit, parts, found, strict=True):
                try:
                    into.append(fit(part))
                except (TypeError, ValueError, ArithmeticError) as error:
                    raise self._unfit(one, part, row, str(error)) from None
        return found

    def table(self, table: pa.Table) -> list[pa.ChunkedArray]:
        columns = [python_values(table.column(given.name), given.type) for given in self._of.inputs]
        found = self.values(columns)
        return [
            pa.chunked_array([pa.array(values, arrow_type(one.type))])
            for one, values in zip(self._fields, found, strict=True)
        ]

    def _parts(self, answer: object, row: int) -> list[Any]:
        held = vars(answer) if isinstance(answer, Record) else answer
        if not isinstance(held, Mapping):
            raise self._unfit(self._fields[0], answer, row, "it is no record")
        names = {one.name for one in self._fields}
        if set(held) != names:
            wrong = sorted(set(held) ^ names)[0]
            raise self._unfit(self._fields[0], answer, row, f"it differs from the declared record in {wrong!r}")
        return [held[one.name] for one in self._fields]

    def _unfit(self, field: FieldSpec, value: object, row: int, why: str) -> DataError:
        return DataError(
            f"on-demand feature {_title(self._of, field)} of row {row} is {repr(value)[:80]}, not {field.type}",
            code="MS-2162",
            why=why,
            origin=str(of_function(self._function)),
            fix="return what the function's annotation promises, or None where that is allowed",
        )


class _Batch:
    def __init__(self, calculation: Calculation, function: Function) -> None:
        self._of = calculation
        self._function = function

    def values(self, columns: Sequence[Sequence[Any]]) -> list[list[Any]]:
        arrays = {
            given.name: pa.array(column, arrow_type(given.type))
            for given, column in zip(self._of.inputs, columns, strict=True)
        }
        found = self._answers(pa.table(arrays))
        return [python_values(column, one.type) for one, column in zip(self._of.fields, found, strict=True)]

    def table(self, table: pa.Table) -> list[pa.ChunkedArray]:
        found = self._answers(table)
        step = max(len(table) // _ALONE, 1)
        for row in range(0, len(table), step) if len(table) > 1 else ():
            self._is_alone(table, found, row)
        return found

    def _is_alone(self, table: pa.Table, found: Sequence[pa.ChunkedArray], row: int) -> None:
        alone = self._answers(table.slice(row, 1))
        for one, together, single in zip(self._of.fields, found, alone, strict=True):
            if not _same(together[row].as_py(), single[0].as_py()):
                raise UserCodeError(
                    f"on-demand feature {_title(self._of, one)} of row {row} depends on other rows",
                    code="MS-2163",
                    why=f"it is {together[row].as_py()!r} among {len(table)} rows and {single[0].as_py()!r} alone, "
                    "as a request asks",
                    origin=str(of_function(self._function)),
                    fix="compute each row of its own columns; what goes over rows is a feature view's business",
                )

    def _answers(self, table: pa.Table) -> list[pa.ChunkedArray]:
        answer = self._called(table)
        if len(answer) != len(table):
            raise DataError(
                f"on-demand function {self._of.name!r} returned {len(answer)} rows for {len(table)}",
                code="MS-2162",
                why="each row of its inputs has one answer",
                origin=str(of_function(self._function)),
                fix="keep the rows and their order",
            )
        return [self._column(answer, one) for one in self._of.fields]

    def _called(self, table: pa.Table) -> pa.Table:
        try:
            if self._of.written == "sql":
                return query(str(self._function()), {"inputs": table}, threads=1, ordered=True)
            found = self._function(pl.from_arrow(table))
            if isinstance(found, pl.LazyFrame):
                found = found.collect()
            if not isinstance(found, pl.DataFrame):
                raise TypeError(f"it returned {type(found).__name__}, not a DataFrame")
            return Frame(found).arrow()
        except MainspringError:
            raise
        except Exception as error:
            raise _failed(self._of, self._function, error, None, {}) from error

    def _column(self, table: pa.Table, field: FieldSpec) -> pa.ChunkedArray:
        origin = str(of_function(self._function))
        if field.name not in table.column_names:
            raise DataError(
                f"on-demand function {self._of.name!r} returns no column {field.name!r}",
                code="MS-2162",
                origin=origin,
                fix=did_you_mean(field.name, table.column_names),
            )
        column = table.column(field.name)
        try:
            found = cast_column(column, field.type, Reading())
        except UnfitError as error:
            raise DataError(
                f"on-demand feature {_title(self._of, field)} does not fit {field.type}",
                code="MS-2162",
                why=misfit(column, field.type, error),
                origin=origin,
                fix="cast it in the function",
            ) from error
        if found.null_count and not field.type.nullable:
            raise DataError(
                f"on-demand feature {_title(self._of, field)} is null, and is declared {field.type}",
                code="MS-2162",
                origin=origin,
                fix="declare it ... | None, or fill it in the function",
            )
        return found


def _title(calculation: Calculation, field: FieldSpec) -> str:
    one = field.name == calculation.name
    return repr(field.name if one else f"{calculation.name}.{field.name}")


def _failed(
    calculation: Calculation, function: Function, error: Exception, row: int | None, given: Mapping[str, object]
) -> UserCodeError:
    begin = of_function(function)
    own = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == begin.file]
    at = "" if row is None else f" at row {row}"
    shown = ", ".join(f"{name}={repr(value)[:40]}" for name, value in given.items())
    told = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return UserCodeError(
        f"on-demand feature {calculation.name!r} failed{at}",
        code="MS-2161",
        why=f"{told} ({shown})" if shown else told,
        origin=str(Origin(begin.file, own[-1]) if own else begin),
        fix="mend the function; return None for what cannot be computed",
    )


def _same(left: object, right: object) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return (math.isnan(left) and math.isnan(right)) or math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-12)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_same, left, right))
    return left == right


# -- values -----------------------------------------------------------------------------------------------------------


def python_values(column: pa.ChunkedArray, kind: ColumnType) -> list[Any]:
    """A column as Python values; moments are aware, in UTC."""
    if kind.kind is Kind.TIMESTAMP:
        return [None if us is None else _moment(us) for us in column.cast(pa.int64()).to_pylist()]
    values: list[Any] = column.to_pylist()
    return values


def native(kind: ColumnType) -> Callable[[Any], Any] | None:
    """From a value as online rows hold it, never null, to the one that functions are given; None where both are one."""
    if kind.kind is Kind.LIST:
        within = native(kind.element)
        return None if within is None else lambda values: [None if v is None else within(v) for v in values]
    if kind.kind is Kind.DECIMAL:
        return lambda value: _decimal(value, kind)
    return {Kind.TIMESTAMP: _moment, Kind.DATE: date.fromordinal}.get(kind.kind)


def kept(kind: ColumnType) -> Callable[[Any], Any] | None:
    """The way back."""
    simple: Mapping[Kind, Callable[[Any], Any]] = {
        Kind.TIMESTAMP: lambda value: (value - _EPOCH) // timedelta(microseconds=1),
        Kind.DATE: date.toordinal,
        Kind.DECIMAL: str,
    }
    return simple.get(kind.kind)


def _moment(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def _decimal(value: Any, kind: ColumnType) -> Decimal:
    found = value if isinstance(value, Decimal) else Decimal(str(value))
    return to_scale(found, kind.scale)


def _fitting(kind: ColumnType) -> Callable[[Any], Any]:
    """A value that a function returned, in its declared type, without loss."""
    read = _FITS[kind.kind]

    def fit(value: Any) -> Any:
        if value is None:
            if not kind.nullable:
                raise TypeError("it is declared without None")
            return None
        item = getattr(value, "item", None)  # NumPy's scalars
        return read(item() if item is not None and getattr(value, "shape", None) == () else value, kind)

    return fit


def _as_integer(value: Any, kind: ColumnType) -> int:
    if type(value) is not int or not -_INT64 <= value < _INT64:
        raise TypeError("a whole number within 64 bits is declared")
    return value


def _as_float(value: Any, kind: ColumnType) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("a number is declared")
    return float(value)


def _plain(*kinds: type) -> Callable[[Any, ColumnType], Any]:
    def read(value: Any, kind: ColumnType) -> Any:
        if type(value) not in kinds:
            raise TypeError(f"{kind.kind.value} is declared")
        return value

    return read


def _as_moment(value: Any, kind: ColumnType) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise TypeError("a datetime with a time zone is declared")
    return value.astimezone(UTC)


def _as_decimal(value: Any, kind: ColumnType) -> Decimal:
    if not isinstance(value, Decimal | int) or isinstance(value, bool):
        raise TypeError("a Decimal is declared")
    found = _decimal(Decimal(value), kind)
    if found != value:
        raise ValueError(f"it has more than {kind.scale} digits after the point")
    return found


def _as_vector(value: Any, kind: ColumnType) -> list[float]:
    found = [float(part) for part in value]
    if len(found) != kind.length:
        raise ValueError(f"it has {len(found)} elements, not {kind.length}")
    exact: list[float] = pa.array(found, pa.float32()).to_pylist()
    return exact


_FITS: Mapping[Kind, Callable[[Any, ColumnType], Any]] = {
    Kind.STRING: _plain(str),
    Kind.INTEGER: _as_integer,
    Kind.FLOAT: _as_float,
    Kind.BOOLEAN: _plain(bool),
    Kind.TIMESTAMP: _as_moment,
    Kind.DATE: _plain(date),
    Kind.BYTES: _plain(bytes),
    Kind.DECIMAL: _as_decimal,
    Kind.VECTOR: _as_vector,
}
