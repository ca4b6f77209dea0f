"""Checks of single rows, all in one walk over a batch: each slice is looked at once, by every check."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from mainspring.declare.quality import Check, CheckKind
from mainspring.declare.record import ColumnType, FieldSpec, Kind
from mainspring.errors import DataError
from mainspring.features.quality.results import CheckResult, failed_state, samples_of
from mainspring.features.quality.schemas import conformity, goes_by_rows
from mainspring.features.view import arrow_type
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    pa, pc = lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = [
    "Known",
    "RowsJudged",
    "Tallies",
    "judge_rows",
    "matching",
    "needs_whole",
    "nothing_known",
    "plain_floats",
]

Known = Callable[[Check], "pa.Array"]
"""The values that a reference may have: those that the other source's log holds."""

_SLICE = 65_536
_SAMPLES = 3
_INT64 = (-(1 << 63), (1 << 63) - 1)
_DIGITS = Context(prec=100)


class RowsJudged(msgspec.Struct, frozen=True):
    """What checks of single rows found.

    Attributes:
        reasons: why each row is set aside; null for rows that are not.
        results: a result for each check, in their order.
    """

    reasons: pa.ChunkedArray
    results: tuple[CheckResult, ...]


def nothing_known(check: Check) -> pa.Array:
    """No value is known of any other source: where no table is at hand."""
    return pa.nulls(0)


def judge_rows(
    table: pa.Table,
    fields: Sequence[FieldSpec],
    checks: Sequence[Check],
    known: Known = nothing_known,
    tallies: Tallies | None = None,
) -> RowsJudged:
    """Judge the rows of a batch.

    A row that is set aside has the reason of the first check that says so, and no other check looks at it.

    Args:
        table: the batch, in the columns' types.
        fields: its columns.
        checks: those of single rows are judged, the others passed over.
        known: the values that references may have.
        tallies: of a batch that comes in parts, what was found in the parts before; the results are those of all parts
            up to this. See `needs_whole`.

    Raises:
        DataError: MS-2181, a pattern is no regular expression of RE2.
    """
    judged = [check for check in checks if not check.of_table]
    if not judged:
        return RowsJudged(pa.chunked_array([pa.nulls(len(table), pa.string())]), ())
    types = {field.name: field.type for field in fields}
    ordered = sorted(judged, key=lambda check: check.on_fail != "quarantine")
    tallies = {} if tallies is None else tallies
    for check in ordered:
        if id(check) not in tallies:
            tallies[id(check)] = _tally(check, table, types, known)
    reasons = [
        _judge_slice(table.slice(start, _SLICE), start, ordered, tallies)
        for start in range(0, max(len(table), 1), _SLICE)
    ]
    return RowsJudged(
        pa.chunked_array(reasons, pa.string()), tuple(_result(check, tallies[id(check)]) for check in judged)
    )


_Test = Callable[["pa.Table", int], "pa.Array"]
"""Why each row of a slice fails, null where it does not; the slice and its first row's place in the batch."""


class _Tally:
    """What a check has found so far."""

    def __init__(self, test: _Test, of_batch: dict[str, None] | None = None) -> None:
        self.test = test
        self.of_batch = {} if of_batch is None else of_batch
        self.rows = 0
        self.failing = 0
        self.samples: list[dict[str, str | None]] = []

    def take(self, rows: pa.Table, failing: pa.Array, looked_at: int) -> None:
        self.rows += looked_at
        found = pc.sum(failing).as_py() or 0
        self.failing += found
        if found and len(self.samples) < _SAMPLES:
            self.samples += samples_of(rows.filter(failing))[: _SAMPLES - len(self.samples)]


Tallies: TypeAlias = dict[int, _Tally]
"""What each check has found so far, by its identity."""


def _tally(check: Check, table: pa.Table, types: Mapping[str, ColumnType], known: Known) -> _Tally:
    if check.kind is CheckKind.CONFORMS:
        return _conforming(check, table)
    test, said = _test(check, types, known), pa.scalar(reason(check))
    return _Tally(lambda rows, start: pc.if_else(test(rows), said, pa.scalar(None, pa.string())))


def _conforming(check: Check, table: pa.Table) -> _Tally:
    """A schema that goes by rows is shown each slice, another one the whole batch."""
    if not goes_by_rows(check):
        found = conformity(check, table)
        return _Tally(lambda rows, start: _flat(found.reasons.slice(start, len(rows))), dict.fromkeys(found.of_batch))
    of_batch: dict[str, None] = {}

    def test(rows: pa.Table, start: int) -> pa.Array:
        found = conformity(check, rows)
        of_batch.update(dict.fromkeys(found.of_batch))
        return found.reasons

    return _Tally(test, of_batch)


def _judge_slice(rows: pa.Table, start: int, ordered: Sequence[Check], tallies: Mapping[int, _Tally]) -> pa.Array:
    aside = pa.nulls(len(rows), pa.string())
    for check in ordered:
        tally = tallies[id(check)]
        inside = pc.is_null(aside)
        reasons = tally.test(rows, start)
        failing = pc.and_(inside, pc.is_valid(reasons))
        tally.take(rows, failing, len(rows) - (len(aside) - aside.null_count))
        if check.on_fail == "quarantine":
            aside = pc.if_else(failing, reasons, aside)
    return aside


def _result(check: Check, tally: _Tally) -> CheckResult:
    failed = tally.failing > 0
    why = [*tally.of_batch, *([f"{tally.failing:,} of {tally.rows:,} rows"] if failed else [])]
    state = failed_state(check) if why else "ok"
    if tally.of_batch and state == "set_aside":
        state = "refused"  # what is wrong with the batch as a whole goes with no row
    return CheckResult(
        check=str(check),
        on_fail=check.on_fail,
        state=state,
        rows=tally.rows,
        failing=tally.failing or len(tally.of_batch),
        why="; ".join(why),
        samples=tuple(tally.samples),
    )


def needs_whole(checks: Sequence[Check]) -> bool:
    """Whether checks of single rows look at the batch as a whole too, so that it may not be judged in parts."""
    return any(check.kind is CheckKind.CONFORMS and not goes_by_rows(check) for check in checks)


def reason(check: Check) -> str:
    """Why a row that fails a check is set aside."""
    (column, *others) = check.columns
    if check.kind is CheckKind.NOT_NULL:
        return f"{' or '.join((column, *others))} is null"
    if check.kind is CheckKind.BETWEEN:
        if check.low is None or check.high is None:
            return f"{column} is not {'<=' if check.low is None else '>='} {check.high or check.low}"
        return f"{column} is not between {check.low} and {check.high}"
    if check.kind is CheckKind.ONE_OF:
        return f"{column} is none of {len(check.values)} values"
    if check.kind is CheckKind.MATCHES:
        return f"{column} does not match {check.pattern!r}"
    return f"{column} is not in {check.name}"


# -- the tests --------------------------------------------------------------------------------------------------------


def _test(check: Check, types: Mapping[str, ColumnType], known: Known) -> Callable[[pa.Table], pa.Array]:
    """Finds the rows of a slice that fail."""
    if check.kind is CheckKind.NOT_NULL:
        return lambda rows: _any_null([rows.column(name) for name in check.columns])
    (name,) = check.columns
    kind = types[name]
    holds = _holds(check, kind, known)
    return lambda rows: _broken(_flat(rows.column(name)), holds)


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _any_null(columns: Sequence[pa.ChunkedArray]) -> pa.Array:
    found = pc.is_null(_flat(columns[0]))
    for column in columns[1:]:
        found = pc.or_(found, pc.is_null(_flat(column)))
    return found


def _broken(column: pa.Array, holds: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Without a value nothing is broken."""
    return pc.and_(pc.is_valid(column), pc.invert(pc.fill_null(holds(column), True)))


def _holds(check: Check, kind: ColumnType, known: Known) -> Callable[[pa.Array], pa.Array]:
    if check.kind is CheckKind.BETWEEN:
        return _between(check, kind)
    if check.kind is CheckKind.MATCHES:
        pattern = str(check.pattern)
        return lambda column: matching(column, pattern)
    values = known(check) if check.kind is CheckKind.REFERENCES else _allowed(check.values, kind)
    allowed = values.cast(arrow_type(kind)) if len(values) else pa.array([], arrow_type(kind))
    return lambda column: pc.and_(pc.is_in(plain_floats(column), allowed), pc.invert(_nan(column)))


def plain_floats(column: pa.Array) -> pa.Array:
    """-0.0 as 0.0, for it is no other number."""
    return pc.add(column, 0.0) if pa.types.is_floating(column.type) else column


def _nan(column: pa.Array) -> pa.Array:
    if pa.types.is_floating(column.type):
        return pc.is_nan(column)
    return pa.repeat(pa.scalar(False), len(column))


def _allowed(values: Sequence[object], kind: ColumnType) -> pa.Array:
    """The listed values that a column of the type can hold; no row has any other."""
    found: list[object] = []
    for value in values:
        if kind.kind in (Kind.INTEGER, Kind.DECIMAL):
            digits = 0 if kind.kind is Kind.INTEGER else kind.scale
            low, high = (_whole(value, digits, way) for way in (ROUND_FLOOR, ROUND_CEILING))
            if low == high and _fits(low, kind):
                found.append(int(low) if kind.kind is Kind.INTEGER else low)
        elif kind.kind is Kind.FLOAT:
            found.append(float(value) + 0.0)  # type: ignore[arg-type]
        else:
            found.append(value)
    return pa.array(found, arrow_type(kind))


def _whole(value: Any, scale: int, way: str) -> Decimal:
    """The nearest number of so many decimals, above or below."""
    return Decimal(value).quantize(Decimal(1).scaleb(-scale), way, _DIGITS)


def _fits(value: Decimal, kind: ColumnType) -> bool:
    if kind.kind is Kind.INTEGER:
        return _INT64[0] <= value <= _INT64[1]
    return abs(value) < Decimal(10) ** (kind.precision - kind.scale)


def _between(check: Check, kind: ColumnType) -> Callable[[pa.Array], pa.Array]:
    low, high = _bound(check.low, kind, low=True), _bound(check.high, kind, low=False)

    def holds(column: pa.Array) -> pa.Array:
        found = pc.invert(_nan(column))
        for bound, compare in ((low, pc.greater_equal), (high, pc.less_equal)):
            if isinstance(bound, bool):
                found = pc.and_(found, pa.scalar(bound))
            elif bound is not None:
                found = pc.and_(found, compare(column, bound))
        return found

    return holds


def _bound(value: Any, kind: ColumnType, *, low: bool) -> pa.Scalar | bool | None:
    """A limit in the column's own type, so that nothing is compared by rounded numbers.

    Returns:
        The limit; None where there is none; whether all values pass, where the type cannot hold it.
    """
    if value is None:
        return None
    if kind.kind not in (Kind.INTEGER, Kind.DECIMAL):
        return pa.scalar(float(value) if kind.kind is Kind.FLOAT else value, arrow_type(kind))
    if isinstance(value, float) and math.isinf(value):
        return (value < 0) is low
    digits = 0 if kind.kind is Kind.INTEGER else kind.scale
    exact = _whole(value, digits, ROUND_CEILING if low else ROUND_FLOOR)
    if not _fits(exact, kind):
        return (exact < 0) is low
    return pa.scalar(int(exact) if kind.kind is Kind.INTEGER else exact, arrow_type(kind))


def matching(column: pa.Array | pa.ChunkedArray, pattern: str) -> pa.Array | pa.ChunkedArray:
    """Whether each whole text matches.

    Raises:
        DataError: MS-2181, the pattern is none of RE2.
    """
    try:
        return pc.match_substring_regex(column, f"^(?:{pattern})$")
    except pa.ArrowInvalid as error:
        raise DataError(
            f"the pattern {pattern!r} cannot be matched",
            code="MS-2181",
            why=f"{str(error).splitlines()[0]}; RE2 matches texts, without look-around and back references",
            fix="write it without, or compute a truth in a feature view and check that",
        ) from error
