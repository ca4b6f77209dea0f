"""The canonical encoding of values: equal bytes for equal values, in every process and on every machine.

Every value is written as type tag, length, bytes. Nothing here pickles, and nothing depends on `repr` or hash order.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import math
import struct
import sys
import uuid
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.errors import DeclarationError, RefusedError
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import pyarrow as pa
else:
    pa = lazy("pyarrow")

__all__ = ["Unencodable", "digest", "encode"]

_SIZE = struct.Struct(">Q")
_NAN = struct.pack(">d", math.nan)


class Unencodable(DeclarationError):  # noqa: N818 - said of a value
    """A value has no canonical form: a lock, an open file, a generator (MS-1110)."""


def digest(*parts: bytes) -> str:
    """blake2b-160 in hex over the length-prefixed parts."""
    state = hashlib.blake2b(digest_size=20)
    for part in parts:
        state.update(_SIZE.pack(len(part)))
        state.update(part)
    return state.hexdigest()


def encode(value: object, other: Callable[[Any], bytes | None] = lambda value: None) -> bytes:
    """The canonical bytes of a value.

    Plain values, bytes, dates with their zone, decimals, UUIDs, paths (as text), enums, sequences, sets (sorted by
    their elements' bytes), mappings (in their order), dataclasses and msgspec structs (name and fields), NumPy arrays
    (dtype, shape, bytes), and tables (as Arrow IPC). ``1``, ``True`` and ``1.0`` differ; every NaN is the same.

    Args:
        value: what to encode.
        other: tried first on values that are none of these: functions, classes, instances.

    Raises:
        Unencodable: MS-1110.
        RefusedError: MS-5001, the value is a secret.
    """
    if getattr(type(value), "__mainspring_secret__", False):
        raise RefusedError(
            "a secret cannot be a parameter",
            code="MS-5001",
            why="parameters enter cache keys, logs and the catalog",
            fix='declare it: @app.step(secrets=["name"])',
        )
    simple = _PLAIN.get(type(value))
    if simple is not None:
        return simple(value)
    special = other(value)
    if special is not None:
        return special
    return _compound(value, other)


def _tagged(tag: bytes, body: bytes) -> bytes:
    return tag + _SIZE.pack(len(body)) + body


def _float(value: float) -> bytes:
    return _tagged(b"f", _NAN if value != value else struct.pack(">d", value))


def _datetime(value: datetime) -> bytes:
    zone = "" if value.tzinfo is None else str(value.tzinfo)
    return _tagged(b"T", f"{value.isoformat()}|{zone}|{value.fold}".encode())


_PLAIN: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda value: _tagged(b"n", b""),
    bool: lambda value: _tagged(b"?", b"\1" if value else b"\0"),
    int: lambda value: _tagged(b"i", str(value).encode()),
    float: _float,
    complex: lambda value: _tagged(b"c", _float(value.real) + _float(value.imag)),
    str: lambda value: _tagged(b"s", value.encode("utf-8", "surrogatepass")),
    bytes: lambda value: _tagged(b"b", value),
    bytearray: lambda value: _tagged(b"B", bytes(value)),
    type(...): lambda value: _tagged(b".", b""),
    datetime: _datetime,
    date: lambda value: _tagged(b"d", value.isoformat().encode()),
    time: lambda value: _tagged(b"t", f"{value.isoformat()}|{value.tzinfo}".encode()),
    timedelta: lambda value: _tagged(b"D", str(value // timedelta(microseconds=1)).encode()),
    Decimal: lambda value: _tagged(b"$", str(value).encode()),
    uuid.UUID: lambda value: _tagged(b"u", value.bytes),
}


def _compound(value: Any, other: Callable[[Any], bytes | None]) -> bytes:
    name = _label(type(value))
    if isinstance(value, enum.Enum):
        return _tagged(b"e", name + encode(value.name) + encode(value.value, other))
    if isinstance(value, PurePath):
        return _tagged(b"p", str(value).encode())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return _tagged(b"N", name + b"".join(encode(item, other) for item in value))
    if isinstance(value, (tuple, list)):
        tag = b"(" if isinstance(value, tuple) else b"["
        return _tagged(tag, b"".join(encode(item, other) for item in value))
    if isinstance(value, (set, frozenset)):
        return _tagged(
            b"{" if isinstance(value, set) else b"}", b"".join(sorted(encode(item, other) for item in value))
        )
    if isinstance(value, (dict, MappingProxyType, Mapping)):
        pairs = b"".join(encode(key, other) + encode(item, other) for key, item in value.items())
        return _tagged(b":", pairs)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = b"".join(
            encode(field.name) + encode(getattr(value, field.name), other) for field in dataclasses.fields(value)
        )
        return _tagged(b"@", name + fields)
    if isinstance(value, msgspec.Struct):
        fields = b"".join(encode(field) + encode(getattr(value, field), other) for field in value.__struct_fields__)
        return _tagged(b"@", name + fields)
    return _library_value(value)


def _library_value(value: Any) -> bytes:
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        array = numpy.ascontiguousarray(value)
        if array.dtype.hasobject:
            return _tagged(b"O", encode(array.shape) + encode(array.tolist()))
        return _tagged(b"a", encode(array.dtype.str) + encode(array.shape) + array.tobytes())
    if hasattr(value, "__arrow_c_stream__") and not isinstance(value, type):
        return _tagged(b"A", _ipc(value))
    raise Unencodable(
        f"a {type(value).__module__}.{type(value).__qualname__} has no canonical form",
        code="MS-1110",
        why="its content cannot enter a cache key",
        fix="make it inside the step, or declare the step with cache=False",
    )


def _ipc(value: Any) -> bytes:
    table = pa.table(value).replace_schema_metadata(None).combine_chunks()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _label(kind: type) -> bytes:
    return _tagged(b"l", f"{kind.__module__}:{kind.__qualname__}".encode())
