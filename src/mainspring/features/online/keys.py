"""Entity keys as bytes: the view's number, then a tag and bytes for each key column, in declared order.

``i`` int64 and ``t`` timestamp (us) big endian with the sign flipped, ``s`` text, ``b`` bytes and ``d`` decimal with a
length, ``?`` boolean, ``y`` date. A key over 400 bytes is stored by its blake2b-256.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from mainspring.declare.record import FieldSpec, Kind
from mainspring.errors import DataError
from mainspring.features.decimals import EXACT

__all__ = ["KeyPacker", "column_packer", "key_packer", "packed_columns", "view_prefix"]

_LONGEST = 400
_SIGN = 1 << 63
_INT = struct.Struct(">cQ")
_LENGTH = struct.Struct(">cI")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

KeyPacker = Callable[[Mapping[str, Any]], bytes]


def view_prefix(view_id: int) -> bytes:
    """What the keys of a view begin with."""
    return view_id.to_bytes(4, "big")


def key_packer(view_id: int, keys: Sequence[FieldSpec], *, nulls: bool = False) -> KeyPacker:
    """A function from a mapping with the key columns to the key's bytes.

    Args:
        view_id: the view's number.
        keys: the key columns, in declared order.
        nulls: whether a key may be null, as in a question. Such a key is the view's prefix alone, which no row has.

    The function raises:
        DataError: MS-2120, a key column is missing, null (unless `nulls`) or of the wrong type.
    """
    prefix = view_prefix(view_id)
    if len(keys) == 1 and keys[0].type.kind is Kind.STRING:
        return _one_text(prefix, keys[0].name, nulls)
    parts = [(field.name, _PACKERS[field.type.kind]) for field in keys]

    def pack(row: Mapping[str, Any]) -> bytes:
        found, null = [prefix], False
        for name, packer in parts:
            try:
                found.append(packer(row[name]))
            except (KeyError, TypeError, AttributeError, OverflowError, UnicodeEncodeError, struct.error) as error:
                null = _null(name, row, nulls, error)
        if null:
            return prefix
        return _short(b"".join(found))

    return pack


def packed_columns(view_id: int, keys: Sequence[FieldSpec], columns: Sequence[Sequence[Any]]) -> list[bytes]:
    """The keys of many rows, from a column for each key column in declared order; as `key_packer` packs each.

    Raises:
        DataError: MS-2120, a key is null or of the wrong type.
    """
    names, pack = [key.name for key in keys], key_packer(view_id, keys)
    if len(keys) == 1:
        return column_packer(view_id, keys[0])(columns[0])
    return [pack(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def column_packer(view_id: int, key: FieldSpec, *, nulls: bool = False) -> Callable[[Sequence[Any]], list[bytes]]:
    """As `key_packer`, of one key column: from a column to the keys of its values."""
    name, pack = key.name, key_packer(view_id, (key,), nulls=nulls)
    if key.type.kind is not Kind.STRING:
        return lambda column: [pack({name: value}) for value in column]
    heads = _text_heads(view_prefix(view_id))

    def packed(column: Sequence[Any]) -> list[bytes]:
        try:
            return [heads[len(text)] + text for text in map(str.encode, column)]
        except (TypeError, IndexError, UnicodeEncodeError):  # one is null, no text, or long
            return [pack({name: value}) for value in column]

    return packed


def _text_heads(prefix: bytes) -> list[bytes]:
    """What goes before a text, by its length in bytes."""
    return [prefix + _LENGTH.pack(b"s", length) for length in range(_LONGEST - 8)]


def _one_text(prefix: bytes, name: str, nulls: bool) -> KeyPacker:
    """The commonest key, without a loop."""
    heads = _text_heads(prefix)

    def pack(row: Mapping[str, Any]) -> bytes:
        try:
            text: bytes = row[name].encode()
        except (KeyError, AttributeError, UnicodeEncodeError) as error:  # a lone surrogate is no text
            _null(name, row, nulls, error)
            return prefix
        try:
            return heads[len(text)] + text
        except IndexError:
            return _short(prefix + _LENGTH.pack(b"s", len(text)) + text)

    return pack


def _null(name: str, row: Mapping[str, Any], nulls: bool, error: Exception) -> bool:
    """True when what could not be packed is a null that may be there."""
    if nulls and name in row and row[name] is None:
        return True
    found = f"is {row[name]!r}" if name in row else "is missing"
    raise DataError(f"key column {name!r} {found}", code="MS-2120", fix="send it with its declared type") from error


def _short(key: bytes) -> bytes:
    return key if len(key) <= _LONGEST else key[:4] + b"h" + hashlib.blake2b(key, digest_size=32).digest()


def _text(value: str) -> bytes:
    data = value.encode()
    return _LENGTH.pack(b"s", len(data)) + data


def _bytes(value: bytes) -> bytes:
    return _LENGTH.pack(b"b", len(value)) + bytes(value)


def _decimal(value: Decimal) -> bytes:
    if not value.is_finite():
        raise TypeError(value)
    data = str(EXACT.normalize(EXACT.plus(value))).encode()  # plus: -0 is 0
    return _LENGTH.pack(b"d", len(data)) + data


def _integer(value: int) -> bytes:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(value)
    return _INT.pack(b"i", value + _SIGN)


def _moment(value: datetime | int) -> bytes:
    us = value if isinstance(value, int) else (value - _EPOCH) // (datetime.resolution)
    return _INT.pack(b"t", us + _SIGN)


def _day(value: date) -> bytes:
    return _INT.pack(b"y", value.toordinal() + _SIGN)


def _truth(value: bool) -> bytes:
    if not isinstance(value, bool):
        raise TypeError(value)
    return b"?\1" if value else b"?\0"


_PACKERS: Mapping[Kind, Callable[[Any], bytes]] = {
    Kind.STRING: _text,
    Kind.INTEGER: _integer,
    Kind.BYTES: _bytes,
    Kind.DECIMAL: _decimal,
    Kind.TIMESTAMP: _moment,
    Kind.DATE: _day,
    Kind.BOOLEAN: _truth,
}
