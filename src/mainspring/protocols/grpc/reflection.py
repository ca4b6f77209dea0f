"""gRPC's reflection protocol, v1 and v1alpha (grpc/doc/server-reflection.md): clients ask for the descriptors."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

from mainspring.lazy import lazy
from mainspring.protocols.grpc.schema import ProtoFile, Schema
from mainspring.protocols.grpc.service import GrpcCall, GrpcService

if TYPE_CHECKING:
    from google.protobuf import descriptor_pb2
else:
    descriptor_pb2 = lazy("google.protobuf.descriptor_pb2")

__all__ = ["reflection_services"]

_VERSIONS = ("v1", "v1alpha")
_NOT_FOUND = 5
_TEXT = """
    message ServerReflectionRequest {
      string host = 1;
      oneof message_request {
        string file_by_filename = 3;
        string file_containing_symbol = 4;
        ExtensionRequest file_containing_extension = 5;
        string all_extension_numbers_of_type = 6;
        string list_services = 7;
      }
    }
    message ExtensionRequest { string containing_type = 1; int32 extension_number = 2; }
    message ServerReflectionResponse {
      string valid_host = 1;
      ServerReflectionRequest original_request = 2;
      oneof message_response {
        FileDescriptorResponse file_descriptor_response = 4;
        ExtensionNumberResponse all_extension_numbers_response = 5;
        ListServiceResponse list_services_response = 6;
        ErrorResponse error_response = 7;
      }
    }
    message FileDescriptorResponse { repeated bytes file_descriptor_proto = 1; }
    message ExtensionNumberResponse { string base_type_name = 1; repeated int32 extension_number = 2; }
    message ListServiceResponse { repeated ServiceResponse service = 1; }
    message ServiceResponse { string name = 1; }
    message ErrorResponse { int32 error_code = 1; string error_message = 2; }
    service ServerReflection {
      rpc ServerReflectionInfo (stream ServerReflectionRequest) returns (stream ServerReflectionResponse);
    }
"""


@functools.cache
def _schema(version: str) -> Schema:
    return Schema(ProtoFile(f"grpc/reflection/{version}/reflection.proto", f"grpc.reflection.{version}", _TEXT))


def reflection_services(served: Callable[[], Sequence[GrpcService]]) -> tuple[GrpcService, ...]:
    """The services that describe all others and themselves.

    Args:
        served: every service of the listener.
    """
    return tuple(_service(version, served) for version in _VERSIONS)


def _service(version: str, served: Callable[[], Sequence[GrpcService]]) -> GrpcService:
    schema = _schema(version)
    answer = schema.message(f"grpc.reflection.{version}.ServerReflectionResponse")

    async def info(asked: AsyncIterator[Any], call: GrpcCall) -> AsyncIterator[Any]:
        async for message in asked:
            found = answer(valid_host=message.host, original_request=message)
            _fill(found, message, served())
            yield found

    return GrpcService(f"grpc.reflection.{version}.ServerReflection", schema, {"ServerReflectionInfo": info})


def _fill(found: Any, message: Any, served: Sequence[GrpcService]) -> None:
    kind = message.WhichOneof("message_request")
    file, schemas = None, dict.fromkeys(service.schema for service in served)
    if kind == "list_services":
        for name in sorted(service.name for service in served):
            found.list_services_response.service.add(name=name)
        return
    if kind == "file_by_filename":
        file = next(filter(None, (schema.file(message.file_by_filename) for schema in schemas)), None)
    elif kind == "file_containing_symbol":
        file = next(filter(None, (schema.file_of(message.file_containing_symbol) for schema in schemas)), None)
    elif kind == "all_extension_numbers_of_type":
        name = message.all_extension_numbers_of_type
        if any(schema.file_of(name) for schema in schemas):  # proto3 has none
            found.all_extension_numbers_response.base_type_name = name
            return
    if file is None:
        found.error_response.error_code = _NOT_FOUND
        found.error_response.error_message = "nothing of that name is served"
        return
    found.file_descriptor_response.file_descriptor_proto.extend(_with_needs(file))


def _with_needs(file: Any) -> list[bytes]:
    """A file and all that it refers to, as bytes."""
    found: dict[str, bytes] = {}
    waiting = [file]
    while waiting:
        one = waiting.pop()
        if one.name not in found:
            described = descriptor_pb2.FileDescriptorProto()
            one.CopyToProto(described)
            found[one.name] = described.SerializeToString()
            waiting += one.dependencies
    return list(found.values())
