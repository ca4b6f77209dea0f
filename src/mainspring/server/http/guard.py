"""Who is let in, and who somebody is, by the key that a request brings."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping

from mainspring.declare.identity import ANYONE, Identity
from mainspring.protocols.http import Fault, Request
from mainspring.server.http.callers import Callers, key_of

__all__ = ["guard", "identify"]

_OPEN = frozenset({"/v2/health/live", "/v2/health/ready", "/actuator/health"})


def guard(
    callers: Callers,
    most: int,
    under_way: Callable[[], int],
    *,
    passwords: bool = False,
    besides: Callable[[Request], bool] = lambda request: False,
) -> Callable[[Request], None]:
    """Refuse what has no key, where there are keys, and what comes when too much is under way.

    Args:
        callers: the key of any one of them lets a request in.
        most: requests under way at once.
        under_way: how many are.
        besides: lets a request in whose key is none of the callers'.
        passwords: a key may also come as the password of Basic authentication, which browsers ask for.
    """
    challenge = 'Basic realm="mainspring", charset="UTF-8"' if passwords else "Bearer"
    how = "Authorization: Bearer KEY" + (", or the key as the password of any user" if passwords else "")

    def let_in(request: Request) -> None:
        if under_way() > most:
            raise Fault(429, "too many requests are under way", retry_after=1)
        if not callers or request.path in _OPEN:
            return
        if callers.of(_given(request.headers, passwords)) is None and not besides(request):
            raise Fault(401, f"a key is needed: {how}", challenge=challenge)

    return let_in


def _given(headers: Mapping[bytes, bytes], passwords: bool) -> bytes:
    """The key that a request brings; empty when it brings none."""
    scheme, _, rest = headers.get(b"authorization", b"").strip().partition(b" ")
    if passwords and scheme.lower() == b"basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
        except ValueError:
            return b""
    return key_of(headers)


def identify(callers: Callers) -> Callable[[Request], Identity]:
    """Who asks, by the key that the request brings: somebody known, or anyone."""
    return lambda request: callers.of(key_of(request.headers)) or ANYONE
