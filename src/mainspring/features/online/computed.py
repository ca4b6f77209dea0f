"""Read plans with on-demand features: what is looked up, then what is computed of it and of the request."""

from __future__ import annotations

import base64
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias

from mainspring.declare.record import ColumnType, FieldSpec, Kind
from mainspring.errors import DataError
from mainspring.features.calculate import kept, native, runner_of
from mainspring.features.decimals import to_scale
from mainspring.features.online.plan import ReadPlan, compile_plan
from mainspring.features.online.sampled import Calculations, SampledPlan, Samples
from mainspring.features.selection import Calculation, Selection
from mainspring.ports.online import OnlineStore

__all__ = ["ComputedPlan", "SelectionPlan", "compile_selection", "request_reader"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT64 = 1 << 63

Looked: TypeAlias = tuple[list[object], dict[str, str]]
Dated: TypeAlias = tuple[list[object], dict[str, str], dict[str, int | None]]
_Step: TypeAlias = Callable[[Sequence[list[Any]]], None]


class ComputedPlan:
    """As a `ReadPlan`, of a selection with calculations; the rows it is given carry keys and the request's fields.

    Attributes:
        names: the features' names, in order.
        references: their views' (or on-demand functions') names and theirs.
        read_column: None.
    """

    read_column = None

    def __init__(
        self,
        plan: ReadPlan | SampledPlan,
        selection: Selection,
        functions: Mapping[str, Callable[..., object]],
        samples: Samples | None = None,
    ) -> None:
        self._plan = plan
        self._samples = samples
        looked_up = sum(len(pick.features) for pick in selection.picks)
        self._calculations = Calculations(selection.calculations, functions, looked_up + len(selection.request))
        self._keys = tuple(selection.keys)
        self._request = request_reader(selection.request)
        self._steps = [_step(one, functions[one.name]) for one in selection.calculations]
        self._places = [output.place for output in selection.outputs]
        self.names = selection.names
        self.references = tuple((output.view, output.name) for output in selection.outputs)

    def read_one(self, keys: Mapping[str, object], now_us: int) -> Looked:
        """The features of one row at a moment: values, status by view.

        Raises:
            DataError: MS-2120, a key, or MS-2302, a field of the request is missing or of the wrong type; MS-2162.
            UserCodeError: MS-2161, an on-demand function failed.
        """
        values, statuses = self._plan.read_one(keys, now_us)
        (found,) = self._computed([keys], [values], [now_us])
        return found, statuses

    def read_many(self, entities: Sequence[Mapping[str, object]], moments: Sequence[int]) -> list[Looked]:
        """The features of many rows, each at its moment, with one round trip to the store; raises as `read_one`."""
        looked = self._plan.read_many(entities, moments)
        found = self._computed(entities, [values for values, _ in looked], moments)
        return [(values, statuses) for values, (_, statuses) in zip(found, looked, strict=True)]

    def read_dated(self, entities: Sequence[Mapping[str, object]], now_us: int) -> list[Dated]:
        """As `ReadPlan.read_dated`; raises as `read_one`."""
        looked = self._plan.read_dated(entities, now_us)
        found = self._computed(entities, [values for values, _, _ in looked], [now_us] * len(looked))
        return [(values, *rest) for values, (_, *rest) in zip(found, looked, strict=True)]

    def read_rows(
        self, entities: Sequence[Mapping[str, object]], now_us: int
    ) -> tuple[list[list[object]], dict[str, list[str]], dict[str, list[int | None]]]:
        """As `ReadPlan.read_rows`; raises as `read_one`."""
        rows, statuses, events = self._plan.read_rows(entities, now_us)
        return self._computed(entities, rows, [now_us] * len(rows)), statuses, events

    def _computed(
        self, entities: Sequence[Mapping[str, object]], rows: Sequence[list[object]], moments: Sequence[int]
    ) -> list[list[object]]:
        whole = [[*values, *self._request(entity)] for values, entity in zip(rows, entities, strict=True)]
        if whole:
            for step in self._steps:
                step(whole)
        if self._samples is not None and self._calculations.each:
            for place in self._samples.due_among(len(whole)):
                asked = {name: entities[place].get(name) for name in self._keys}
                self._samples.put_calculated(self._calculations, asked, moments[place], whole[place])
        return [[row[place] for place in self._places] for row in whole]


SelectionPlan: TypeAlias = ReadPlan | SampledPlan | ComputedPlan


def compile_selection(
    store: OnlineStore,
    selection: Selection,
    functions: Mapping[str, Callable[..., object]],
    samples: Samples | None = None,
) -> SelectionPlan:
    """The read plan of a selection; without on-demand features it is a `ReadPlan`, which knows nothing of them, or puts
    features of one view, which are read together, in the order that was asked for.

    Some of what is looked up goes to `samples`, where there are any.
    """
    bare = compile_plan(store, selection.picks)
    plan = bare if samples is None else SampledPlan(bare, selection.picks, samples)
    return plan if selection.plain else ComputedPlan(plan, selection, functions, samples)


def _step(calculation: Calculation, function: Callable[..., object]) -> _Step:
    """Appends to rows what a function makes of them."""
    runner = runner_of(calculation, function)
    given = [(item.place, native(item.type)) for item in calculation.inputs]
    back = [kept(one.type) for one in calculation.fields]

    def step(rows: Sequence[list[Any]]) -> None:
        columns = [
            [row[place] for row in rows]
            if read is None
            else [None if row[place] is None else read(row[place]) for row in rows]
            for place, read in given
        ]
        for values, write in zip(runner.values(columns), back, strict=True):
            for row, value in zip(rows, values, strict=True):
                row.append(value if write is None or value is None else write(value))

    return step


def request_reader(fields: Sequence[FieldSpec]) -> Callable[[Mapping[str, Any]], list[Any]]:
    """Reads the fields of a request, as JSON or Python have them, into values as online rows hold them.

    The function raises:
        DataError: MS-2302, a field is missing or has the wrong type.
    """
    readers = [(one.name, one.type, _READ[one.type.kind]) for one in fields]

    def read(row: Mapping[str, Any]) -> list[Any]:
        found: list[Any] = []
        for name, kind, reader in readers:
            value = row.get(name)
            if value is None:
                if not kind.nullable:
                    raise DataError(f"the request carries no {name!r}", code="MS-2302", fix=f"send {name} as {kind}")
                found.append(None)
                continue
            try:
                found.append(reader(value, kind))
            except (TypeError, ValueError, OverflowError, InvalidOperation, struct.error):
                raise DataError(
                    f"{name!r} of the request is {repr(value)[:80]}, not {kind}",
                    code="MS-2302",
                    fix=f"send {name} as {_WRITTEN.get(kind.kind, str(kind))}",
                ) from None
        return found

    return read


def _exactly(*kinds: type) -> Callable[[Any, ColumnType], Any]:
    def read(value: Any, kind: ColumnType) -> Any:
        if type(value) not in kinds:
            raise TypeError
        return value

    return read


def _integer(value: Any, kind: ColumnType) -> int:
    if type(value) is not int or not -_INT64 <= value < _INT64:
        raise TypeError
    return value


def _number(value: Any, kind: ColumnType) -> float:
    if type(value) not in (int, float) or math.isinf(value):
        raise TypeError
    return float(value)


def _moment(value: Any, kind: ColumnType) -> int:
    if type(value) is int:
        return value
    found = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(found, datetime) or found.tzinfo is None:
        raise TypeError
    return (found - _EPOCH) // timedelta(microseconds=1)


def _day(value: Any, kind: ColumnType) -> int:
    found = date.fromisoformat(value) if isinstance(value, str) else value
    if type(found) is not date:
        raise TypeError
    return found.toordinal()


def _decimal(value: Any, kind: ColumnType) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise TypeError
    given = Decimal(str(value))
    found = to_scale(given, kind.scale)
    if found != given:
        raise ValueError
    return str(found)


def _bytes(value: Any, kind: ColumnType) -> bytes:
    return base64.b64decode(value, validate=True) if isinstance(value, str) else bytes(memoryview(value))


def _vector(value: Any, kind: ColumnType) -> list[float]:
    found = [_number(part, kind) for part in value]
    if len(found) != kind.length:
        raise ValueError
    packed = struct.Struct(f"{len(found)}f")  # as a column of vectors holds them
    return list(packed.unpack(packed.pack(*found)))


_READ: Mapping[Kind, Callable[[Any, ColumnType], Any]] = {
    Kind.STRING: _exactly(str),
    Kind.INTEGER: _integer,
    Kind.FLOAT: _number,
    Kind.BOOLEAN: _exactly(bool),
    Kind.TIMESTAMP: _moment,
    Kind.DATE: _day,
    Kind.DECIMAL: _decimal,
    Kind.BYTES: _bytes,
    Kind.VECTOR: _vector,
}
_WRITTEN: Mapping[Kind, str] = {
    Kind.TIMESTAMP: "2025-06-01T00:00:00Z, or microseconds since 1970",
    Kind.DATE: "2025-06-01",
    Kind.DECIMAL: "12.50, as a number or as text",
    Kind.BYTES: "base64",
}
