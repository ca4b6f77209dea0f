"""On-demand features of answers computed again as training does it: in a table, with other rows, at another time.

Online each row is computed by itself, of values as requests and online rows have them. That both give one answer is a
promise of the function too: one that asks the clock, keeps something between calls or looks at other rows breaks it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

from mainspring.declare.record import ColumnType
from mainspring.errors import MainspringError
from mainspring.features.calculate import kept, native, python_values, runner_of
from mainspring.features.offline.replay import Answer, Replayed, same_value
from mainspring.features.online.sampled import Calculated
from mainspring.features.selection import Calculation
from mainspring.features.view import arrow_type
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

__all__ = ["ERROR", "recalculate"]

ERROR = "(error)"
"""Stands for what the function raised where a feature's name is expected."""


def recalculate(answers: Sequence[Calculated]) -> list[Replayed]:
    """Calculate answers again, function by function, all answers of a read plan in one table.

    Each function is given what was answered for the functions before it, so that one fault is told once.
    """
    alike: dict[int, list[Calculated]] = {}
    for answer in answers:
        alike.setdefault(id(answer.calculations), []).append(answer)
    return [found for group in alike.values() for found in _of_plan(group)]


def _of_plan(answers: Sequence[Calculated]) -> Iterator[Replayed]:
    calculations = answers[0].calculations
    place = calculations.first
    for calculation in calculations.each:
        stop = place + len(calculation.fields)
        function = calculations.functions[calculation.name]
        expected = _again(calculation, function, [one.values for one in answers])
        for one, wanted in zip(answers, expected, strict=True):
            names = tuple(field.name for field in calculation.fields)
            told = dict(zip(names, one.values[place:stop], strict=True))
            differing = tuple(
                field.name
                for field in calculation.fields
                if field.name not in wanted or not same_value(told[field.name], wanted[field.name], field.type)
            )
            verdict: Literal["same", "mismatch"] = "mismatch" if differing else "same"
            yield Replayed(calculation.name, one.keys, one.at_us, verdict, names, differing, told, wanted, "on_demand")
        place = stop


def _again(calculation: Calculation, function: Callable[..., object], rows: Sequence[Sequence[object]]) -> list[Answer]:
    columns = {
        given.name: pa.array(_natively([row[given.place] for row in rows], given.type), arrow_type(given.type))
        for given in calculation.inputs
    }
    try:
        found = runner_of(calculation, function).table(pa.table(columns))
    except MainspringError as error:
        return [{ERROR: error.what}] * len(rows)
    again = [_as_online(python_values(column, one.type), one.type) for one, column in zip(
        calculation.fields, found, strict=True
    )]  # fmt: skip
    names = [field.name for field in calculation.fields]
    return [dict(zip(names, row, strict=True)) for row in zip(*again, strict=True)]


def _natively(values: list[Any], kind: ColumnType) -> list[Any]:
    read = native(kind)
    return values if read is None else [None if value is None else read(value) for value in values]


def _as_online(values: list[Any], kind: ColumnType) -> list[Any]:
    write = kept(kind)
    return values if write is None else [None if value is None else write(value) for value in values]
