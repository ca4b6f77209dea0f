"""The versions of a model in this process: which are loaded, what names them, and how calls are parted among them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from types import MappingProxyType

import msgspec
from msgspec.structs import replace

from mainspring.serving.models import LiveModel
from mainspring.serving.rollout.split import Split

__all__ = ["STANDING", "Draining", "ModelVersions", "Policy", "State", "VersionState", "wanted_versions"]

STANDING = ("champion", "stable")
"""The labels of the version that answers; they move by promotion alone."""


class State(Enum):
    """How far a version is."""

    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


class VersionState(msgspec.Struct, frozen=True):
    """A version that is known here, loaded or not.

    Attributes:
        version: its number.
        state: how far it is.
        reason: why it is not READY.
    """

    version: str
    state: State
    reason: str = ""


class Policy(msgspec.Struct, frozen=True):
    """Which versions are loaded beside those that a label, a rollout or the champion's place asks for.

    Attributes:
        latest: the version that answers and so many less one of the newest others; 0 with `every` or `specific`.
        every: all that are registered.
        specific: these.
    """

    latest: int = 1
    every: bool = False
    specific: tuple[int, ...] = ()


def wanted_versions(policy: Policy, registered: Iterable[int], named: Iterable[int]) -> frozenset[int]:
    """The versions that are to be loaded.

    Args:
        policy: the endpoint's.
        registered: every version there is.
        named: those that answer, or are named by a label or a rollout; the first is the one that answers.
    """
    known, held = sorted(set(registered), reverse=True), list(named)
    if policy.every:
        return frozenset(known) | frozenset(held)
    others = [version for version in known if version not in held[:1]]
    fill = others[: policy.latest - len(held[:1])] if policy.latest > 1 else []
    return frozenset(held) | frozenset(fill) | (frozenset(policy.specific) & frozenset(known))


class ModelVersions(msgspec.Struct, frozen=True):
    """A model's versions as one value: it is replaced whole, so that no call sees a half of a move.

    Attributes:
        default: the version that answers calls that name none; None while there is none.
        ready: the loaded and warm ones by number.
        labels: the version that each label names; always a ready one.
        split: how calls that name no version are parted; None while there is one version for all.
        waiting: the versions that are known and not READY.
    """

    default: str | None = None
    ready: Mapping[str, LiveModel] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    labels: Mapping[str, str] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    split: Split | None = None
    waiting: Sequence[VersionState] = ()

    def answering(self) -> LiveModel | None:
        """The version that answers calls that name none, but for a canary's share."""
        return None if self.default is None else self.ready.get(self.default)

    def labelled(self, label: str) -> str | None:
        """The number of a label's version; None when no ready version has it."""
        if label in STANDING:
            return self.default
        if label == "canary" and self.split is not None:
            return self.split.canary
        return self.labels.get(label)

    def all_labels(self) -> Mapping[str, str]:
        """Every label with its version."""
        found = dict(self.labels)
        if self.default is not None:
            found |= dict.fromkeys(STANDING, self.default)
        if self.split is not None:
            found["canary"] = self.split.canary
        return found

    def with_default(self, live: LiveModel) -> ModelVersions:
        """The same with another version that answers, in the place of the one that did."""
        ready = {number: kept for number, kept in self.ready.items() if number != self.default}
        return replace(self, default=live.version, ready={**ready, live.version: live})


class Draining:
    """The versions that answer no new call and still hold one: they are gone when their last call is over."""

    def __init__(self) -> None:
        self._gone: list[tuple[str, weakref.ref[LiveModel]]] = []

    def add(self, name: str, live: LiveModel) -> None:
        """A version was taken out of service."""
        self._gone = [*((known, ref) for known, ref in self._gone if ref() is not None), (name, weakref.ref(live))]

    def of(self, name: str) -> Sequence[str]:
        """The versions of a model that still hold a call, by number."""
        alive = [found for known, ref in self._gone if known == name and (found := ref()) is not None]
        return sorted({live.version for live in alive}, key=int)
