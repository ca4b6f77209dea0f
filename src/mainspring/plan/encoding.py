"""The canonical encoding of values: equal bytes for equal values, in every process and on every machine.

Every value is written as type tag, length, bytes. Nothing here pickles, and nothing depends on `repr`, on hash order,
or on where an object lies in memory.
"""

from __future__ import annotations

import copyreg
import dataclasses
import enum
import functools
import hashlib
import inspect
import math
import struct
import sys
import uuid
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, Protocol, cast
from zoneinfo import ZoneInfo

import msgspec

from mainspring.errors import DeclarationError, RefusedError
from mainspring.plan.arrays import array_parts, table_parts

__all__ = ["Encoder", "Unencodable", "digest", "encode", "label_of", "module_name", "unencodable"]

_SIZE = struct.Struct(">Q")
_NAN = struct.pack(">d", math.nan)
_SECRET = "__mainspring_secret__"

Special = Callable[[Any], bytes | None]
"""Encodes the values it knows, and returns None for others."""


class Unencodable(DeclarationError):  # noqa: N818 - said of a value
    """A value has no canonical form: a lock, an open file, a generator (MS-1110)."""


def unencodable(value: object, why: str = "its content cannot enter a cache key") -> Unencodable:
    """The error that says that a value has no canonical form."""
    kind = type(value)
    return Unencodable(
        f"a {kind.__module__}.{kind.__qualname__} has no canonical form",
        code="MS-1110",
        why=why,
        fix="make it inside the step, or declare the step with cache=False",
    )


def digest(*parts: bytes) -> str:
    """blake2b-160 in hex over the length-prefixed parts."""
    state = hashlib.blake2b(digest_size=20)
    for part in parts:
        state.update(_SIZE.pack(len(part)))
        state.update(part)
    return state.hexdigest()


def encode(value: object, other: Special | None = None) -> bytes:
    """The canonical bytes of a value.

    Plain values, bytes, dates with their zone, decimals, UUIDs, paths (as text), enums, sequences, sets (sorted by
    their elements' bytes), mappings (in their order), dataclasses and msgspec structs (name and fields), NumPy arrays
    (dtype, shape, bytes), tables (as Arrow IPC), and objects that can be taken apart and rebuilt from such parts.
    ``1``, ``True`` and ``1.0`` differ; every NaN is the same; ``-0.0`` and ``0.0`` differ.

    Args:
        value: what to encode.
        other: tried first on what is neither plain nor a container: functions, classes, instances.

    Raises:
        Unencodable: MS-1110, a lock, an open file, an iterator; a function or class that `other` does not know.
        RefusedError: MS-5001, the value is a secret: it or its class has a true ``__mainspring_secret__``.
    """
    try:
        return Encoder(other)(value)
    except RecursionError as error:
        raise unencodable(value, "it is nested too deeply") from error


class Reduced(Protocol):
    """Takes an object apart, as `copyreg` does."""

    def __call__(self, value: object, /) -> str | tuple[Any, ...]:
        """Name or parts."""


class Encoder:
    """Encodes values and what they hold; a value that holds itself is written as the distance to itself.

    Args:
        special: tried first on what is neither plain nor a container of the language.
    """

    __slots__ = ("_path", "_special")

    def __init__(self, special: Special | None = None) -> None:
        self._special = special
        self._path: dict[int, int] = {}

    def __call__(self, value: object) -> bytes:
        """The canonical bytes of a value.

        Raises:
            Unencodable: MS-1110.
            RefusedError: MS-5001.
        """
        plain = _PLAIN.get(type(value))
        if plain is not None:
            return plain(value)
        if type(value) not in _CONTAINERS:
            _refuse_secret(value)
        above = self._path.get(id(value))
        if above is not None:
            return tagged(b"^", b"%d" % (len(self._path) - above))
        self._path[id(value)] = len(self._path)
        try:
            return self._held(value)
        finally:
            del self._path[id(value)]

    def all(self, values: Iterable[object]) -> bytes:
        """The bytes of several values, one after the other."""
        plain = _PLAIN.get
        return b"".join([(plain(type(value)) or self)(value) for value in values])

    def _held(self, value: Any) -> bytes:
        container = _CONTAINERS.get(type(value))
        if container is not None:
            return container(self, value)
        special = None if self._special is None else self._special(value)
        return self.structure(value) if special is None else special

    def structure(self, value: Any) -> bytes:
        """An object by the name of its class and its parts; `special` is not asked for the object itself."""
        kind: Any = type(value)
        shape = _shape_of(kind)
        if shape is not None:
            return tagged(b"@", shape.label + self._fields(value, shape))
        name = label_of(kind)
        if isinstance(value, enum.Enum):
            return tagged(b"e", name + self(value._name_) + self(value._value_))
        if isinstance(value, PurePath):
            return tagged(b"p", str(value).encode("utf-8", "surrogateescape"))
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            return tagged(b"N", name + self.all(kind._fields) + self.all(tuple.__iter__(value)))
        if isinstance(value, (set, frozenset)):
            return tagged(b"S", name + _set(self, value) + self.state(getattr(value, "__dict__", None)))
        parts = array_parts(value) or table_parts(value)
        if parts is not None:
            return tagged(b"a", name + self.all(parts))
        return self._reduced(value, name)

    def _fields(self, value: object, shape: _Shape) -> bytes:
        found, plain = bytearray(), _PLAIN.get
        for field, name in shape.fields:
            item = getattr(value, field, _UNSET)
            if item is not _UNSET:
                found += name
                found += (plain(type(item)) or self)(item)
        return bytes(found)

    def state(self, state: object) -> bytes:
        """The attributes of an object; the order in which they were set does not count."""
        if type(state) is dict and all(type(key) is str for key in state):
            return _dict(self, dict(sorted(state.items())))
        return self(state)

    def _reduced(self, value: Any, name: bytes) -> bytes:
        """An object by what it would be rebuilt from, as `copy` does it; nothing is pickled."""
        if isinstance(value, type) or inspect.isroutine(value) or hasattr(type(value), "__next__"):
            raise unencodable(value)
        try:
            take_apart = cast("Reduced | None", copyreg.dispatch_table.get(type(value)))
            parts = value.__reduce_ex__(4) if take_apart is None else take_apart(value)
        except Exception as error:  # whatever a class raises to say that it cannot be copied
            raise unencodable(value) from error
        if isinstance(parts, str):
            return tagged(b"g", name + _global(value, parts).encode())
        rebuild, arguments, state, items, pairs = (*parts, None, None, None)[:5]
        found = [name, self._named(rebuild), *(self._named(argument) for argument in arguments)]
        found += [self.state(part) for part in (state if _is_slotted(state) else (state,))]
        found += [self.all(items or ()), self.all(pairs or ())]
        return tagged(b"r", b"".join([tagged(b"|", part) for part in found]))

    def _named(self, part: Any) -> bytes:
        """The classes and functions that rebuild an object may enter by name."""
        if isinstance(part, type) or inspect.isroutine(part):
            special = None if self._special is None else self._special(part)
            owner = getattr(part, "__module__", None) or ""
            return special or tagged(b"l", f"{module_name(owner)}:{part.__qualname__}".encode())
        return self(part)


class _Shape(msgspec.Struct, frozen=True):
    """The encoded name of a class, and its fields with their encoded names."""

    label: bytes
    fields: tuple[tuple[str, bytes], ...]


_UNSET = object()


@functools.lru_cache(maxsize=4096)
def _shape_of(kind: Any) -> _Shape | None:
    """What values of a dataclass or msgspec struct look like; None for other classes, and for mixtures with them."""
    if issubclass(kind, (enum.Enum, PurePath, tuple, set, frozenset)):
        return None
    if issubclass(kind, msgspec.Struct):
        names = kind.__struct_fields__
    elif dataclasses.is_dataclass(kind):
        names = tuple(field.name for field in dataclasses.fields(kind))
    else:
        return None
    return _Shape(label_of(kind), tuple((name, _PLAIN[str](name)) for name in names))


def _is_slotted(state: object) -> bool:
    return type(state) is tuple and len(state) == 2 and type(state[1]) is dict and type(state[0]) in (dict, type(None))


def tagged(tag: bytes, body: bytes) -> bytes:
    """Type tag, length, bytes."""
    return tag + _SIZE.pack(len(body)) + body


def label_of(kind: type) -> bytes:
    """The name of a class, encoded."""
    return tagged(b"l", f"{module_name(kind.__module__)}:{kind.__qualname__}".encode())


def module_name(module: object) -> str:
    """The name a module is imported by; `__main__` has one too, after its file or its ``-m`` name."""
    if module != "__main__":
        return str(module)
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = str(getattr(main, "__file__", None) or "")
    return file.replace("\\", "/").rpartition("/")[2].removesuffix(".py") or "__main__"


def _refuse_secret(value: object) -> None:
    marked = getattr(type(value), _SECRET, False) or getattr(value, "__dict__", {}).get(_SECRET, False)
    if marked is not False:
        raise RefusedError(
            "a secret cannot be a parameter",
            code="MS-5001",
            why="parameters enter cache keys, logs and the catalog",
            fix='declare it: @app.step(secrets=["name"])',
        )


def _global(value: object, name: str) -> str:
    """The name by which a module holds an object; one that merely claims such a name has no canonical form."""
    first = str(getattr(value, "__module__", None) or type(value).__module__)
    for module in (first, first.partition(".")[0], type(value).__module__, *sorted(sys.modules)):
        found: object = sys.modules.get(module)
        for part in name.split("."):
            found = getattr(found, "__dict__", {}).get(part)
        if found is value:
            return f"{module_name(module)}:{name}"
    raise unencodable(value, f"no module holds it by its name {name!r}")


# -- plain values ------------------------------------------------------------------------------------------------------


def _int(value: int) -> bytes:
    return tagged(b"i", value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _float(value: float) -> bytes:
    return tagged(b"f", _NAN if value != value else struct.pack(">d", value))


def _zone(zone: tzinfo | None, moment: datetime | time) -> bytes:
    if zone is None:
        return b""
    if type(zone) is ZoneInfo and zone.key:
        return tagged(b"z", zone.key.encode())
    if type(zone) is timezone:
        return tagged(b"Z", f"{zone.utcoffset(None)} {zone}".encode())
    return tagged(b"z", label_of(type(zone)) + f"{moment.utcoffset()} {moment.tzname()} {moment.dst()}".encode())


def _moment(tag: bytes, value: datetime | time) -> bytes:
    wall = value.replace(tzinfo=None).isoformat()
    return tagged(tag, tagged(b"s", wall.encode()) + bytes([value.fold]) + _zone(value.tzinfo, value))


_NONE, _TRUE, _FALSE = tagged(b"n", b""), tagged(b"?", b"\1"), tagged(b"?", b"\0")
_PLAIN: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda value: _NONE,
    bool: lambda value: _TRUE if value else _FALSE,
    int: _int,
    float: _float,
    complex: lambda value: tagged(b"c", _float(value.real) + _float(value.imag)),
    str: lambda value: tagged(b"s", value.encode("utf-8", "surrogatepass")),
    bytes: lambda value: tagged(b"b", value),
    bytearray: lambda value: tagged(b"B", bytes(value)),
    memoryview: lambda value: tagged(b"m", bytes(value)),
    type(...): lambda value: tagged(b".", b""),
    datetime: lambda value: _moment(b"T", value),
    date: lambda value: tagged(b"d", value.isoformat().encode()),
    time: lambda value: _moment(b"t", value),
    timedelta: lambda value: tagged(b"D", _int(value // timedelta(microseconds=1))),
    Decimal: lambda value: tagged(b"$", b"NaN" if value.is_nan() else str(value).encode()),
    uuid.UUID: lambda value: tagged(b"u", value.bytes),
}


def _set(encoder: Encoder, value: Iterable[object]) -> bytes:
    return b"".join(sorted([encoder(item) for item in value]))


def _dict(encoder: Encoder, value: dict[object, object]) -> bytes:
    return tagged(b":", encoder.all([part for pair in value.items() for part in pair]))


_CONTAINERS: dict[type, Callable[[Encoder, Any], bytes]] = {
    tuple: lambda encoder, value: tagged(b"(", encoder.all(value)),
    list: lambda encoder, value: tagged(b"[", encoder.all(value)),
    dict: _dict,
    MappingProxyType: lambda encoder, value: tagged(b";", _dict(encoder, dict(value))),
    set: lambda encoder, value: tagged(b"{", _set(encoder, value)),
    frozenset: lambda encoder, value: tagged(b"}", _set(encoder, value)),
}
