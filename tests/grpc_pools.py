"""Our descriptors beside other libraries' in one process, whoever comes first; prints what went wrong, or nothing.

Usage: ``python grpc_pools.py before|after``.
"""

from __future__ import annotations

import sys
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool


def others() -> Any:
    """Fill the default pool: Triton's client with ``inference.*``, and names of TensorFlow's, Feast's and KServe's."""
    import tritonclient.grpc as triton  # the order of imports is what is tried

    pool = descriptor_pool.Default()
    for package, name in (
        ("tensorflow", "TensorProto"),
        ("tensorflow.serving", "PredictRequest"),
        ("feast.types", "Value"),
        ("grpc.health.v1", "HealthCheckRequest"),
        ("org.pytorch.serve.grpc.inference", "PredictionsRequest"),
    ):
        file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
        message = file.message_type.add(name=name)
        message.field.add(name="something_else", number=1, label=1, type=9)
        pool.Add(file)
    return triton


def ours() -> None:
    from mainspring.protocols.feast import messages as feast
    from mainspring.protocols.grpc import health
    from mainspring.protocols.oip import messages as oip
    from mainspring.protocols.tfserving import messages as tensorflow
    from mainspring.protocols.torchserve import messages as torchserve

    for schema, service in (
        (oip.schema(), oip.INFERENCE),
        (oip.schema(), oip.REPOSITORY),
        (tensorflow.schema(), tensorflow.PREDICTION),
        (tensorflow.schema(), tensorflow.MODEL),
        (torchserve.schema(), torchserve.INFERENCE),
        (torchserve.schema(), torchserve.MANAGEMENT),
        (feast.schema(), feast.SERVING),
        (health.schema(), health.HEALTH),
    ):
        for method in schema.service(service).methods:
            message = schema.message(method.input_type.full_name)()
            assert message.SerializeToString() == b""
            assert method.input_type.file.pool is not descriptor_pool.Default()
    tensor = tensorflow.schema().message("tensorflow.TensorProto")(dtype=1, float_val=[1.0])
    assert tensor.SerializeToString() == b"\x08\x01\x2a\x04\x00\x00\x80\x3f"


def shapes() -> list[str]:
    """Fields of ours that Triton's published messages have not, or have otherwise."""
    from tritonclient.grpc import model_config_pb2, service_pb2

    from mainspring.protocols.oip.messages import schema

    theirs = {
        message.full_name: message
        for module in (service_pb2, model_config_pb2)
        for message in module.DESCRIPTOR.message_types_by_name.values()
    }
    ours_only = {("RepositoryModelLoadResponse", 1), ("RepositoryModelLoadResponse", 2)}
    ours_only |= {("RepositoryModelUnloadResponse", 1), ("RepositoryModelUnloadResponse", 2)}  # KServe's
    wrong: list[str] = []
    count = 0

    def compare(one: Any, other: Any) -> None:
        nonlocal count
        for field in one.fields:
            count += 1
            if (one.name, field.number) in ours_only:
                continue
            found = other.fields_by_number.get(field.number)
            told = None if found is None else (found.name, found.type, found.is_repeated)
            if told != (field.name, field.type, field.is_repeated):
                wrong.append(f"{one.full_name}.{field.name}: theirs is {told}")
        for nested in one.nested_types:
            compare(nested, other.nested_types_by_name[nested.name])

    for message in schema().file("grpc_service.proto").message_types_by_name.values():
        compare(message, theirs[message.full_name])
    assert count > 100, count
    methods = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    for method in schema().service("inference.GRPCInferenceService").methods:
        published = methods[method.name]
        sides = (method.input_type.full_name, method.output_type.full_name, method.client_streaming)
        if sides != (published.input_type.full_name, published.output_type.full_name, published.client_streaming):
            wrong.append(f"{method.name}: {sides}")
    return wrong


if __name__ == "__main__":
    if sys.argv[1] == "before":
        others()
        ours()
    else:
        ours()
        others()
        ours()
    print("\n".join(shapes()), end="")
