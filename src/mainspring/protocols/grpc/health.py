"""gRPC's health protocol (grpc/doc/health-checking.md): what load balancers and Kubernetes ask."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from mainspring.protocols.grpc.schema import ProtoFile, Schema
from mainspring.protocols.grpc.service import GrpcCall, GrpcService
from mainspring.protocols.http import Fault

__all__ = ["HEALTH", "health_service"]

HEALTH = "grpc.health.v1.Health"
_SERVING, _NOT_SERVING, _UNKNOWN = 1, 2, 3
_LOOK_S = 0.5
"""How often a watched service is looked at."""


@functools.cache
def schema() -> Schema:
    return Schema(
        ProtoFile(
            "grpc/health/v1/health.proto",
            "grpc.health.v1",
            """
            message HealthCheckRequest { string service = 1; }
            message HealthCheckResponse {
              enum ServingStatus { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; SERVICE_UNKNOWN = 3; }
              ServingStatus status = 1;
            }
            service Health {
              rpc Check (HealthCheckRequest) returns (HealthCheckResponse);
              rpc Watch (HealthCheckRequest) returns (stream HealthCheckResponse);
            }
            """,
        )
    )


def health_service(ready: Callable[[], bool], services: Callable[[], Sequence[str]]) -> GrpcService:
    """Health of the server, and of each service by its name, which is the same.

    Args:
        ready: whether every required model is warm, and nobody has asked the server to stop.
        services: the names that are served.
    """
    answer = schema().message("grpc.health.v1.HealthCheckResponse")

    def status(name: str) -> int:
        if name and name not in services():
            return _UNKNOWN
        return _SERVING if ready() else _NOT_SERVING

    async def check(asked: Any, call: GrpcCall) -> Any:
        found = status(asked.service)
        if found == _UNKNOWN:
            raise Fault(404, f"no service is called {asked.service[:80]!r}")
        return answer(status=found)

    async def watch(asked: Any, call: GrpcCall) -> AsyncIterator[Any]:
        """The status, and each change of it; the last one says that the server stops."""
        told = None
        while not call.stopping.is_set():
            found = status(asked.service)
            if found != told:
                told = found
                yield answer(status=found)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(call.stopping.wait(), _LOOK_S)
        if told == _SERVING:
            yield answer(status=_NOT_SERVING)

    return GrpcService(HEALTH, schema(), {"Check": check, "Watch": watch})
