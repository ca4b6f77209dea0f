"""Which pages of other sites may ask from a browser (the fetch standard's CORS protocol); none by default."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from mainspring.config.settings import Settings
from mainspring.errors import ConfigError
from mainspring.protocols.http import Response
from mainspring.server.http.listening import origin_of_setting

__all__ = ["Cors", "cors_of"]

_ORIGIN = re.compile(r"https?://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_NAMES = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:[ \t]*,[ \t]*[!#$%&'*+.^_`|~0-9A-Za-z-]+)*")
_LONGEST_NAMES = 4096
_SHOWN = b"retry-after, inference-header-content-length, x-request-id, x-mainspring-prediction-ids"
_VARY = (b"vary", b"origin")


class Cors(msgspec.Struct, frozen=True):
    """Lets pages of named origins ask.

    Attributes:
        origins: theirs, to the letter.
        credentials: whether a browser may send cookies and certificates with their requests.
        max_age: seconds for which a browser may remember the answer.
    """

    origins: frozenset[bytes]
    credentials: bool = False
    max_age: int = 600

    def preflight(self, method: str, headers: Mapping[bytes, bytes]) -> Response | None:
        """The answer to a browser that asks whether a page may ask; None for every other request.

        It needs no key: a browser sends none with it.
        """
        if method != "OPTIONS" or b"access-control-request-method" not in headers or b"origin" not in headers:
            return None
        varying = (b"vary", b"origin, access-control-request-method, access-control-request-headers")
        if headers[b"origin"] not in self.origins:
            return Response(403, headers=(varying,))
        more = [varying, (b"access-control-allow-methods", _METHODS)]
        names = headers.get(b"access-control-request-headers", b"").strip()
        if names and len(names) <= _LONGEST_NAMES and _NAMES.fullmatch(names):
            more.append((b"access-control-allow-headers", names))
        more.append((b"access-control-max-age", b"%d" % self.max_age))
        return Response(204, headers=(*self._allowed(headers[b"origin"]), *more))

    def marked(self, headers: Mapping[bytes, bytes], response: Response) -> Response:
        """An answer with what lets the asking page read it."""
        own = headers.get(b"origin", b"")
        more: tuple[tuple[bytes, bytes], ...] = (_VARY,)
        if own in self.origins:
            more = (*self._allowed(own), (b"access-control-expose-headers", _SHOWN), _VARY)
        return msgspec.structs.replace(response, headers=(*response.headers, *more))

    def _allowed(self, origin: bytes) -> tuple[tuple[bytes, bytes], ...]:
        named = ((b"access-control-allow-origin", origin),)
        return (*named, (b"access-control-allow-credentials", b"true")) if self.credentials else named


def cors_of(settings: Settings) -> Cors | None:
    """The origins of ``server.cors``; None where there are none.

    Raises:
        ConfigError: MS-3120, one of them is none; MS-3121, credentials are allowed to nobody.
    """
    origins = settings.words("server.cors.origins")
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise ConfigError(
                f"{origin!r} is no origin",
                code="MS-3120",
                why="an origin is a scheme, a host in small letters and a port that is not the scheme's own; "
                "there are no stars, and no paths",
                origin=origin_of_setting(settings, "server.cors.origins"),
                fix='server.cors.origins = ["https://app.example.org"]',
            )
    if not origins:
        if settings.flag("server.cors.credentials"):
            raise ConfigError(
                "server.cors.credentials is true, and no origin is named",
                code="MS-3121",
                why="credentials are allowed to named pages only",
                origin=origin_of_setting(settings, "server.cors.credentials"),
                fix='server.cors.origins = ["https://app.example.org"]',
            )
        return None
    found = frozenset(origin.encode() for origin in origins)
    return Cors(found, settings.flag("server.cors.credentials"), settings.whole("server.cors.max_age"))
