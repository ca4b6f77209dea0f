"""Calls of a gRPC server with the messages that the server describes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import grpc

from e2e.conftest import Served
from mainspring.protocols.grpc.schema import Schema

__all__ = ["address", "ask", "called", "failed", "stub"]


def address(served: Served) -> str:
    """Where a server has said that its gRPC is."""
    deadline = time.monotonic() + 60
    while (told := re.search(r"^grpc +(\S+:\d+)$", served.log.read_text(), re.MULTILINE)) is None:
        assert time.monotonic() < deadline, served.log.read_text()
        time.sleep(0.05)
    return told[1]


def stub(channel: grpc.Channel, schema: Schema, service: str, method: str) -> tuple[Any, Any]:
    """A method to call, and the class of what it is asked with."""
    described = schema.service(service).methods_by_name[method]
    asked, answered = (schema.message(side.full_name) for side in (described.input_type, described.output_type))
    kinds = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, True): channel.stream_stream,
    }
    kind: Any = kinds[described.client_streaming, described.server_streaming]
    return kind(f"/{service}/{method}", asked.SerializeToString, answered.FromString), asked


def called(channel: grpc.Channel, schema: Schema, service: str) -> Callable[..., Any]:
    """Asks methods of a service of one answer: ``ask("ModelReady", name="late")``."""

    def ask(method: str, metadata: tuple[tuple[str, str], ...] = (), timeout: float = 60, **fields: Any) -> Any:
        call, message = stub(channel, schema, service, method)
        return call(message(**fields), timeout=timeout, metadata=metadata)

    return ask


def ask(channel: grpc.Channel, schema: Schema, service: str, method: str, **fields: Any) -> Any:
    """One call."""
    return called(channel, schema, service)(method, **fields)


def failed(call: Callable[[], Any]) -> tuple[str, str]:
    """The code and the text of a call that fails."""
    try:
        call()
    except grpc.RpcError as error:
        found: Any = error
        return found.code().name, found.details()
    raise AssertionError("it was answered")
