"""What the files that a Feast repository names hold: the types of their columns, which Feast looks up there too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mainspring.lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet
else:
    pa, parquet = lazy("pyarrow"), lazy("pyarrow.parquet")

__all__ = ["FileColumn", "columns_of"]


class FileColumn(msgspec.Struct, frozen=True):
    """A column of a file.

    Attributes:
        type: as Feast spells it, ``Date`` and ``Decimal`` besides, or "" where no feature can be such.
        length: elements of each list, where all have as many.
        fine: whether its times have digits beyond microseconds.
        precision: digits of a decimal; scale: those after the point.
    """

    type: str
    length: int = 0
    fine: bool = False
    precision: int = 0
    scale: int = 0


def columns_of(path: Path) -> Mapping[str, FileColumn]:
    """The columns of a Parquet file, or of the first in a folder; none where there is none that can be read."""
    found = path
    if path.is_dir():
        found = min(path.rglob("*.parquet"), default=path)
    if not found.is_file():
        return {}
    try:
        schema = parquet.read_schema(found)
    except (OSError, ValueError, ModuleNotFoundError):
        return {}
    return {field.name: _column(field.type) for field in schema if field.name != "__index_level_0__"}


def _column(kind: pa.DataType) -> FileColumn:
    types = pa.types
    if types.is_dictionary(kind):
        return _column(kind.value_type)
    if types.is_timestamp(kind):
        return FileColumn("UnixTimestamp", fine=kind.unit == "ns")
    if types.is_decimal(kind):
        return FileColumn("Decimal", precision=kind.precision, scale=kind.scale)
    if types.is_fixed_size_list(kind):
        return FileColumn(f"Array({_plain(kind.value_type)})", kind.list_size)
    if types.is_list(kind) or types.is_large_list(kind):
        return FileColumn(f"Array({_plain(kind.value_type)})")
    return FileColumn(_plain(kind))


def _plain(kind: pa.DataType) -> str:
    types = pa.types
    for name, holds in (
        ("Int64", types.is_integer),
        ("Float32", types.is_float32),
        ("Float64", types.is_floating),
        ("Bool", types.is_boolean),
        ("String", types.is_string),
        ("String", types.is_large_string),
        ("Bytes", types.is_binary),
        ("Bytes", types.is_large_binary),
        ("Date", types.is_date),
    ):
        if holds(kind):
            return name
    return ""
