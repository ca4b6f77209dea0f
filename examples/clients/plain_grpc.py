"""A score by grpcio alone, that asks the server for its messages: ``python plain_grpc.py ADDRESS MODEL VALUE...``."""

import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

SERVICE = "tensorflow.serving.PredictionService"
address, model, *values = sys.argv[1:]
with grpc.insecure_channel(address) as channel:
    pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    method = pool.FindServiceByName(SERVICE).FindMethodByName("Predict")
    request, response = GetMessageClass(method.input_type)(), GetMessageClass(method.output_type)
    request.model_spec.name = model
    tensor = request.inputs["input"]
    tensor.dtype = 1  # DT_FLOAT
    for size in (1, len(values)):
        tensor.tensor_shape.dim.add(size=size)
    tensor.float_val.extend(map(float, values))
    predict = channel.unary_unary(
        f"/{SERVICE}/Predict", lambda message: message.SerializeToString(), response.FromString
    )
    print(predict(request, timeout=10).outputs["score"].double_val[0])
