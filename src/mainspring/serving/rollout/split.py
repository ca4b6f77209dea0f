"""Which version answers whom while two are up: by a stable hash of the caller's key, so that none flips to and fro."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Protocol

import msgspec

from mainspring.serving.rollout.evidence import Evidence
from mainspring.serving.rollout.shadow import Shadow

__all__ = ["KEY_HEADERS", "Asking", "Role", "Split", "entity_key", "place_of", "request_key"]

KEY_HEADERS = (b"x-mainspring-key", b"x-request-id")
"""The headers by whose text a caller stays with a version, in order."""

_PLACES = 1 << 64


class Role:
    """What a version is to a rollout, as metrics and logs call it."""

    STABLE = "stable"
    CANARY = "canary"
    SHADOW = "shadow"


class Asking(Protocol):
    """Of a request, what may serve as a key."""

    @property
    def headers(self) -> Mapping[bytes, bytes]:
        """Names in lower case."""

    @property
    def body(self) -> bytes:
        """The bytes of the question."""


def place_of(rollout: str, key: bytes) -> float:
    """The place of a key in [0, 1): evenly spread, the same in every process, another one in every rollout.

    A key that was a canary's at 5 % is one at 25 % too, because its place stays and the share grows.
    """
    digest = hashlib.blake2b(key, digest_size=8, key=rollout.encode()[:64]).digest()
    return int.from_bytes(digest, "big") / _PLACES


def entity_key(row: Mapping[str, object], keys: tuple[str, ...]) -> bytes:
    """The key of a row: its entity's, whatever else it carries."""
    return "\x1f".join(f"{row.get(name)!r}" for name in keys).encode("utf-8", "surrogatepass")


def request_key(asking: Asking) -> bytes:
    """The key of a request: its header's, else its very bytes, so that a repeated question goes the same way."""
    for name in KEY_HEADERS:
        if found := asking.headers.get(name):
            return found
    return asking.body


class Split(msgspec.Struct, frozen=True):
    """How a model's calls are parted.

    Attributes:
        rollout: the rollout's id.
        stable: the version that answers the rest.
        canary: the version that is tried.
        share: the share of keys that the canary answers, in [0, 1].
        shadow: where copies of the calls go, while the canary is a shadow.
        evidence: by version, what came of its calls.
    """

    rollout: str
    stable: str
    canary: str
    share: float
    shadow: Shadow | None = None
    evidence: Mapping[str, Evidence] = msgspec.field(default_factory=dict)

    def version(self, key: bytes) -> str:
        """The version for a key."""
        return self.canary if self.share > 0 and place_of(self.rollout, key) < self.share else self.stable

    def begun(self, version: str) -> None:
        """A call is under way: one that dies with its process has failed."""
        if (found := self.evidence.get(version)) is not None:
            found.begun()

    def ended(self, version: str) -> None:
        """It is over, whatever came of it."""
        if (found := self.evidence.get(version)) is not None:
            found.ended()

    def answered(self, version: str, ns: int) -> None:
        """Count a call that was answered."""
        if (found := self.evidence.get(version)) is not None:
            found.answered(ns)

    def failed(self, version: str) -> None:
        """Count a call that failed, and not by the caller's fault."""
        if (found := self.evidence.get(version)) is not None:
            found.failed()
