"""Which columns a table takes: delta-rs would change some of them without a word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from mainspring.adapters.delta.problems import unfit
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

__all__ = ["evolution", "is_text", "storable"]


def evolution(table: str, known: pa.Schema, rows: pa.Schema) -> Literal["merge"] | None:
    """How the rows' columns fit; delta-rs itself would cast them silently, text to numbers too."""
    for field in rows:
        if field.name in known.names:
            wanted = known.field(field.name).type
            if _plain(field.type) != _plain(wanted):
                raise unfit(table, f"column {field.name!r} is {field.type}, and was {wanted}")
        elif not storable(field.type):
            raise unfit(table, f"column {field.name!r} is {field.type}, which would be stored as something else")
    return None if rows.names == known.names else "merge"


def is_text(kind: pa.DataType) -> bool:
    """Whether dictionaries are worth their cost."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind))


def _plain(kind: pa.DataType) -> str:
    """A type without what a writer is free to choose: the width of offsets, the name of a list's items."""
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list<{_plain(kind.value_type)}>"
    return str(kind).removeprefix("large_").removesuffix("_view")


def storable(kind: pa.DataType) -> bool:
    """Whether Delta has the type as it is; others are narrowed silently, or raise the protocol for all readers."""
    if pa.types.is_timestamp(kind):
        return bool(kind.unit == "us" and kind.tz == "UTC")
    if pa.types.is_decimal(kind):
        return bool(kind.precision <= 38)
    if pa.types.is_list(kind):
        return storable(kind.value_type)
    return any(
        fits(kind)
        for fits in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_binary,
            pa.types.is_boolean,
            pa.types.is_signed_integer,
            pa.types.is_float32,
            pa.types.is_float64,
            pa.types.is_date32,
        )
    )
