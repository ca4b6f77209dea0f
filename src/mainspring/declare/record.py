"""Shapes of data: a class with annotations is a schema."""

from __future__ import annotations

import enum
import functools
import inspect
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal

import msgspec

from mainspring.declare.origin import Origin, here
from mainspring.errors import DeclarationError

__all__ = ["ColumnType", "Field", "FieldSpec", "Kind", "Record", "column_type", "fields_of"]


class Kind(enum.StrEnum):
    """The kinds of value a column holds; the Arrow type of each is in its comment."""

    STRING = "string"  # large or plain utf8
    INTEGER = "int64"
    FLOAT = "float64"
    BOOLEAN = "bool"
    TIMESTAMP = "timestamp"  # timestamp[us, UTC]
    DATE = "date"  # date32
    BYTES = "bytes"  # binary
    DECIMAL = "decimal"  # decimal128(precision, scale)
    VECTOR = "vector"  # fixed_size_list<float32, length>
    LIST = "list"  # list<item>; only features are lists


class ColumnType(msgspec.Struct, frozen=True):
    """The type of a column: its kind, whether it may be null, and the sizes that some kinds have.

    Args:
        kind: what a value is.
        nullable: whether there may be none.
        precision: digits of a decimal, or of the decimals of a list.
        scale: those after the point.
        length: elements of a vector; the most elements of a list.
        item: the kind of a list's elements, each of which may be null.
    """

    kind: Kind
    nullable: bool = False
    precision: int = 0
    scale: int = 0
    length: int = 0
    item: Kind | None = None

    @property
    def element(self) -> ColumnType:
        """The type of a list's elements."""
        assert self.item is not None
        return ColumnType(self.item, True, self.precision, self.scale)

    def __str__(self) -> str:
        size = ""
        if self.kind is Kind.DECIMAL:
            size = f"({self.precision}, {self.scale})"
        elif self.kind is Kind.VECTOR:
            size = f"({self.length})"
        elif self.kind is Kind.LIST:
            size = f"({ColumnType(self.element.kind, False, self.precision, self.scale)}, {self.length})"
        return f"{self.kind.value}{size}{' | null' if self.nullable else ''}"


@dataclass(frozen=True, slots=True)
class Field:
    """What a column must satisfy besides its type; written as the default of an annotation.

    Args:
        ge: least allowed value, in the column's unit.
        le: greatest allowed value, in the column's unit.
        one_of: the allowed values.
        matches: a regular expression the whole text must match.
        unique: whether a value may occur once only.
        unit: the unit of measure, for people: ``"mph"``.
        doc: one line on the meaning.
        precision: digits of a ``Decimal``.
        scale: digits after the point of a ``Decimal``.
        length: the number of elements of a vector.
    """

    ge: float | None = None
    le: float | None = None
    one_of: tuple[object, ...] = ()
    matches: str | None = None
    unique: bool = False
    unit: str = ""
    doc: str = ""
    precision: int = 38
    scale: int = 9
    length: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.one_of, (list, set, frozenset)):
            object.__setattr__(self, "one_of", tuple(self.one_of))
        if problem := _contradiction(self):
            raise _unfit(problem, here())


class FieldSpec(msgspec.Struct, frozen=True):
    """A column of a record: name, type and what it must satisfy."""

    name: str
    type: ColumnType
    rules: Field = msgspec.field(default_factory=Field)


def _contradiction(rules: Field) -> str:
    if rules.ge is not None and rules.le is not None and rules.ge > rules.le:
        return f"nothing is >= {rules.ge:g} and <= {rules.le:g}"
    if not isinstance(rules.one_of, tuple):
        return f"one_of={rules.one_of!r} is not a list of values"
    try:
        re.compile(rules.matches or "")
    except re.error as error:
        return f"matches={rules.matches!r} is no regular expression: {error}"
    return ""


def _unfit(problem: str, origin: Origin) -> DeclarationError:
    return DeclarationError(
        f"the rules of a field do not fit: {problem}",
        code="MS-1038",
        why="ge and le hold for numbers, matches for text, one_of for values of the column's type",
        origin=str(origin),
        fix="correct Field(...)",
    )


class Record:
    """A row of a table, as a class: each annotation is a column.

    Columns are ``str``, ``int``, ``float``, ``bool``, ``datetime``, ``date``, ``bytes``, ``Decimal`` or
    ``list[float]`` (a vector, with ``Field(length=n)``), each possibly ``| None``::

        class Weather(Record):
            origin: str
            wind_speed: float | None = Field(ge=0, le=200, unit="mph")
            observed: datetime

    A row may be made by name, as an on-demand function returns it: ``Pressure(ratio=0.5, high=False)``.
    """

    def __init__(self, **values: object) -> None:
        names = _names_of(type(self))  # type: ignore[arg-type]  # classes are hashable
        if values.keys() != names:
            wrong = ", ".join(sorted(names ^ values.keys()))
            raise TypeError(f"{type(self).__name__} takes each of its columns once; check {wrong}")
        self.__dict__.update(values)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


@functools.cache
def _names_of(record: type[Record]) -> frozenset[str]:
    return frozenset(name for base in record.__mro__ for name in inspect.get_annotations(base))


_KINDS: Mapping[object, Kind] = {
    str: Kind.STRING,
    int: Kind.INTEGER,
    float: Kind.FLOAT,
    bool: Kind.BOOLEAN,
    datetime: Kind.TIMESTAMP,
    date: Kind.DATE,
    bytes: Kind.BYTES,
    Decimal: Kind.DECIMAL,
    list[float]: Kind.VECTOR,
}


def column_type(annotation: object, rules: Field, *, where: str, origin: Origin) -> ColumnType:
    """The column type that an annotation stands for.

    Raises:
        DeclarationError: MS-1003, no column can hold such a type.
    """
    nullable = False
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        members = [member for member in typing.get_args(annotation) if member is not type(None)]
        nullable = len(members) < len(typing.get_args(annotation))
        annotation = members[0] if len(members) == 1 else annotation
    kind = _KINDS.get(annotation)
    if kind is None:
        raise DeclarationError(
            f"{where} has a type that a column cannot hold: {annotation!r}",
            code="MS-1003",
            why="a column is str, int, float, bool, datetime, date, bytes, Decimal, list[float], or one | None",
            origin=str(origin),
            fix="change the annotation, or leave the column out of the record",
        )
    if kind is Kind.VECTOR and rules.length < 1:
        raise DeclarationError(
            f"{where} is a vector of unknown length",
            code="MS-1004",
            origin=str(origin),
            fix=f"{where.rpartition('.')[2]}: list[float] = Field(length=384)",
        )
    if kind is Kind.DECIMAL:
        return ColumnType(kind, nullable, precision=rules.precision, scale=rules.scale)
    return ColumnType(kind, nullable, length=rules.length if kind is Kind.VECTOR else 0)


def fields_of(record: type[Record]) -> tuple[FieldSpec, ...]:
    """The columns of a record class, in order, inherited ones first.

    Raises:
        DeclarationError: MS-1003, MS-1004 as `column_type`; MS-1005, not a record or without columns;
            MS-1006, an annotation names nothing; MS-1038, MS-1039, a default is no rule of the column.
    """
    origin = here()
    if not (isinstance(record, type) and issubclass(record, Record) and record is not Record):
        raise DeclarationError(
            f"{record!r} is not a record",
            code="MS-1005",
            why="a source is described by a class that derives from mainspring.Record",
            origin=str(origin),
            fix="class Flight(Record): ...",
        )
    try:
        hints = typing.get_type_hints(record)
    except NameError as error:
        raise DeclarationError(
            f"{record.__name__} names an unknown type",
            code="MS-1006",
            why=str(error),
            origin=str(origin),
            fix="import the type at the top of the file",
        ) from error
    if not hints:
        raise DeclarationError(
            f"{record.__name__} has no columns", code="MS-1005", origin=str(origin), fix="annotate at least one column"
        )
    specs = []
    for name, annotation in hints.items():
        default = getattr(record, name, None)
        rules = default if isinstance(default, Field) else Field()
        kind = column_type(annotation, rules, where=f"{record.__name__}.{name}", origin=origin)
        _rules_fit(f"{record.__name__}.{name}", kind, default, origin)
        specs.append(FieldSpec(name, kind, rules))
    return tuple(specs)


_VALUES: Mapping[Kind, tuple[type, ...]] = {
    Kind.STRING: (str,),
    Kind.INTEGER: (int,),
    Kind.FLOAT: (float, int),
    Kind.BOOLEAN: (bool,),
    Kind.TIMESTAMP: (datetime,),
    Kind.DATE: (date,),
    Kind.BYTES: (bytes,),
    Kind.DECIMAL: (Decimal, int),
}


def _rules_fit(where: str, kind: ColumnType, default: object, origin: Origin) -> None:
    if default is None:
        return
    if not isinstance(default, Field):
        raise DeclarationError(
            f"{where} has the default {default!r}, which would not be used",
            code="MS-1039",
            why="a record says what columns are; missing values are null",
            origin=str(origin),
            fix="leave it out, or write a Field(...)",
        )
    numeric = kind.kind in (Kind.INTEGER, Kind.FLOAT, Kind.DECIMAL)
    if (default.ge is not None or default.le is not None) and not numeric:
        raise _unfit(f"{where} is {kind}, which has no ge or le", origin)
    if default.matches is not None and kind.kind is not Kind.STRING:
        raise _unfit(f"{where} is {kind}, which matches nothing", origin)
    wrong = [value for value in default.one_of if not isinstance(value, _VALUES.get(kind.kind, ()))]
    if wrong:
        raise _unfit(f"{where} is {kind}, and one_of holds {wrong[0]!r}", origin)
