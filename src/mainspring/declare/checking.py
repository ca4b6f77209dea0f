"""What an app says of the quality of its rows: checks of sources and of feature views."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Literal, cast

from mainspring.declare.aggregate import Aggregate
from mainspring.declare.data import Column, Entity, FeatureView, Source, did_you_mean
from mainspring.declare.declaration import spec_of
from mainspring.declare.duration import Duration, microseconds
from mainspring.declare.options import choice, is_a, not_a, number
from mainspring.declare.origin import here
from mainspring.declare.quality import Check, CheckKind, OnFail
from mainspring.declare.record import FieldSpec, Kind
from mainspring.errors import DeclarationError

__all__ = [
    "between",
    "checks_fit",
    "conforms",
    "distance",
    "fresh",
    "matches",
    "not_null",
    "one_of",
    "references",
    "rows",
    "unique",
    "view_columns",
]

_ACTIONS = ("refuse", "quarantine", "warn")
_JUDGED = 100
_ORDERED = frozenset({Kind.INTEGER, Kind.FLOAT, Kind.DECIMAL, Kind.TIMESTAMP, Kind.DATE})
_TAKES: Mapping[CheckKind, frozenset[Kind]] = {
    CheckKind.NOT_NULL: frozenset(Kind),
    CheckKind.UNIQUE: frozenset(Kind) - {Kind.VECTOR},
    CheckKind.BETWEEN: _ORDERED,
    CheckKind.ONE_OF: frozenset(Kind) - {Kind.VECTOR},
    CheckKind.MATCHES: frozenset({Kind.STRING}),
    CheckKind.REFERENCES: frozenset(Kind) - {Kind.VECTOR, Kind.FLOAT},
    CheckKind.DISTANCE: _ORDERED | {Kind.STRING, Kind.BOOLEAN},
}
_HOLDS: Mapping[Kind, tuple[type, ...]] = {
    Kind.STRING: (str,),
    Kind.INTEGER: (int, float, Decimal),
    Kind.FLOAT: (float, int),
    Kind.BOOLEAN: (bool,),
    Kind.TIMESTAMP: (datetime,),
    Kind.DATE: (date,),
    Kind.BYTES: (bytes,),
    Kind.DECIMAL: (Decimal, int, float),
}


def not_null(*columns: str, on_fail: OnFail = "refuse") -> Check:
    """No value of these columns is null; NaN is a value."""
    return _check(CheckKind.NOT_NULL, columns, on_fail)


def unique(*columns: str, on_fail: Literal["refuse", "warn"] = "refuse") -> Check:
    """No two rows of the batch have the same values in these columns; rows with a null in one of them count not.

    NaN is equal to NaN, and -0.0 to 0.0.
    """
    return _check(CheckKind.UNIQUE, columns, on_fail)


def between(column: str, low: object = None, high: object = None, *, on_fail: OnFail = "refuse") -> Check:
    """The values lie in [low, high], in the column's unit; a null passes, NaN lies in no range.

    Args:
        column: numbers, decimals, moments or dates.
        low: the least value; None is no limit.
        high: the greatest value; None is no limit.
        on_fail: what happens when it fails.

    Raises:
        DeclarationError: MS-1060, there is no limit, one is no value, or they contradict each other.
    """
    for value in (low, high):
        if isinstance(value, (float, Decimal)) and math.isnan(value):
            raise _unfit("between", "nothing is above or below NaN")
    if low is None and high is None:
        raise _unfit("between", "neither low nor high is given")
    try:
        if low is not None and high is not None and low > high:  # type: ignore[operator]
            raise _unfit("between", f"nothing is >= {low} and <= {high}")
    except TypeError as error:
        raise _unfit("between", f"{low!r} and {high!r} have no order") from error
    return _check(CheckKind.BETWEEN, (column,), on_fail, low=low, high=high)


def one_of(column: str, values: Iterable[object], *, on_fail: OnFail = "refuse") -> Check:
    """The values are among these; a null passes. Texts are compared by their bytes, -0.0 is 0.0, NaN is never one."""
    listed = () if isinstance(values, str) else tuple(values)
    if not listed:
        raise _unfit("one_of", "it needs a list of values")
    return _check(CheckKind.ONE_OF, (column,), on_fail, values=listed)


def matches(column: str, pattern: str, *, on_fail: OnFail = "refuse") -> Check:
    """The whole text matches a regular expression (RE2: without look-around and back references); a null passes.

    Raises:
        DeclarationError: MS-1060, it is no regular expression.
    """
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise _unfit("matches", f"{pattern!r} is no regular expression: {error}") from error
    return _check(CheckKind.MATCHES, (column,), on_fail, pattern=pattern)


def fresh(age: Duration, *, on_fail: Literal["refuse", "warn"] = "warn") -> Check:
    """The newest event is no older than this; a server raises an alarm while it is, and ends it when it is not.

    It warns unless told otherwise: what is stale is still the newest there is.
    """
    return _check(CheckKind.FRESH, (), on_fail, age_us=microseconds(age, what="age"))


def rows(least: int | None = None, most: int | None = None, *, on_fail: Literal["refuse", "warn"] = "refuse") -> Check:
    """There are so many rows: in a source's files, or in a view's log as it would be.

    Raises:
        DeclarationError: MS-1060, there is no limit, or nothing fits.
    """
    for name, value in (("least", least), ("most", most)):
        if value is not None:
            number(name, value, least=0)
    if least is None and most is None:
        raise _unfit("rows", "neither least nor most is given")
    if least is not None and most is not None and least > most:
        raise _unfit("rows", f"no number is >= {least} and <= {most}")
    return _check(CheckKind.ROWS, (), on_fail, least=least, most=most)


def references(column: str, to: Source | Column, *, on_fail: OnFail = "refuse") -> Check:
    """The values exist in another source: ``references("carrier", carriers.code)``; a null passes.

    Args:
        column: the column of the checked source.
        to: the other source's column, or the source, whose column then has the same name.
        on_fail: what happens when it fails.
    """
    is_a("what references takes", to, (Source, Column), 'references("carrier", carriers.code)')
    found = to if isinstance(to, Column) else to[column]
    return _check(
        CheckKind.REFERENCES, (column,), on_fail, to=found.source, to_column=found.name, to_type=found.field.type
    )


def distance(
    column: str, limit: float, *, least: int = _JUDGED, on_fail: Literal["refuse", "warn"] = "refuse"
) -> Check:
    """The column's new values are distributed as those that the log holds.

    The distance is the square root of the base-2 Jensen-Shannon divergence over 16 cells of equal mass (or the 15
    commonest values), nulls and NaN apart: 0 is equal, 1 is disjoint. The first batch has nothing to be compared with.

    Args:
        column: numbers, decimals, moments, dates, texts or truths.
        limit: the greatest distance, above 0, at most 1.
        least: fewer new rows than this are not judged: small samples differ by chance.
        on_fail: what happens when it fails.
    """
    number("limit", limit, least=0, whole=False)
    number("least", least, least=1)
    if not 0 < limit <= 1:
        raise _unfit("distance", f"limit={limit} is not above 0 and at most 1")
    return _check(CheckKind.DISTANCE, (column,), on_fail, limit=float(limit), least=least)


def conforms(schema: object, *, on_fail: OnFail = "refuse") -> Check:
    """The batch conforms to a pandera schema, which is run as it is; it changes no row.

    Rows that fail one of its checks are told apart; a column that is missing or of another type refuses the batch.

    Args:
        schema: a DataFrameSchema or DataFrameModel of ``pandera.polars`` or ``pandera.pandas``, held by a variable of a
            module.
        on_fail: what happens to rows that fail.

    Raises:
        DeclarationError: MS-1033, it is no schema.
    """
    if not _is_pandera(schema):
        raise not_a("what conforms takes", schema, "pandera schema", "conforms(SCHEMA), of pandera.polars")
    name = schema.__name__ if isinstance(schema, type) else str(getattr(schema, "name", None) or "schema")
    return _check(CheckKind.CONFORMS, (), on_fail, schema=schema, name=name)


def _is_pandera(value: object) -> bool:
    """Whether a value is a schema of pandera's; nothing is imported to see that."""
    kinds = value.__mro__ if isinstance(value, type) else type(value).__mro__
    return any(kind.__module__.startswith("pandera.") and "Schema" in kind.__name__ for kind in kinds) or (
        isinstance(value, type)
        and any(kind.__module__.startswith("pandera.") and kind.__name__ == "DataFrameModel" for kind in kinds)
    )


def _check(kind: CheckKind, columns: Sequence[str], on_fail: str, **limits: object) -> Check:
    choice("on_fail", on_fail, _ACTIONS)
    if kind in (CheckKind.NOT_NULL, CheckKind.UNIQUE) and not columns:
        raise _unfit(kind.value, "it names no column")
    for column in columns:
        is_a(f"a column of {kind.value}", column, str, f'write {kind.value}("column", ...)')
    check = Check(kind, tuple(columns), cast(OnFail, on_fail), origin=here(), **limits)  # type: ignore[arg-type]
    if on_fail == "quarantine" and check.of_table:
        raise DeclarationError(
            f"{kind.value} cannot set rows aside",
            code="MS-1061",
            why="it is about the batch as a whole, so that no single row is at fault",
            origin=str(here()),
            fix='on_fail="refuse" or "warn"; Field(unique=True) sets repeated rows of a source aside'
            if kind is CheckKind.UNIQUE
            else 'on_fail="refuse" or "warn"',
        )
    return check


def _unfit(what: str, why: str) -> DeclarationError:
    return DeclarationError(
        f"{what} cannot be checked so",
        code="MS-1060",
        why=why,
        origin=str(here()),
        fix="write between(column, low, high), one_of(column, values), matches(column, pattern), rows(least, most)",
    )


# -- against the columns ----------------------------------------------------------------------------------------------


def checks_fit(
    checks: object, fields: Mapping[str, FieldSpec], owner: str, *, of_view: bool = False
) -> tuple[Check, ...]:
    """The checks of a declaration, each on columns of the right type.

    Args:
        checks: what was given.
        fields: the columns that may be checked, by name; empty when they are not known yet.
        owner: whose they are, for people.
        of_view: whether they are a feature view's, whose rows reference nothing.

    Raises:
        DeclarationError: MS-1007, a column is none; MS-1033, something is no check; MS-1062, a check does not fit the
            column's type.
    """
    is_a("checks", checks, (list, tuple), 'checks=[not_null("origin"), fresh("2h")]')
    found = [conforms(item) if _is_pandera(item) else item for item in cast("Sequence[object]", checks)]
    for check in found:
        is_a("one of checks", check, Check, 'checks=[not_null("origin"), fresh("2h")]')
        _fits(cast(Check, check), fields, owner, of_view)
    return tuple(cast("list[Check]", found))


def view_columns(
    sources: Sequence[Source | FeatureView],
    entities: Sequence[Entity],
    features: Mapping[str, Aggregate],
    returns: Sequence[FieldSpec],
) -> Mapping[str, FieldSpec]:
    """The columns of a view's log that checks may name; empty while those of its function are not known.

    Args:
        sources: what it is made from.
        entities: whose features it has.
        features: its aggregates; none where a function makes its rows.
        returns: what the function is said to return.
    """
    known = {item.name: item for source in sources if isinstance(source, Source) for item in spec_of(source).fields}
    keys = {spec_of(entity).key for entity in entities}
    if features:
        read = keys | {aggregate.column for aggregate in features.values() if aggregate.column is not None}
        return {name: item for name, item in known.items() if name in read}
    if not returns or not keys <= known.keys():
        return {}
    return {name: known[name] for name in keys} | {item.name: item for item in returns}


def _fits(check: Check, fields: Mapping[str, FieldSpec], owner: str, of_view: bool) -> None:
    if of_view and check.kind is CheckKind.REFERENCES:
        raise _wrong(check, "the rows of a feature view reference nothing", "give the check to app.source(...)")
    for name in check.columns if fields else ():
        known = fields.get(name)
        if known is None:
            raise DeclarationError(
                f"{check.kind.value} checks column {name!r}, which {owner} does not have",
                code="MS-1007",
                origin=str(check.origin),
                fix=did_you_mean(name, fields),
            )
        kind = known.type.kind
        if kind not in _TAKES[check.kind]:
            raise _wrong(check, f"{name} is {known.type}", "check another column, or otherwise")
        for value in (*check.values, check.low, check.high):
            if value is not None and not _holds(kind, value):
                raise _wrong(check, f"{name} is {known.type}, and {value!r} is no value of it", "correct the value")
        other = check.to_type
        if other is not None and (other.kind, other.scale) != (kind, known.type.scale):
            raise _wrong(check, f"{name} is {known.type}, and {check.to_column} is {other}", "make them of one type")


def _holds(kind: Kind, value: object) -> bool:
    if isinstance(value, bool):
        return kind is Kind.BOOLEAN
    if isinstance(value, datetime):
        return kind is Kind.TIMESTAMP and value.tzinfo is not None
    if isinstance(value, Decimal) and not value.is_finite():
        return False
    return isinstance(value, _HOLDS.get(kind, ()))


def _wrong(check: Check, why: str, fix: str) -> DeclarationError:
    return DeclarationError(
        f"{check.kind.value} does not fit {', '.join(check.columns) or 'here'}",
        code="MS-1062",
        why=why,
        origin=str(check.origin),
        fix=fix,
    )
