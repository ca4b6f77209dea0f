"""TorchServe's messages."""

from __future__ import annotations

import functools

from mainspring.protocols.grpc.schema import ProtoFile, Schema

__all__ = ["INFERENCE", "MANAGEMENT", "schema"]

INFERENCE = "org.pytorch.serve.grpc.inference.InferenceAPIsService"
MANAGEMENT = "org.pytorch.serve.grpc.management.ManagementAPIsService"

_STATUS = "message Status { int32 code = 1; string message = 2; repeated google.protobuf.Any details = 3; }"
_INFERENCE = """
    message PredictionsRequest {
      string model_name = 1;
      string model_version = 2;
      map<string, bytes> input = 3;
      string sequence_id = 4;
    }
    message PredictionResponse { bytes prediction = 1; string sequence_id = 2; google.rpc.Status status = 3; }
    message TorchServeHealthResponse { string health = 1; }
    service InferenceAPIsService {
      rpc Ping (google.protobuf.Empty) returns (TorchServeHealthResponse);
      rpc Predictions (PredictionsRequest) returns (PredictionResponse);
      rpc StreamPredictions (PredictionsRequest) returns (stream PredictionResponse);
      rpc StreamPredictions2 (stream PredictionsRequest) returns (stream PredictionResponse);
    }
"""
_MANAGEMENT = """
    message ManagementResponse { string msg = 1; }
    message DescribeModelRequest { string model_name = 1; string model_version = 2; bool customized = 3; }
    message ListModelsRequest { int32 limit = 1; int32 next_page_token = 2; }
    message RegisterModelRequest {
      int32 batch_size = 1;
      string handler = 2;
      int32 initial_workers = 3;
      int32 max_batch_delay = 4;
      string model_name = 5;
      int32 response_timeout = 6;
      string runtime = 7;
      bool synchronous = 8;
      string url = 9;
      bool s3_sse_kms = 10;
      int32 startup_timeout = 11;
    }
    message ScaleWorkerRequest {
      string model_name = 1;
      string model_version = 2;
      int32 max_worker = 3;
      int32 min_worker = 4;
      int32 number_gpu = 5;
      bool synchronous = 6;
      int32 timeout = 7;
    }
    message SetDefaultRequest { string model_name = 1; string model_version = 2; }
    message UnregisterModelRequest { string model_name = 1; string model_version = 2; }
    service ManagementAPIsService {
      rpc DescribeModel (DescribeModelRequest) returns (ManagementResponse);
      rpc ListModels (ListModelsRequest) returns (ManagementResponse);
      rpc RegisterModel (RegisterModelRequest) returns (ManagementResponse);
      rpc ScaleWorker (ScaleWorkerRequest) returns (ManagementResponse);
      rpc SetDefault (SetDefaultRequest) returns (ManagementResponse);
      rpc UnregisterModel (UnregisterModelRequest) returns (ManagementResponse);
    }
"""


@functools.cache
def schema() -> Schema:
    """Both services with their messages."""
    status, known = "google/rpc/status.proto", ("google/protobuf/any.proto", "google/protobuf/empty.proto")
    package = "org.pytorch.serve.grpc"
    return Schema(
        ProtoFile(status, "google.rpc", _STATUS, known[:1]),
        ProtoFile("inference.proto", f"{package}.inference", _INFERENCE, (status, known[1])),
        ProtoFile("management.proto", f"{package}.management", _MANAGEMENT),
    )
