"""Streamable HTTP: ``POST /mcp``, one message a request, its answer as JSON; no sessions, and nothing sent unasked."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from mainspring.declare.identity import Identity
from mainspring.protocols.http import Fault, Long, Request, Response, Router
from mainspring.protocols.mcp.messages import VERSIONS, RpcError, failure, read
from mainspring.protocols.mcp.scopes import Scopes
from mainspring.protocols.mcp.server import McpServer

__all__ = ["add_mcp_routes"]


def add_mcp_routes(
    router: Router,
    server: McpServer,
    who: Callable[[Request], Identity],
    origins: frozenset[str] = frozenset(),
    *,
    scopes: Scopes = Scopes(),  # noqa: B008 - frozen
    pointer: Callable[[Request], str] = lambda request: "",
) -> None:
    """Serve MCP on a router.

    Args:
        router: where the route goes.
        server: what answers.
        who: who asks; raises `Fault` where a caller must say who it is.
        origins: of web pages that may ask beside those that this server itself has sent: ``https://app.example``.
        scopes: what tokens must allow.
        pointer: where a client reads how to get another token, told to one whose token allows too little.
    """
    routes = _Routes(server, who, origins, scopes, pointer)
    router.add("POST", "/mcp", routes.mcp, long=Long())


class _Routes:
    def __init__(
        self,
        server: McpServer,
        who: Callable[[Request], Identity],
        origins: frozenset[str],
        scopes: Scopes,
        pointer: Callable[[Request], str],
    ) -> None:
        self._scopes = scopes
        self._pointer = pointer
        self._server = server
        self._who = who
        self._origins = origins

    async def mcp(self, request: Request) -> Response:
        self._check_origin(request)
        version = request.headers.get(b"mcp-protocol-version")
        if version is not None and version.decode("latin-1") not in VERSIONS:
            raise Fault(400, f"MCP-Protocol-Version is none of {', '.join(VERSIONS)}")
        caller = self._who(request)
        try:
            message = read(request.body)
        except RpcError as error:
            return Response(200, failure(None, error))
        self._scopes.check(message, caller, self._pointer(request))
        answer = await self._server.answered(message, caller)
        return Response(202) if answer is None else Response(200, answer)

    def _check_origin(self, request: Request) -> None:
        """A page of another site must not reach a server on the reader's own machine (DNS rebinding)."""
        origin = request.headers.get(b"origin", b"").decode("latin-1")
        host = request.headers.get(b"host", b"").decode("latin-1")
        if origin and origin not in self._origins and urlsplit(origin).netloc != host:
            raise Fault(403, "this page may not use the server")
