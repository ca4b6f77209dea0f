"""Who a key belongs to: keys are kept hashed, and compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from mainspring.errors import ConfigError
from mainspring.llm.values import Key

__all__ = ["KeyRing", "digest_of"]

_EMPTY = hashlib.blake2b(digest_size=32, person=b"mainspring-llm-k")
"""Copied for each key: to set it up costs twice what hashing a key does."""


def digest_of(secret: str | bytes) -> bytes:
    """What is kept of a key: 32 bytes of BLAKE2b. Keys are long and random, so that no slow hash is needed."""
    given = secret.encode() if isinstance(secret, str) else secret
    hasher = _EMPTY.copy()
    hasher.update(given)
    return hasher.digest()


class KeyRing:
    """The keys that a gateway knows.

    Args:
        keys: all of them; none leaves the gateway open.

    Raises:
        ConfigError: MS-3070, two keys are equal or have one name.
    """

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        found = tuple(keys)
        self._by_digest = {key.digest: key for key in found}
        if len(self._by_digest) != len(found) or len({key.id for key in found}) != len(found):
            raise ConfigError(
                "two keys of the gateway are the same",
                code="MS-3070",
                why="a key's id and its secret each name one key",
                fix="give each client a key of its own",
            )

    def find(self, secret: bytes, now_ns: int) -> Key | None:
        """The key that a client gave, or None: unknown or expired.

        What is looked up is the hash of what was given, which a client cannot steer towards a kept one step by step;
        the last comparison takes the same time whatever differs.
        """
        digest = digest_of(secret)
        key = self._by_digest.get(digest)
        if key is None or not hmac.compare_digest(key.digest, digest):
            return None
        return None if key.expires_ns is not None and key.expires_ns <= now_ns else key
