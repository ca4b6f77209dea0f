"""What is wanted of a model's versions by the catalog, so that several workers can be at one on it."""

from __future__ import annotations

import hashlib
from typing import Protocol

import msgspec

__all__ = ["ABSTAINS", "Agreement", "Named", "Refused", "token_of"]

ABSTAINS = (1 << 64) - 1
"""The vote of a worker in which a model is unloaded: it stands in nobody's way."""


class Agreement(Protocol):
    """What the workers of a server have agreed on for each model, by tokens of what is wanted."""

    joined: bool

    def agreed(self, model: str) -> int:
        """The token that holds in all workers; 0 before there is one."""

    def agreed_text(self, model: str) -> bytes | None:
        """What was proposed under it."""

    def propose(self, model: str, token: int, text: bytes) -> int:
        """Say that this worker has it warm; the token that holds afterwards."""

    def abstain(self, model: str) -> None:
        """Stand in nobody's way."""


def token_of(text: bytes) -> int:
    """A number for a text, never 0 and never the greatest."""
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1 | 1


class Named(msgspec.Struct, frozen=True):
    """What the catalog's aliases say of a model: on this all workers are at one.

    Attributes:
        champion: where the champion's alias points.
        labels: the aliases that are people's, by name: the id of the version.
        rollout: where the rollout's alias points, or nothing.
    """

    champion: str
    labels: dict[str, str]
    rollout: str

    def text(self) -> bytes:
        """The same text in every process."""
        return msgspec.json.encode(self, order="deterministic")

    def token(self) -> int:
        """A number for it, never 0 and never the greatest."""
        return token_of(self.text())


class Refused(msgspec.Struct, frozen=True):
    """Why a model's versions were not taken over.

    Attributes:
        version: the champion that was wanted.
        why: in a line.
        code: of the error, if it is one of ours.
    """

    version: int
    why: str
    code: str = ""
