"""Reads what a collector of OpenTelemetry is sent, by the messages of its own library."""

from __future__ import annotations

import base64
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["exported"]


def exported(content_type: str | None, body: bytes) -> dict[str, Any]:
    """An export as OTLP's JSON: ids in hexadecimal, kinds by number; nothing in it that the library does not know."""
    assert content_type == "application/x-protobuf"
    message = ExportTraceServiceRequest.FromString(body)
    assert message.SerializeToString(deterministic=True) == body, "fields in order, none unknown, none at its default"
    found: dict[str, Any] = MessageToDict(message, use_integers_for_enums=True)
    for resource in found["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for name in {"traceId", "spanId", "parentSpanId"} & span.keys():
                    span[name] = base64.b64decode(span[name]).hex()
    return found
