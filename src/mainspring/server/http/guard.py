"""Who is let in, and who somebody is, by the key that a request brings."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Hashable, Mapping

from mainspring.declare.identity import ANYONE, Identity
from mainspring.protocols.http import Fault, Request
from mainspring.server.http.callers import Callers, digest_of, key_of
from mainspring.server.http.rates import Rates
from mainspring.server.http.resource import METADATA_PATHS

__all__ = ["authorized", "guard", "identify"]

_OPEN = frozenset(
    {
        "/v2/health/live",
        "/v2/health/ready",
        "/actuator/health",
        "/actuator/health/liveness",
        "/actuator/health/readiness",
        *METADATA_PATHS,
    }
)

_UNKNOWN = 401


def guard(
    callers: Callers,
    most: int,
    under_way: Callable[[], int],
    *,
    passwords: bool = False,
    besides: Callable[[Request], bool] = lambda request: False,
    rates: Rates | None = None,
    refused: Callable[[str], None] = lambda why: None,
) -> Callable[[Request], None]:
    """Refuse what has no key, where there are keys, what comes too often, and what comes when too much is under way.

    Args:
        callers: the key of any one of them lets a request in.
        most: requests under way at once.
        under_way: how many are.
        besides: lets a request in whose key is none of the callers'.
        passwords: a key may also come as the password of Basic authentication, which browsers ask for.
        rates: how often each caller may ask; where there are no keys, each address. None is no limit.
        refused: told of each refusal: ``queue``, ``key``, ``token``, ``issuer`` or ``rate``.
    """
    keyed = bool(callers)
    looks = keyed or rates is not None
    challenge = 'Basic realm="mainspring", charset="UTF-8"' if passwords else "Bearer"
    how = "Authorization: Bearer KEY" + (", or the key as the password of any user" if passwords else "")

    def let_in(request: Request) -> None:
        if under_way() > most:
            refused("queue")
            raise Fault(429, "too many requests are under way", retry_after=1)
        if not looks or request.path in _OPEN:
            return
        key, who = b"", ANYONE
        if keyed:
            key = _given(request.headers, passwords)
            try:
                found = callers.of(key)
            except Fault as fault:
                if besides(request):
                    return
                refused("token" if fault.status == _UNKNOWN else "issuer")
                raise
            if found is None:
                if besides(request):
                    return
                refused("key")
                raise Fault(401, f"a key is needed: {how}", challenge=challenge)
            who = found
        if rates is not None and (wait := rates.take(_caller(who, key, request), who.user)):
            refused("rate")
            raise Fault(429, "you ask too often", retry_after=math.ceil(wait / 1e9))

    return let_in


def authorized(callers: Callers, request: Request) -> bool:
    """Whether a request brings a key that is known, as itself or as a password."""
    try:
        return callers.of(_given(request.headers, passwords=True)) is not None
    except Fault:
        return False


def _caller(who: Identity, key: bytes, request: Request) -> Hashable:
    """By what a caller is told from others: its name, else its key, else its address."""
    return who.user or (digest_of(key) if key else ("address", request.client))


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
