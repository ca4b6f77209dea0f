"""A request that came by ASGI's messages from another host, as the listener sees those of its own connections."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from mainspring.protocols.http import Response

__all__ = ["Messages", "Receive", "Send"]

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Messages:
    """One request and its answer, all of it in messages.

    Args:
        scope: of ASGI.
        receive: of ASGI.
        send: of ASGI.

    Attributes:
        method: upper case.
        raw_path: as it was sent.
        path: decoded.
        query: the raw query string.
        headers: names in lower case.
        client: the peer's address, for logs.
        taken: whether somebody answers it.
        patient: whether it is answered although the client has closed its side.
    """

    __slots__ = (
        "client", "headers", "method", "path", "patient", "query", "raw_path", "receive", "scope", "send", "taken",
    )  # fmt: skip

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.raw_path: bytes = scope["raw_path"]
        self.query: bytes = scope["query_string"]
        self.headers: Sequence[tuple[bytes, bytes]] = list(scope["headers"])
        client = scope.get("client")
        self.client: str = client[0] if client else ""
        self.taken = self.patient = False

    def whole_body(self) -> bytes | None:
        """None: it comes in messages."""
        return None

    def part(self, data: bytes) -> bool:
        """False: it goes in messages."""
        return False

    def answer(self, response: Response, *, close: bool = False) -> bool:
        """False: it goes in messages."""
        return False
