"""Feast's protobuf messages, described here and kept in a pool of their own.

A pool of their own lets a process hold Feast's client and this server: both register ``feast/types/Value.proto``, and
protobuf's default pool takes a name once. Numbers are those of Feast 0.67.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mainspring.lazy import lazy

if TYPE_CHECKING:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
else:
    descriptor_pb2 = lazy("google.protobuf.descriptor_pb2")
    descriptor_pool = lazy("google.protobuf.descriptor_pool")
    message_factory = lazy("google.protobuf.message_factory")
    timestamp_pb2 = lazy("google.protobuf.timestamp_pb2")

__all__ = ["messages"]

_SCALARS = {"bytes": 12, "string": 9, "int32": 5, "int64": 3, "double": 1, "float": 2, "bool": 8, "uint32": 13}
_MESSAGE, _ENUM = 11, 14

_LISTS = {
    "BytesList": "bytes",
    "StringList": "string",
    "Int32List": "int32",
    "Int64List": "int64",
    "DoubleList": "double",
    "FloatList": "float",
    "BoolList": "bool",
}
_VALUE = {
    "bytes_val": ("bytes", 1),
    "string_val": ("string", 2),
    "int32_val": ("int32", 3),
    "int64_val": ("int64", 4),
    "double_val": ("double", 5),
    "float_val": ("float", 6),
    "bool_val": ("bool", 7),
    "unix_timestamp_val": ("int64", 8),
    "bytes_list_val": (".feast.types.BytesList", 11),
    "string_list_val": (".feast.types.StringList", 12),
    "int32_list_val": (".feast.types.Int32List", 13),
    "int64_list_val": (".feast.types.Int64List", 14),
    "double_list_val": (".feast.types.DoubleList", 15),
    "float_list_val": (".feast.types.FloatList", 16),
    "bool_list_val": (".feast.types.BoolList", 17),
    "unix_timestamp_list_val": (".feast.types.Int64List", 18),
    "null_val": ("enum .feast.types.Null", 19),
}

_SERVING: Mapping[str, Mapping[str, tuple[str, int]]] = {
    "GetFeastServingInfoRequest": {},
    "GetFeastServingInfoResponse": {"version": ("string", 1)},
    "FeatureList": {"val": ("repeated string", 1)},
    "GetOnlineFeaturesRequest": {
        "feature_service": ("string oneof", 1),
        "features": (".feast.serving.FeatureList oneof", 2),
        "entities": ("map .feast.types.RepeatedValue", 3),
        "full_feature_names": ("bool", 4),
        "request_context": ("map .feast.types.RepeatedValue", 5),
        "include_feature_view_version_metadata": ("bool", 6),
    },
    "FeatureVector": {
        "values": ("repeated .feast.types.Value", 1),
        "statuses": ("repeated enum .feast.serving.FieldStatus", 2),
        "event_timestamps": ("repeated .google.protobuf.Timestamp", 3),
    },
    "FeatureViewMetadata": {"name": ("string", 1), "version": ("uint32", 2)},
    "GetOnlineFeaturesResponseMetadata": {
        "feature_names": (".feast.serving.FeatureList", 1),
        "feature_view_metadata": ("repeated .feast.serving.FeatureViewMetadata", 2),
    },
    "GetOnlineFeaturesResponse": {
        "metadata": (".feast.serving.GetOnlineFeaturesResponseMetadata", 1),
        "results": ("repeated .feast.serving.FeatureVector", 2),
        "status": ("bool", 3),
    },
}
_SERVER: Mapping[str, Mapping[str, tuple[str, int]]] = {
    "PushRequest": {
        "features": ("map string", 1),
        "stream_feature_view": ("string", 2),
        "allow_registry_cache": ("bool", 3),
        "to": ("string", 4),
        "typed_features": ("map .feast.types.Value", 5),
    },
    "PushResponse": {"status": ("bool", 1)},
    "WriteToOnlineStoreRequest": {
        "features": ("map string", 1),
        "feature_view_name": ("string", 2),
        "allow_registry_cache": ("bool", 3),
        "typed_features": ("map .feast.types.Value", 4),
    },
    "WriteToOnlineStoreResponse": {"status": ("bool", 1)},
}


@functools.cache
def messages() -> Mapping[str, Any]:
    """The message classes by name."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    types = _file("feast/types/Value.proto", "feast.types", ())
    null = types.enum_type.add(name="Null")
    null.value.add(name="NULL", number=0)
    for name, kind in _LISTS.items():
        _add(types, name, {"val": (f"repeated {kind}", 1)})
    _add(types, "Value", {name: (f"{kind} oneof", number) for name, (kind, number) in _VALUE.items()}, oneof="val")
    _add(types, "RepeatedValue", {"val": ("repeated .feast.types.Value", 1)})
    serving = _file("feast/serving/ServingService.proto", "feast.serving", (types.name, timestamp_pb2.DESCRIPTOR.name))
    status = serving.enum_type.add(name="FieldStatus")
    for number, name in enumerate(("INVALID", "PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE")):
        status.value.add(name=name, number=number)
    for name, fields in _SERVING.items():
        _add(serving, name, fields, oneof="kind")
    server = _file("feast/serving/GrpcServer.proto", "", (types.name,))
    for name, fields in _SERVER.items():
        _add(server, name, fields)
    for file in (types, serving, server):
        pool.Add(file)
    names = {f"feast.types.{name}" for name in ("Value", "RepeatedValue")}
    names |= {f"feast.serving.{name}" for name in _SERVING} | set(_SERVER)
    return {
        name.rpartition(".")[2]: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names
    }


def _file(name: str, package: str, needs: tuple[str, ...]) -> Any:
    return descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3", dependency=needs)


def _add(file: Any, name: str, fields: Mapping[str, tuple[str, int]], oneof: str = "") -> None:
    message = file.message_type.add(name=name)
    if oneof and any(kind.endswith(" oneof") for kind, _ in fields.values()):
        message.oneof_decl.add(name=oneof)
    for field, (kind, number) in fields.items():
        if kind.startswith("map "):
            _add_map(file, message, field, number, kind.removeprefix("map "))
            continue
        added = _field(message, field, number, kind.removesuffix(" oneof"))
        if kind.endswith(" oneof"):
            added.oneof_index = 0


def _add_map(file: Any, message: Any, field: str, number: int, kind: str) -> None:
    entry = message.nested_type.add(name="".join(part.capitalize() for part in field.split("_")) + "Entry")
    entry.options.map_entry = True
    _field(entry, "key", 1, "string")
    _field(entry, "value", 2, kind)
    path = ".".join(part for part in (file.package, message.name, entry.name) if part)
    _field(message, field, number, f"repeated .{path}")


def _field(message: Any, name: str, number: int, kind: str) -> Any:
    added = message.field.add(name=name, number=number, label=3 if kind.startswith("repeated ") else 1)
    kind = kind.removeprefix("repeated ")
    if kind.startswith("enum "):
        added.type, added.type_name = _ENUM, kind.removeprefix("enum ")
    elif kind in _SCALARS:
        added.type = _SCALARS[kind]
    else:
        added.type, added.type_name = _MESSAGE, kind
    return added
