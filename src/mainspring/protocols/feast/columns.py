"""Columns of records: Feast's types as this house's, and the names and rules that a column may have."""

from __future__ import annotations

import keyword

import msgspec

from mainspring.protocols.feast.code import called, quoted
from mainspring.protocols.feast.files import FileColumn

__all__ = ["TYPES", "Column", "column_of", "fits", "reads"]

TYPES = {
    "Int32": "int",
    "Int64": "int",
    "Float32": "float",
    "Float64": "float",
    "String": "str",
    "Bool": "bool",
    "Bytes": "bytes",
    "PdfBytes": "bytes",
    "ImageBytes": "bytes",
    "Json": "str",
    "Uuid": "str",
    "TimeUuid": "str",
    "UnixTimestamp": "datetime",
    "ZonedTimestamp": "datetime",
    "Date": "date",
    "Decimal": "Decimal",
    "Array(Float32)": "list[float]",
    "Array(Float64)": "list[float]",
}
_ANNOTATED = {*TYPES.values(), "Field"}
"""Names that a column may have, but not with a rule: its class would hide what other columns are annotated with."""


class Column(msgspec.Struct, frozen=True):
    """A column of a record: its type as it is annotated, without ``| None``, and its sizes."""

    type: str
    nullable: bool
    rules: tuple[str, ...] = ()

    def line(self, name: str) -> str:
        """The column as it is written in a record."""
        head = f"{name}: {self.type}{' | None' if self.nullable else ''}"
        rules = () if name in _ANNOTATED else self.rules
        return f"    {called(f'{head} = Field', rules, '    ') if rules else head}"


def column_of(kind: str, length: int, held: FileColumn | None, doc: str) -> Column | None:
    """A column of a type of Feast's, or None where no column can be such."""
    found = TYPES.get(kind)
    rules = [f"doc={quoted(doc)}"] if doc.strip() else []
    if found == "list[float]":
        length = length or (held.length if held else 0)
        rules.insert(0, f"length={length}")
        found = found if length > 0 else None
    elif found == "Decimal":
        precise = held is not None and held.precision > 0
        rules = [f"precision={held.precision}", f"scale={held.scale}", *rules] if held else rules
        found = found if precise else None
    return None if found is None else Column(found, True, tuple(rules))


def fits(name: str) -> bool:
    """Whether a class or a call can have the name."""
    return name.isidentifier() and not keyword.iskeyword(name) and not name.startswith("__")


def reads(declared: str, held: str) -> bool:
    """Whether a column of one type is read from one of another."""
    numbers = ("int", "float")
    return declared == held or (declared in numbers and held in numbers) or (declared, held) == ("bool", "int")
