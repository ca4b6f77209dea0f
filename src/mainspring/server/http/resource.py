"""Where clients of MCP get a token: this server as a protected resource (RFC 9728), told where a token is missing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mainspring.config.settings import Settings
from mainspring.errors import ConfigError
from mainspring.protocols.http import Fault, Request, Response, Router, json_response
from mainspring.protocols.mcp.scopes import Scopes
from mainspring.server.http.issuer import is_safe_url
from mainspring.server.http.listening import origin_of_setting

__all__ = ["METADATA_PATHS", "ProtectedResource", "resource_of"]

_MCP = "/mcp"
_WELL_KNOWN = "/.well-known/oauth-protected-resource"
METADATA_PATHS = (_WELL_KNOWN + _MCP, _WELL_KNOWN)
"""Where the description is; a client without a token reads it."""
_UNKNOWN = 401
_SCOPE = re.compile(r"[!#-\[\]-~]+")
"""A scope, as RFC 6749 writes it."""


class ProtectedResource:
    """``/mcp`` as what tokens of an issuer open.

    Args:
        issuers: who makes the tokens.
        address: of this server as clients see it, without a slash at its end; empty is as each request names it.
        scheme: of requests, where `address` is empty.
        scopes: what tokens must allow.
    """

    def __init__(self, issuers: Sequence[str], address: str, scheme: str, scopes: Scopes = Scopes()) -> None:  # noqa: B008
        self.scopes = scopes
        self._issuers = list(issuers)
        self._address = address
        self._scheme = scheme

    def add_routes(self, router: Router) -> None:
        """Serve the description, also to who has no token yet."""
        for path in METADATA_PATHS:
            router.add("GET", path, self.described)

    async def described(self, request: Request) -> Response:
        """The description: which resource this is, and whose tokens it takes."""
        found: dict[str, object] = {
            "resource": self._base(request) + _MCP,
            "authorization_servers": self._issuers,
            "bearer_methods_supported": ["header"],
        }
        if self.scopes.known:
            found["scopes_supported"] = list(self.scopes.known)
        return json_response(found, headers=((b"cache-control", b"no-store"),))

    def guarding(self, let_in: Callable[[Request], None]) -> Callable[[Request], None]:
        """The guard, whose refusals at ``/mcp`` say where the description is."""

        def guarded(request: Request) -> None:
            try:
                let_in(request)
            except Fault as fault:
                if fault.status == _UNKNOWN and request.path == _MCP:
                    pointer = f'resource_metadata="{self.pointer(request)}"'
                    if self.scopes.known:
                        pointer += f', scope="{" ".join(self.scopes.known)}"'
                    fault.challenge += f", {pointer}" if "=" in fault.challenge else f" {pointer}"
                raise

        return guarded

    def pointer(self, request: Request) -> str:
        """Where the description is, as the client of a request sees it."""
        return self._base(request) + METADATA_PATHS[0]

    def _base(self, request: Request) -> str:
        if self._address:
            return self._address
        host = request.headers.get(b"host", b"").decode("latin-1")
        if not host or not all(one.isalnum() or one in "-.:[]_" for one in host):
            raise Fault(400, "the request does not say to which host it goes")
        return f"{self._scheme}://{host}"


def resource_of(settings: Settings) -> ProtectedResource | None:
    """What ``/mcp`` is to the issuer of ``server.oidc``; None where there is none.

    Raises:
        ConfigError: MS-3171, ``server.oidc.resource`` is no address of https; MS-3183, a scope is none, or there is no
            issuer whose tokens could have it.
    """
    issuer, address = settings.text("server.oidc.issuer"), settings.text("server.oidc.resource") or ""
    scopes = Scopes(*(_scope(settings, name) for name in ("server.oidc.search_scope", "server.oidc.ask_scope")))
    if not issuer:
        return None
    if address and (not is_safe_url(address) or "?" in address):
        raise ConfigError(
            f"{address!r} is no address of this server",
            code="MS-3171",
            why="clients send their tokens there: it must be https, or http on this machine",
            origin=origin_of_setting(settings, "server.oidc.resource"),
            fix='server.oidc.resource = "https://ml.example.org"',
        )
    scheme = "https" if settings.text("server.certificate") else "http"
    return ProtectedResource([issuer], address.rstrip("/"), scheme, scopes)


def _scope(settings: Settings, name: str) -> str:
    scope = settings.text(name) or ""
    if scope and not (_SCOPE.fullmatch(scope) and settings.text("server.oidc.issuer")):
        raise ConfigError(
            f"{scope!r} is no scope that a token could have",
            code="MS-3183",
            why="a scope is one word of ASCII without quotes, and it is an issuer that gives it to tokens",
            origin=origin_of_setting(settings, name),
            fix='set server.oidc.issuer, and server.oidc.search_scope = "documents.search"',
        )
    return scope
