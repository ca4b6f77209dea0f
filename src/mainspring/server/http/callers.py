"""Who asks: API keys and tokens, and the users, groups and tenants that they stand for."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence

import msgspec

from mainspring.config.settings import Setting, Settings
from mainspring.declare.identity import ANYONE, Identity
from mainspring.errors import ConfigError
from mainspring.server.http.listening import api_keys, key_of_setting
from mainspring.server.http.tokens import Tokens, tokens_of

__all__ = ["Callers", "callers_of", "digest_of", "key_of", "named_keys"]

_DOTS = 2
"""How many dots a signed token has."""


class Callers(msgspec.Struct, frozen=True):
    """Keys by their digests. A key is never kept, and all digests are compared whichever fits.

    Attributes:
        known: the digest of each key with whom it stands for.
        tokens: what verifies keys that are an issuer's tokens, or None.
    """

    known: Sequence[tuple[bytes, Identity]] = ()
    tokens: Tokens | None = None

    def of(self, key: bytes) -> Identity | None:
        """Whom a key or a token stands for; None for a key that nobody has.

        Raises:
            Fault: 401, it is a token that is not accepted; 503, the key that verifies it is being fetched.
        """
        digest = digest_of(key)
        found = None
        for known, identity in self.known:
            if hmac.compare_digest(known, digest):
                found = identity
        if found is None and self.tokens is not None and key.count(b".") == _DOTS:
            return self.tokens.of(key)
        return found

    def __bool__(self) -> bool:
        return bool(self.known) or self.tokens is not None


def callers_of(settings: Settings, told: Callable[[str], None] = lambda line: None) -> Callers:
    """The callers of ``[callers.NAME]``, the keys of ``server.keys``, which stand for nobody in particular, and tokens.

    Args:
        settings: of the active profile.
        told: told when the tokens' issuer cannot be asked, and when it can again.

    Raises:
        ConfigError: MS-3007, a secret is not there; MS-3023, it is empty; MS-3027, a caller has no key; MS-3116 to
            MS-3118 and MS-4388, as `tokens_of` raises.
    """
    known = [(digest_of(key), identity) for _, key, identity in named_keys(settings)]
    return Callers(known, tokens_of(settings, told))


def named_keys(settings: Settings) -> list[tuple[str, bytes, Identity]]:
    """Every key with a name for logs and whom it stands for; never print what this returns.

    Raises:
        ConfigError: as `callers_of`.
    """
    found = [(f"server.keys[{place}]", key, ANYONE) for place, key in enumerate(api_keys(settings))]
    names = dict.fromkeys(key.split(".")[1] for key in settings.values if key.startswith("callers."))
    return found + [_caller(name, settings) for name in names]


def key_of(headers: Mapping[bytes, bytes]) -> bytes:
    """The key that a request brings, as ``Authorization: Bearer KEY`` or ``x-api-key: KEY``; empty for none."""
    scheme, _, rest = headers.get(b"authorization", b"").strip().partition(b" ")
    if scheme.lower() == b"bearer":
        return rest.strip()
    return headers.get(b"x-api-key", b"").strip()


def _caller(name: str, settings: Settings) -> tuple[str, bytes, Identity]:
    section = settings.section(f"callers.{name}")
    key = section.get("key")
    if key is None:
        raise ConfigError(
            f"caller {name!r} has no key",
            code="MS-3027",
            why="by its key the server knows who asks",
            origin=next(iter(section.values())).origin,
            fix=f'callers.{name}.key = "env:{name.upper()}_KEY"',
        )
    groups = section.get("groups", Setting("", [], ""))
    tenant = section.get("tenant", Setting("", "", ""))
    identity = Identity(name, tuple(map(str, _list(groups.value))), str(tenant.value))
    return name, key_of_setting(key, settings), identity


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, (list, tuple)) else ()


def digest_of(key: bytes) -> bytes:
    """What is kept of a key."""
    return hashlib.blake2b(key, digest_size=32).digest()
