"""A score by Triton's client (``tritonclient[grpc]``): ``python triton_grpc.py ADDRESS MODEL VALUE...``."""

import sys

import numpy as np
from tritonclient.grpc import InferenceServerClient, InferInput

address, model, *values = sys.argv[1:]
client = InferenceServerClient(address)
row = np.array([values], dtype="float32")
tensor = InferInput("input", list(row.shape), "FP32")
tensor.set_data_from_numpy(row)
answer = client.infer(model, [tensor], client_timeout=10)
print(answer.as_numpy("score")[0])
