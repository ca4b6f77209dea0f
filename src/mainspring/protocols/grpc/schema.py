"""Protocol buffers from their text, in pools of their own.

A process may hold other libraries that register ``inference.*``, ``tensorflow.*`` or ``feast.*`` in protobuf's default
pool, which takes a name once; what is described here never goes there. The text is the part of proto3 (Protocol Buffers
language specification, version 3) that the protocols need: messages, enums, maps, oneofs and services.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.lazy import lazy

if TYPE_CHECKING:
    from google.protobuf import (
        any_pb2,
        descriptor_pb2,
        descriptor_pool,
        empty_pb2,
        message_factory,
        timestamp_pb2,
        wrappers_pb2,
    )
else:
    any_pb2 = lazy("google.protobuf.any_pb2")
    descriptor_pb2 = lazy("google.protobuf.descriptor_pb2")
    descriptor_pool = lazy("google.protobuf.descriptor_pool")
    empty_pb2 = lazy("google.protobuf.empty_pb2")
    message_factory = lazy("google.protobuf.message_factory")
    timestamp_pb2 = lazy("google.protobuf.timestamp_pb2")
    wrappers_pb2 = lazy("google.protobuf.wrappers_pb2")

__all__ = ["ProtoFile", "Schema", "parsed"]

_SCALARS = {
    "double": 1, "float": 2, "int64": 3, "uint64": 4, "int32": 5, "bool": 8, "string": 9, "bytes": 12, "uint32": 13,
}  # fmt: skip
_OPTIONAL, _REPEATED = 1, 3
_WORD = re.compile(r"//[^\n]*|\s+|([A-Za-z_.][\w.]*|\d+|[{}()<>=;,])")


class ProtoFile(msgspec.Struct, frozen=True):
    """A file of descriptors.

    Attributes:
        name: as clients import it: ``grpc_service.proto``.
        package: of its names; empty is none.
        text: its definitions.
        needs: the files that it refers to.
    """

    name: str
    package: str
    text: str
    needs: tuple[str, ...] = ()


class Schema:
    """Files in a pool of their own, with the well-known types that they refer to.

    Args:
        files: in an order where none needs a later one.
    """

    def __init__(self, *files: ProtoFile) -> None:
        self._pool = descriptor_pool.DescriptorPool()
        known = {
            module.DESCRIPTOR.name: module for module in (any_pb2, empty_pb2, timestamp_pb2, wrappers_pb2)
        }  # their classes stay the default pool's; only their descriptions are taken over
        for name in dict.fromkeys(name for file in files for name in file.needs if name in known):
            self._pool.AddSerializedFile(known[name].DESCRIPTOR.serialized_pb)
        for file in files:
            self._pool.Add(parsed(file))
        self.files = tuple(file.name for file in files)

    def message(self, name: str) -> Any:
        """The class of a message, by its full name."""
        return message_factory.GetMessageClass(self._pool.FindMessageTypeByName(name))

    def service(self, name: str) -> Any:
        """The descriptor of a service, by its full name."""
        return self._pool.FindServiceByName(name)

    def file(self, name: str) -> Any:
        """The descriptor of a file, by its name; None when there is none."""
        try:
            return self._pool.FindFileByName(name)
        except KeyError:
            return None

    def file_of(self, symbol: str) -> Any:
        """The descriptor of the file that defines a symbol, a service's method too; None when none does."""
        for name in (symbol, symbol.rpartition(".")[0]):
            with contextlib.suppress(KeyError):
                return self._pool.FindFileContainingSymbol(name)
        return None


def parsed(file: ProtoFile) -> Any:
    """A file's descriptor.

    Raises:
        ValueError: its text is none that is understood.
    """
    found = descriptor_pb2.FileDescriptorProto(
        name=file.name, package=file.package, syntax="proto3", dependency=file.needs
    )
    words = _Words(file.text)
    while words.next:
        word = words.take()
        if word == "message":
            _message(found.message_type.add(), words, f".{file.package}" if file.package else "")
        elif word == "enum":
            _enum(found.enum_type.add(), words)
        else:
            words.must(word == "service")
            _service(found.service.add(), words)
    return found


class _Words:
    """The words of a text, one after the other."""

    def __init__(self, text: str) -> None:
        self._words: Sequence[str] = []
        place = 0
        found = []
        while place < len(text):
            match = _WORD.match(text, place)
            if match is None:
                raise ValueError(f"{text[place : place + 20]!r} is no word of a proto file")
            place = match.end()
            if match[1]:
                found.append(match[1])
        self._words = found
        self._place = 0

    @property
    def next(self) -> str:
        """The word that comes; empty at the end."""
        return self._words[self._place] if self._place < len(self._words) else ""

    def take(self, *wanted: str) -> str:
        """The next word, which is one of those that are wanted."""
        word = self.next
        self.must(bool(word) and (not wanted or word in wanted))
        self._place += 1
        return word

    def must(self, true: bool) -> None:
        if not true:
            raise ValueError(f"a proto file has {self.next!r} after {' '.join(self._words[: self._place][-6:])!r}")


def _message(message: Any, words: _Words, scope: str) -> None:
    message.name = words.take()
    words.take("{")
    inner = f"{scope}.{message.name}"
    while words.next != "}":
        if words.next == "message":
            words.take()
            _message(message.nested_type.add(), words, inner)
        elif words.next == "enum":
            words.take()
            _enum(message.enum_type.add(), words)
        elif words.next == "oneof":
            words.take()
            place = len(message.oneof_decl)
            message.oneof_decl.add(name=words.take())
            words.take("{")
            while words.next != "}":
                _field(message, words, inner).oneof_index = place
            words.take("}")
        else:
            _field(message, words, inner)
    words.take("}")


def _field(message: Any, words: _Words, scope: str) -> Any:
    repeated = words.next == "repeated"
    if repeated:
        words.take()
    kind = words.take()
    if kind == "map":
        return _map(message, words, scope)
    added = message.field.add(name=words.take(), label=_REPEATED if repeated else _OPTIONAL)
    _type(added, kind)
    _numbered(added, words)
    return added


def _map(message: Any, words: _Words, scope: str) -> Any:
    """A map is a repeated message of an entry (language guide, "Maps")."""
    words.take("<")
    key = words.take()
    words.take(",")
    value = words.take()
    words.take(">")
    name = words.take()
    entry = message.nested_type.add(name="".join(part.capitalize() for part in name.split("_")) + "Entry")
    entry.options.map_entry = True
    for number, (part, kind) in enumerate((("key", key), ("value", value)), 1):
        _type(entry.field.add(name=part, label=_OPTIONAL, number=number), kind)
    added = message.field.add(name=name, label=_REPEATED, type=11, type_name=f"{scope}.{entry.name}")
    _numbered(added, words)
    return added


def _type(field: Any, kind: str) -> None:
    """A field's type; the pool finds out whether a name is a message's or an enum's."""
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type_name = kind


def _numbered(field: Any, words: _Words) -> None:
    words.take("=")
    field.number = int(words.take())
    words.take(";")


def _enum(enum: Any, words: _Words) -> None:
    enum.name = words.take()
    words.take("{")
    while words.next != "}":
        value = enum.value.add(name=words.take())
        words.take("=")
        value.number = int(words.take())
        words.take(";")
    words.take("}")


def _service(service: Any, words: _Words) -> None:
    service.name = words.take()
    words.take("{")
    while words.next != "}":
        words.take("rpc")
        method = service.method.add(name=words.take())
        method.input_type, method.client_streaming = _side(words)
        words.take("returns")
        method.output_type, method.server_streaming = _side(words)
        words.take(";")
    words.take("}")


def _side(words: _Words) -> tuple[str, bool]:
    words.take("(")
    streams = words.next == "stream"
    if streams:
        words.take()
    name = words.take()
    words.take(")")
    return name, streams
