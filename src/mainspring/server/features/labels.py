"""Labels that arrive: read out of a file (CSV or Parquet), and held against what the served models can be labelled."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from mainspring.declare.data import Column
from mainspring.declare.record import Kind
from mainspring.errors import DataError
from mainspring.lazy import lazy
from mainspring.protocols.http import Fault
from mainspring.protocols.native.rest import moment_us

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq
else:
    pa, pc = lazy("pyarrow"), lazy("pyarrow.compute")
    pa_csv, pq = lazy("pyarrow.csv"), lazy("pyarrow.parquet")

__all__ = ["LabelRules", "read_labels"]

_WANTED = ("id", "value", "at")
_SKEW_US = 60_000_000
"""How far the clock of who sends a label may be ahead."""


class LabelRules(msgspec.Struct, frozen=True):
    """What can be a label of the models that are served.

    Attributes:
        columns: the label of each model. A label without a name may be that of any of them.
        future: whether a label may be dated in the future, as a replay dates it.
    """

    columns: tuple[Column, ...]
    future: bool

    def check(self, labels: Iterable[tuple[str, str, float, int]], now: int) -> None:
        """Refuse what cannot be a label: it would be counted, and one from the future would outlive each correction.

        Args:
            labels: (prediction id, name, value, at in UTC microseconds).
            now: the clock, UTC microseconds.

        Raises:
            Fault: 422; nothing of them is recorded then.
        """
        for number, (_, name, value, at) in enumerate(labels):
            named = [column for column in self.columns if name in ("", column.name)]
            if not named:
                names = ", ".join(sorted({column.name for column in self.columns})) or "none"
                raise Fault(422, f"label {number} is called {name!r}; the labels of the models here are: {names}")
            if not any(_fits(column.field.type.kind, value) for column in named):
                wanted = " or ".join(sorted({f"{column.name} ({column.field.type.kind.value})" for column in named}))
                raise Fault(422, f"label {number} is {value:g}, which is no {wanted}")
            if at > now + _SKEW_US and not self.future:
                raise Fault(422, f"label {number} became known in the future; labels are dated by when they were known")


def _fits(kind: Kind, value: float) -> bool:
    if kind is Kind.BOOLEAN:
        return value in (0.0, 1.0)
    return kind is not Kind.INTEGER or value == math.floor(value)


def read_labels(kind: Literal["csv", "parquet"], data: bytes) -> list[tuple[str, str, float, int]]:
    """The labels of a file, as (prediction id, name, value, at in UTC microseconds).

    ``value`` is a number or a truth; ``at`` a moment with its zone, or whole microseconds since 1970.

    Raises:
        DataError: MS-2305, it cannot be read, lacks a column, or a row has a null or no moment.
    """
    table = _table(kind, data)
    missing = [name for name in _WANTED if name not in table.column_names]
    if missing:
        raise _wrong(f"the labels have no column {', '.join(missing)}", f"there are {', '.join(table.column_names)}")
    for name in _WANTED:
        if table.column(name).null_count:
            row = pc.index(table.column(name).is_null(), True).as_py()
            raise _wrong(f"row {row} of the labels has no {name}", "all of id, value and at are needed")
    ids = table.column("id").cast(pa.string()).to_pylist()
    names = _names(table)
    return list(zip(ids, names, _values(table.column("value")), _moments(table.column("at")), strict=True))


def _table(kind: Literal["csv", "parquet"], data: bytes) -> pa.Table:
    try:
        if kind == "parquet":
            return pq.read_table(io.BytesIO(data))
        texts = {"id": pa.string(), "name": pa.string(), "at": pa.string()}
        return pa_csv.read_csv(io.BytesIO(data), convert_options=pa_csv.ConvertOptions(column_types=texts))
    except (pa.ArrowException, OSError) as error:
        raise _wrong("the labels cannot be read", str(error).partition("\n")[0]) from error


def _names(table: pa.Table) -> Sequence[str]:
    if "name" not in table.column_names:
        return [""] * len(table)
    return [name or "" for name in table.column("name").cast(pa.string()).to_pylist()]


def _values(column: pa.ChunkedArray) -> list[float]:
    if not (pa.types.is_boolean(column.type) or pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise _wrong(f"the labels' values are {column.type}", "a value is a number or a truth")
    values = [float(value) for value in column.to_pylist()]
    if not all(map(math.isfinite, values)):
        raise _wrong("a value of the labels is no finite number", "a value is a number or a truth")
    return values


def _moments(column: pa.ChunkedArray) -> list[int]:
    if pa.types.is_timestamp(column.type):
        if column.type.tz is None:
            raise _wrong("the labels' at has no time zone", "a moment without one may be any of 26")
        return [int(value) for value in column.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_pylist()]
    if pa.types.is_integer(column.type):
        return [int(value) for value in column.to_pylist()]
    return [moment_us(int(text) if text.isdecimal() else text) for text in column.cast(pa.string()).to_pylist()]


def _wrong(what: str, why: str) -> DataError:
    return DataError(
        what, code="MS-2305", why=why, fix="send the columns id, value, at (2013-07-01T12:00:00Z) and perhaps name"
    )
