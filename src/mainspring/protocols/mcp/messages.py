"""JSON-RPC 2.0 as MCP uses it (revision 2025-11-25): one message at a time, no batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = [
    "INTERNAL",
    "INVALID_PARAMS",
    "INVALID_REQUEST",
    "METHOD_NOT_FOUND",
    "NOT_FOUND",
    "PARSE_ERROR",
    "VERSIONS",
    "Message",
    "RpcError",
    "answer",
    "failure",
    "read",
]

VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")
"""The revisions that are spoken; the first is offered to a client that knows none of them."""

PARSE_ERROR, INVALID_REQUEST, METHOD_NOT_FOUND = -32700, -32600, -32601
INVALID_PARAMS, INTERNAL, NOT_FOUND = -32602, -32603, -32002


class RpcError(Exception):
    """Ends a request with an error that the client sees.

    Args:
        code: of JSON-RPC, or of MCP.
        message: for the client: no internals.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Message(msgspec.Struct, frozen=True):
    """A request; without an id a notification; without a method an answer to something that we never ask.

    Attributes:
        jsonrpc: ``2.0``.
        method: what is asked.
        id: of the request, or None.
        params: by name.
    """

    jsonrpc: str
    method: str = ""
    id: int | str | None = None
    params: Mapping[str, Any] = {}


_DECODER = msgspec.json.Decoder(Message)


def read(data: bytes) -> Message:
    """A message from its JSON.

    Raises:
        RpcError: it is no JSON, or no message of JSON-RPC 2.0.
    """
    try:
        message = _DECODER.decode(data)
    except msgspec.ValidationError as error:
        raise RpcError(INVALID_REQUEST, f"no JSON-RPC message: {error}") from None
    except (msgspec.DecodeError, RecursionError):
        raise RpcError(PARSE_ERROR, "the message is no JSON") from None
    if message.jsonrpc != "2.0":
        raise RpcError(INVALID_REQUEST, 'jsonrpc is not "2.0"')
    return message


def answer(id: int | str | None, result: Mapping[str, object]) -> bytes:
    """The answer to a request."""
    return msgspec.json.encode({"jsonrpc": "2.0", "id": id, "result": result})


def failure(id: int | str | None, error: RpcError) -> bytes:
    """The answer to a request that failed."""
    return msgspec.json.encode({"jsonrpc": "2.0", "id": id, "error": {"code": error.code, "message": error.message}})
