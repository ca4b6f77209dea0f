"""Bearer tokens of an OpenID Connect issuer: verified without a network call, and whom they stand for."""

from __future__ import annotations

import hashlib
import importlib.util
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.config.settings import Settings
from mainspring.declare.identity import Identity
from mainspring.errors import ConfigError
from mainspring.lazy import lazy
from mainspring.protocols.http import Fault
from mainspring.server.http.issuer import Issuer, KeySet, is_safe_url
from mainspring.server.http.listening import origin_of_setting

if TYPE_CHECKING:
    import jwt
else:
    jwt = lazy("jwt")

__all__ = ["ALGORITHMS", "Claims", "Tokens", "tokens_of"]

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""The algorithms that may be listed: those whose verifying key is public."""

_LONGEST = 16_384
_LONGEST_NAME = 256
_MOST_GROUPS = 1000
_MOST_KEPT = 8192
"""Tokens whose verdict is kept."""
_KINDS = frozenset({"jwt", "at+jwt", "application/at+jwt"})
"""What a token may say that it is: other kinds are for other places (RFC 8725, section 3.11)."""
_WHY: Mapping[str, str] = {
    "ExpiredSignatureError": "it has expired",
    "ImmatureSignatureError": "it is not valid yet",
    "InvalidAudienceError": "it is for somebody else",
    "InvalidIssuerError": "it is of another issuer",
    "MissingRequiredClaimError": "it lacks a claim",
    "InvalidSignatureError": "its signature is wrong",
}


class Claims(msgspec.Struct, frozen=True):
    """Where a token says who its bearer is; ``a.b`` is the member ``b`` of ``a``, where no claim has the whole name.

    Attributes:
        user: the user's name.
        groups: its groups, a list.
        tenant: its tenant; empty is none.
    """

    user: str = "sub"
    groups: str = "groups"
    tenant: str = ""


class Tokens:
    """Verifies tokens by an issuer's keys. Verdicts are kept until the token expires or the keys change.

    Args:
        issuer: whose tokens.
        audience: a token must be for one of these.
        algorithms: the ones that it may be signed with.
        claims: where it says who its bearer is.
        leeway: seconds by which clocks may differ.
    """

    def __init__(
        self,
        issuer: Issuer,
        audience: Sequence[str],
        algorithms: Sequence[str],
        claims: Claims,
        leeway: float,
    ) -> None:
        self.issuer = issuer
        self._audience = list(audience)
        self._algorithms = frozenset(algorithms)
        self._claims = claims
        self._leeway = leeway
        self._kept: dict[bytes, tuple[Identity, float, KeySet]] = {}

    def of(self, token: bytes) -> Identity:
        """Whom a token stands for.

        Raises:
            Fault: 401, it is not accepted; 503, the key that it names is being fetched.
        """
        if len(token) > _LONGEST:
            raise _refused("it is too long")
        digest = hashlib.blake2b(token, digest_size=32).digest()
        kept = self._kept.get(digest)
        if kept is not None and kept[2] is self.issuer.keys and time.time() < kept[1]:
            return kept[0]
        self._kept.pop(digest, None)
        keys, payload = self._verified(token)
        identity = _identity(payload, self._claims)
        while len(self._kept) >= _MOST_KEPT:
            self._kept.pop(next(iter(self._kept)), None)
        self._kept[digest] = (identity, float(payload["exp"]) + self._leeway, keys)
        return identity

    def _verified(self, token: bytes) -> tuple[KeySet, Mapping[str, Any]]:
        """The claims of a token whose signature, times, issuer and audience are right, and the keys that say so."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise _refused("it is no signed token") from None
        algorithm, name = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise _refused("its algorithm is not accepted")
        if "crit" in header or str(header.get("typ", "JWT")).lower() not in _KINDS:
            raise _refused("it is of a kind that is not accepted")
        keys = self.issuer.keys
        key = None if keys is None else keys.find(name, algorithm)
        if keys is None or key is None:
            if (keys is None or (name is not None and not keys.knows(name))) and self.issuer.look_again():
                raise Fault(503, "the keys of the tokens' issuer are being fetched", retry_after=1)
            if keys is None:
                raise Fault(503, "the keys of the tokens' issuer cannot be fetched now", retry_after=5)
            raise _refused("its key is not known")
        try:
            payload = jwt.decode(
                token,
                key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self.issuer.url,
                leeway=self._leeway,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise _refused(_WHY.get(type(error).__name__, "it is not valid")) from None
        except (ValueError, TypeError, OverflowError, RecursionError):
            raise _refused("it is not valid") from None
        return keys, payload


def tokens_of(settings: Settings, told: Callable[[str], None] = lambda line: None) -> Tokens | None:
    """What verifies the tokens of ``server.oidc``; None where no issuer is set. Nothing is fetched before its start.

    Raises:
        ConfigError: MS-3116, the issuer is no address of https; MS-3117, no audience is set; MS-3118, an algorithm is
            none of a public key; MS-4388, PyJWT is not installed.
    """
    url = settings.text("server.oidc.issuer")
    if not url:
        return None
    if not is_safe_url(url) or "?" in url:
        raise ConfigError(
            f"{url!r} is no issuer",
            code="MS-3116",
            why="whoever can change what it answers can make tokens: it must be https, or http on this machine",
            origin=origin_of_setting(settings, "server.oidc.issuer"),
            fix='server.oidc.issuer = "https://login.example.org/realms/main"',
        )
    audience = settings.words("server.oidc.audience")
    if not audience or not all(audience):
        raise ConfigError(
            "tokens of every audience would be let in",
            code="MS-3117",
            why="an issuer makes tokens for many servers, and one that was made for another would open this one",
            origin=origin_of_setting(settings, "server.oidc.issuer"),
            fix='server.oidc.audience = ["mainspring"]',
        )
    algorithms = settings.words("server.oidc.algorithms")
    unknown = [name for name in algorithms if name not in ALGORITHMS]
    if unknown or not algorithms:
        raise ConfigError(
            f"tokens cannot be verified by {unknown[0]!r}" if unknown else "no algorithm is listed",
            code="MS-3118",
            why="only algorithms whose verifying key is public are taken: no secret is shared with the issuer",
            origin=origin_of_setting(settings, "server.oidc.algorithms"),
            fix=f"server.oidc.algorithms takes {', '.join(ALGORITHMS)}",
        )
    if importlib.util.find_spec("jwt") is None or importlib.util.find_spec("cryptography") is None:
        raise ConfigError(
            "tokens cannot be verified",
            code="MS-4388",
            why="PyJWT and cryptography are not installed",
            origin=origin_of_setting(settings, "server.oidc.issuer"),
            fix="pip install 'mainspring[oidc]'",
        )
    issuer = Issuer(
        url,
        algorithms,
        timeout=settings.number("server.oidc.timeout"),
        refresh=settings.number("server.oidc.refresh"),
        told=told,
    )
    claims = Claims(
        settings.text("server.oidc.user") or "sub",
        settings.text("server.oidc.groups") or "",
        settings.text("server.oidc.tenant") or "",
    )
    return Tokens(issuer, audience, algorithms, claims, settings.number("server.oidc.leeway"))


def _identity(payload: Mapping[str, Any], claims: Claims) -> Identity:
    """Whom claims stand for; what does not fit gives fewer rights, and never more."""
    user = _claim(payload, claims.user)
    if not isinstance(user, str) or not _is_name(user):
        raise _refused("it names no user")
    groups = _claim(payload, claims.groups)
    groups = [groups] if isinstance(groups, str) else groups if isinstance(groups, list) else []
    named = [group for group in groups if isinstance(group, str) and _is_name(group)]
    if len(named) > _MOST_GROUPS:
        raise _refused("it names too many groups")
    tenant = _claim(payload, claims.tenant) or ""
    if not isinstance(tenant, str) or (tenant and not _is_name(tenant)):
        raise _refused("its tenant is no name")
    return Identity(user, tuple(dict.fromkeys(named)), tenant, _scopes(payload))


def _scopes(payload: Mapping[str, Any]) -> tuple[str, ...]:
    """What a token allows: ``scope`` (RFC 9068), or ``scp`` of issuers that write it so, as one text or as a list."""
    said = payload.get("scope") if "scope" in payload else payload.get("scp")
    words = said.split(" ") if isinstance(said, str) else said if isinstance(said, list) else []
    return tuple(dict.fromkeys(word for word in words[:_MOST_GROUPS] if isinstance(word, str) and _is_name(word)))


def _claim(payload: Mapping[str, Any], path: str) -> object:
    if not path or path in payload:
        return payload.get(path) if path else None
    found: object = payload
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _is_name(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_NAME and text.isprintable()


def _refused(why: str) -> Fault:
    return Fault(
        401,
        f"the token is not accepted: {why}",
        challenge=f'Bearer error="invalid_token", error_description="{why}"',
    )
