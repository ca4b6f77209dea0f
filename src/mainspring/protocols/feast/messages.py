"""Feast's protobuf messages; numbers are those of Feast 0.67."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from mainspring.protocols.grpc.schema import ProtoFile, Schema

__all__ = ["SERVER", "SERVING", "messages", "schema"]

SERVING = "feast.serving.ServingService"
SERVER = "GrpcFeatureServer"

_TYPES = """
    enum Null { NULL = 0; }
    message BytesList { repeated bytes val = 1; }
    message StringList { repeated string val = 1; }
    message Int32List { repeated int32 val = 1; }
    message Int64List { repeated int64 val = 1; }
    message DoubleList { repeated double val = 1; }
    message FloatList { repeated float val = 1; }
    message BoolList { repeated bool val = 1; }
    message Value {
      oneof val {
        bytes bytes_val = 1;
        string string_val = 2;
        int32 int32_val = 3;
        int64 int64_val = 4;
        double double_val = 5;
        float float_val = 6;
        bool bool_val = 7;
        int64 unix_timestamp_val = 8;
        BytesList bytes_list_val = 11;
        StringList string_list_val = 12;
        Int32List int32_list_val = 13;
        Int64List int64_list_val = 14;
        DoubleList double_list_val = 15;
        FloatList float_list_val = 16;
        BoolList bool_list_val = 17;
        Int64List unix_timestamp_list_val = 18;
        Null null_val = 19;
      }
    }
    message RepeatedValue { repeated Value val = 1; }
"""
_SERVING = """
    enum FieldStatus { INVALID = 0; PRESENT = 1; NULL_VALUE = 2; NOT_FOUND = 3; OUTSIDE_MAX_AGE = 4; }
    message GetFeastServingInfoRequest {}
    message GetFeastServingInfoResponse { string version = 1; }
    message FeatureList { repeated string val = 1; }
    message GetOnlineFeaturesRequest {
      oneof kind { string feature_service = 1; FeatureList features = 2; }
      map<string, feast.types.RepeatedValue> entities = 3;
      bool full_feature_names = 4;
      map<string, feast.types.RepeatedValue> request_context = 5;
      bool include_feature_view_version_metadata = 6;
    }
    message FeatureVector {
      repeated feast.types.Value values = 1;
      repeated FieldStatus statuses = 2;
      repeated google.protobuf.Timestamp event_timestamps = 3;
    }
    message FeatureViewMetadata { string name = 1; uint32 version = 2; }
    message GetOnlineFeaturesResponseMetadata {
      FeatureList feature_names = 1;
      repeated FeatureViewMetadata feature_view_metadata = 2;
    }
    message GetOnlineFeaturesResponse {
      GetOnlineFeaturesResponseMetadata metadata = 1;
      repeated FeatureVector results = 2;
      bool status = 3;
    }
    service ServingService {
      rpc GetFeastServingInfo (GetFeastServingInfoRequest) returns (GetFeastServingInfoResponse);
      rpc GetOnlineFeatures (GetOnlineFeaturesRequest) returns (GetOnlineFeaturesResponse);
    }
"""
_SERVER = """
    message PushRequest {
      map<string, string> features = 1;
      string stream_feature_view = 2;
      bool allow_registry_cache = 3;
      string to = 4;
      map<string, feast.types.Value> typed_features = 5;
    }
    message PushResponse { bool status = 1; }
    message WriteToOnlineStoreRequest {
      map<string, string> features = 1;
      string feature_view_name = 2;
      bool allow_registry_cache = 3;
      map<string, feast.types.Value> typed_features = 4;
    }
    message WriteToOnlineStoreResponse { bool status = 1; }
    service GrpcFeatureServer {
      rpc Push (PushRequest) returns (PushResponse);
      rpc WriteToOnlineStore (WriteToOnlineStoreRequest) returns (WriteToOnlineStoreResponse);
      rpc GetOnlineFeatures (feast.serving.GetOnlineFeaturesRequest)
        returns (feast.serving.GetOnlineFeaturesResponse);
    }
"""
_NAMES = (
    "feast.types.Value", "feast.types.RepeatedValue", "feast.serving.GetFeastServingInfoRequest",
    "feast.serving.GetFeastServingInfoResponse", "feast.serving.FeatureList", "feast.serving.GetOnlineFeaturesRequest",
    "feast.serving.FeatureVector", "feast.serving.GetOnlineFeaturesResponse", "PushRequest", "PushResponse",
    "WriteToOnlineStoreRequest", "WriteToOnlineStoreResponse",
)  # fmt: skip


@functools.cache
def schema() -> Schema:
    """Both services with their messages."""
    types, serving = "feast/types/Value.proto", "feast/serving/ServingService.proto"
    return Schema(
        ProtoFile(types, "feast.types", _TYPES),
        ProtoFile(serving, "feast.serving", _SERVING, (types, "google/protobuf/timestamp.proto")),
        ProtoFile("feast/serving/GrpcServer.proto", "", _SERVER, (types, serving)),
    )


@functools.cache
def messages() -> Mapping[str, Any]:
    """The message classes by name."""
    return {name.rpartition(".")[2]: schema().message(name) for name in _NAMES}
