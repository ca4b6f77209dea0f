"""Columns into the exact types that a record declares: without loss, or not at all."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.declare.record import ColumnType, Kind
from mainspring.features.view import arrow_type
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    pa, pc = lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = ["NOTHING", "Reading", "TooFineError", "UnfitError", "bad_rows", "cast_column", "misfit"]

NOTHING = ("", "NA", "N/A", "NULL", "null", "None")
"""Texts that stand for no value in a column that holds no text; in a column of text they are what they say."""

_ZONED = r"(Z|z|[+-]\d\d(:?\d\d)?)$"


class UnfitError(Exception):
    """A column cannot be brought into its type without loss; the message says why, in the user's terms."""


class TooFineError(UnfitError):
    """Times have digits beyond microseconds, and nobody has said that those may be cut off."""


class Reading(msgspec.Struct, frozen=True):
    """How values are to be understood.

    Attributes:
        text: whether all values come as text (CSV), so that ``"1"`` may be a number.
        zone: the IANA zone of times that carry none, or None to refuse them.
        truncate: whether digits beyond microseconds are cut off instead of refused.
    """

    text: bool = False
    zone: str | None = None
    truncate: bool = False


def cast_column(column: pa.ChunkedArray, kind: ColumnType, how: Reading) -> pa.ChunkedArray:
    """The column in the Arrow type of `kind`; nulls stay null, whether or not the type has them.

    Raises:
        UnfitError: a value would change, or has no meaning in the type.
    """
    plain = _plain(column)
    if pa.types.is_null(plain.type):
        return pa.chunked_array([pa.nulls(len(plain), arrow_type(kind))])
    if how.text and kind.kind is not Kind.STRING and pa.types.is_string(plain.type):
        trimmed = pc.utf8_trim_whitespace(plain)
        plain = pc.if_else(pc.is_in(trimmed, pa.array(NOTHING)), pa.scalar(None, pa.string()), trimmed)
    try:
        return _CASTS[kind.kind](plain, kind, how)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise UnfitError(str(error).splitlines()[0]) from error


def bad_rows(column: pa.ChunkedArray, kind: ColumnType, how: Reading, limit: int = 3) -> list[tuple[int, object, str]]:
    """The first rows that do not fit: (row, value, why), by halving the column until single rows are left."""
    found: list[tuple[int, object, str]] = []

    def search(start: int, stop: int) -> None:
        if len(found) >= limit or start >= stop:
            return
        try:
            cast_column(column.slice(start, stop - start), kind, how)
        except UnfitError as error:
            if stop - start == 1:
                found.append((start, column[start].as_py(), str(error)))
                return
            middle = (start + stop) // 2
            search(start, middle)
            search(middle, stop)

    search(0, len(column))
    return found


def misfit(column: pa.ChunkedArray, kind: ColumnType, error: UnfitError) -> str:
    """Why a column of plain values does not fit, with the first rows that do not."""
    rows = "; ".join(f"row {row}: {value!r}" for row, value, _ in bad_rows(column, kind, Reading()))
    return f"{error} ({rows})" if rows else str(error)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Dictionaries, views and large types as what they hold."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _plain(column.cast(kind.value_type))
    if pa.types.is_run_end_encoded(kind):
        return _plain(pc.run_end_decode(column))
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        return column.cast(pa.binary())
    return column


def _refuse(column: pa.ChunkedArray, kind: ColumnType, hint: str = "") -> UnfitError:
    return UnfitError(f"it holds {column.type}, not {kind.kind.value}{hint}")


def _string(column: pa.ChunkedArray, kind: ColumnType, how: Reading) -> pa.ChunkedArray:
    if not pa.types.is_string(column.type):
        raise _refuse(column, kind)
    return column


def _integer(column: pa.ChunkedArray, kind: ColumnType, how: Reading) -> pa.ChunkedArray:
    held = column.type
    number = pa.types.is_integer(held) or pa.types.is_floating(held) or pa.types.is_decimal(held)
    if not number and not (how.text and pa.types.is_string(held)):
        raise _refuse(column, kind)
    return column.cast(pa.int64())


def _float(column: pa.ChunkedArray, kind: ColumnType, how: Reading) -> pa.ChunkedArray:
    held = column.type
    number = pa.types.is_integer(held) or pa.types.is_floating(held) or pa.types.is_decimal(held)
    if not number and not (how.text and pa.types.is_string(held)):
        raise _refuse(column, kind)
    return column.cast(pa.float64())


def _boolean(column: pa.ChunkedArray, kind: ColumnType, how: Reading) -> pa.ChunkedArray:
    if pa.types.is_boolean(column.type):
        return column
    if how.text and pa.types.is_string(column.type):
        column = pc.utf8_lower(column)
        true, false = pa.array(["true", "t", "yes", "1"]), pa.array(["false", "f", "no", "0"])
    elif pa.types.is_integer(column.type):
        true, false = pa.array([1], column.type), pa.array([0], column.type)
    else:
        raise _refuse(column, kind)
    known = pc.or_(pc.is_in(column, true), pc.is_in(column, false))
    if not pc.all(pc.or_(known, pc.is_null(column)), min_count=0).as_py():
        raise UnfitError("it holds values that are neither true nor false")
    return pc.if_else(pc.is_null(column), pa.scalar(None, pa.bool_()), pc.is_in(column, true))


def _timestamp(column: pa.ChunkedArray, kind: ColumnType, how: Reading) -> pa.ChunkedArray:
    held = column.type
    if pa.types.is_string(held):
        return _written_time(column, kind, how)
    if pa.types.is_date32(held):
        return _zoned(column.cast(pa.timestamp("us")), how)
    if not pa.types.is_timestamp(held):
        raise _refuse(column, kind)
    if held.unit == "ns":
        if not how.truncate:
            raise TooFineError('its times are in nanoseconds, which would be cut; allow it with truncate = "us"')
        column = pc.floor_temporal(column, unit="microsecond")
    column = column.cast(pa.timestamp("us", held.tz))
    return column.cast(arrow_type(kind)) if held.tz is not None else _zoned(column, how)


def _zoned(column: pa.ChunkedArray, how: Reading) -> pa.ChunkedArray:
    if how.zone is None:
        raise UnfitError('its times carry no zone; say which: app.source(..., zone="Europe/Berlin")')
    try:
        aware = pc.assume_timezone(column, how.zone, ambiguous="raise", nonexistent="raise")
    except pa.ArrowInvalid as error:
        raise UnfitError(f"a time does not exist, or exists twice, in {how.zone}: {error}") from error
    return aware.cast(pa.timestamp("us", "UTC"))


def _written_time(column: pa.ChunkedArray, kind: ColumnType, how: Reading) -> pa.ChunkedArray:
    if not how.truncate and pc.any(pc.match_substring_regex(column, r"\.\d{6}0*[1-9]"), min_count=0).as_py():
        raise TooFineError('its times have digits beyond microseconds; have them cut with truncate = "us"')
    column = pc.replace_substring_regex(column, r"(\.\d{6})\d+", r"\1")
    zoned = pc.match_substring_regex(column, _ZONED)
    # A date has no zone, and its "-01" looks like one.
    zoned = pc.and_(zoned, pc.match_substring(column, ":"))
    aware = pc.if_else(zoned, column, pa.scalar(None, pa.string())).cast(arrow_type(kind))
    naive = pc.if_else(zoned, pa.scalar(None, pa.string()), column).cast(pa.timestamp("us"))
    if naive.null_count == len(naive):
        return aware
    return pc.coalesce(aware, _zoned(naive, how))


def _date(column: pa.ChunkedArray, kind: ColumnType, how: Reading) -> pa.ChunkedArray:
    held = column.type
    if not (pa.types.is_date(held) or pa.types.is_string(held)):
        raise _refuse(column, kind, "; which day it is depends on a zone" if pa.types.is_timestamp(held) else "")
    return column.cast(pa.date32())


def _bytes(column: pa.ChunkedArray, kind: ColumnType, how: Reading) -> pa.ChunkedArray:
    if pa.types.is_binary(column.type):
        return column
    if not (how.text and pa.types.is_string(column.type)):
        raise _refuse(column, kind)
    try:
        values = [None if text is None else base64.b64decode(text, validate=True) for text in column.to_pylist()]
    except ValueError as error:
        raise UnfitError(f"it is no base64: {error}") from error
    return pa.chunked_array([pa.array(values, pa.binary())])


def _decimal(column: pa.ChunkedArray, kind: ColumnType, how: Reading) -> pa.ChunkedArray:
    held = column.type
    if pa.types.is_integer(held):
        column = column.cast(pa.decimal128(38, 0))
    elif not (pa.types.is_decimal(held) or (how.text and pa.types.is_string(held))):
        raise _refuse(column, kind)
    return column.cast(arrow_type(kind))


def _vector(column: pa.ChunkedArray, kind: ColumnType, how: Reading) -> pa.ChunkedArray:
    held = column.type
    if not (pa.types.is_list(held) or pa.types.is_large_list(held) or pa.types.is_fixed_size_list(held)):
        raise _refuse(column, kind)
    if pc.any(pc.is_null(pc.list_flatten(column)), min_count=0).as_py():
        raise UnfitError("a vector has a null inside")
    lengths = pc.list_value_length(column)
    if not pc.all(pc.equal(lengths, kind.length), min_count=0).as_py():
        raise UnfitError(f"a vector does not have {kind.length} elements")
    return column.cast(pa.list_(pa.float32())).cast(arrow_type(kind))


_CASTS: Mapping[Kind, Callable[[Any, ColumnType, Reading], Any]] = {
    Kind.STRING: _string,
    Kind.INTEGER: _integer,
    Kind.FLOAT: _float,
    Kind.BOOLEAN: _boolean,
    Kind.TIMESTAMP: _timestamp,
    Kind.DATE: _date,
    Kind.BYTES: _bytes,
    Kind.DECIMAL: _decimal,
    Kind.VECTOR: _vector,
}
