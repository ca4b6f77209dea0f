"""What is answered to each message, whichever way it came."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mainspring.declare.identity import Identity
from mainspring.protocols.mcp.messages import (
    INTERNAL,
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    VERSIONS,
    Message,
    RpcError,
    answer,
    failure,
    read,
)
from mainspring.protocols.mcp.tools import Offer

__all__ = ["McpServer"]


class McpServer:
    """A server without sessions: each message is answered by itself, with its sender's rights.

    Args:
        offer: what is served.
        name: what the server calls itself.
        version: its version.
        on_error: told of unexpected exceptions.
    """

    def __init__(
        self, offer: Offer, name: str, version: str, on_error: Callable[[Exception], None] = lambda error: None
    ) -> None:
        self._offer = offer
        self._name = name
        self._version = version
        self._on_error = on_error

    async def handle(self, data: bytes, caller: Identity) -> bytes | None:
        """The answer to a message, as JSON; None when it needs none."""
        try:
            message = read(data)
        except RpcError as error:
            return failure(None, error)
        return await self.answered(message, caller)

    async def answered(self, message: Message, caller: Identity) -> bytes | None:
        """The answer to a message that has been read; None for notifications and answers."""
        if message.id is None or not message.method:
            return None
        try:
            return answer(message.id, await self._result(message.method, message.params, caller))
        except RpcError as error:
            return failure(message.id, error)
        except Exception as error:
            self._on_error(error)
            return failure(message.id, RpcError(INTERNAL, "something in the server went wrong"))

    async def _result(self, method: str, params: Mapping[str, Any], caller: Identity) -> Mapping[str, object]:
        if method == "tools/call":
            arguments = params.get("arguments") or {}
            if not isinstance(arguments, dict):
                raise RpcError(INVALID_PARAMS, "arguments are no object")
            return await self._offer.call(_text(params, "name"), arguments, caller)
        if method == "resources/read":
            return await self._offer.read(_text(params, "uri"), caller)
        simple: Mapping[str, Callable[[], Mapping[str, object]]] = {
            "initialize": lambda: self._initialised(params),
            "ping": dict,
            "tools/list": lambda: {"tools": self._offer.tools()},
            "resources/list": lambda: {"resources": []},
            "resources/templates/list": lambda: {"resourceTemplates": self._offer.templates()},
        }
        if method not in simple:
            raise RpcError(METHOD_NOT_FOUND, f"there is no method {method!r}")
        return simple[method]()

    def _initialised(self, params: Mapping[str, Any]) -> Mapping[str, object]:
        asked = params.get("protocolVersion")
        return {
            "protocolVersion": asked if asked in VERSIONS else VERSIONS[0],
            "capabilities": {"tools": {"listChanged": False}, "resources": {"listChanged": False}},
            "serverInfo": {"name": self._name, "version": self._version},
        }


def _text(params: Mapping[str, Any], name: str) -> str:
    found = params.get(name)
    if not isinstance(found, str):
        raise RpcError(INVALID_PARAMS, f"{name} is missing")
    return found
