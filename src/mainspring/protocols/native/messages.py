"""The messages of Mainspring's own gRPC services."""

from __future__ import annotations

import functools

from mainspring.protocols.grpc.schema import ProtoFile, Schema

__all__ = ["FEATURES", "PROTO", "SOURCES", "schema"]

FEATURES = "mainspring.v1.Features"
SOURCES = "mainspring.v1.Sources"

PROTO = """
    message Strings { repeated string values = 1; }
    message Ints { repeated int64 values = 1; }
    message Doubles { repeated double values = 1; }
    message Bools { repeated bool values = 1; }
    message Blobs { repeated bytes values = 1; }
    message Lists { repeated Column values = 1; }
    message Column {
      oneof kind {
        Strings strings = 1;
        Ints ints = 2;
        Doubles doubles = 3;
        Bools bools = 4;
        Blobs blobs = 5;
        Lists lists = 6;
      }
      repeated uint32 missing = 7;
    }
    message ReadRequest {
      string feature_service = 1;
      map<string, Column> entities = 2;
      map<string, Column> request = 3;
      int64 now_us = 4;
    }
    message ViewState { string view = 1; bytes status = 2; Column event_us = 3; }
    message ReadResponse { repeated string names = 1; repeated Column columns = 2; repeated ViewState views = 3; }
    service Features { rpc Read (ReadRequest) returns (ReadResponse); }

    message PushRequest { string source = 1; bytes rows = 2; string idempotency_key = 3; }
    message PushResponse { int64 accepted = 1; int64 quarantined = 2; }
    service Sources { rpc Push (PushRequest) returns (PushResponse); }
"""


@functools.cache
def schema() -> Schema:
    """The messages and services, in a pool of their own."""
    return Schema(ProtoFile("mainspring/v1/features.proto", "mainspring.v1", PROTO))
