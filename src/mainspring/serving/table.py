"""The models of this process: a swap of a model's versions is one assignment, calls under way keep theirs.

Where several workers answer at one port, versions are prepared first, and all workers swap them in at one moment: when
the word that they share says so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import msgspec

from mainspring.serving.models import LiveModel
from mainspring.serving.versions import Draining, ModelVersions

__all__ = ["ModelTable"]

_NONE = ModelVersions()


class _Prepared(msgspec.Struct, frozen=True):
    """What may take over: by its token, and what tells which token holds now."""

    agreed: Callable[[], int]
    values: Mapping[int, ModelVersions]


class ModelTable:
    """The versions of each model."""

    def __init__(self) -> None:
        self._models: dict[str, ModelVersions] = {}
        self._prepared: dict[str, _Prepared] = {}
        self._draining = Draining()
        self._followers: list[Callable[[str], None]] = []
        self._derived: dict[str, Callable[[], None]] = {}
        self._lock = threading.RLock()

    def follow(self, told: Callable[[str], None]) -> None:
        """Tell somebody of each model whose versions have changed, from the thread that has changed them."""
        self._followers.append(told)

    def derive(self, name: str, follow: Callable[[], None]) -> None:
        """Have a model that is made of others: `follow` lets it be what the others are, before every look at it."""
        self._derived = {**self._derived, name: follow}

    def prepared(self, name: str) -> Sequence[LiveModel]:
        """What may come to answer the calls of a model that name no version."""
        known = self._prepared.get(name)
        found = [] if known is None else [value.answering() for value in known.values.values()]
        return [live for live in found if live is not None]

    def versions(self, name: str) -> ModelVersions:
        """A model's versions now; none for a model that is not here."""
        self._catch_up(name)
        return self._models.get(name, _NONE)

    def loaded(self, name: str) -> Mapping[str, LiveModel]:
        """The warm versions of a model, those that are only prepared too."""
        found = dict(self.versions(name).ready)
        prepared = self._prepared.get(name)
        for value in () if prepared is None else prepared.values.values():
            found = {**value.ready, **found}
        return found

    def draining(self, name: str) -> Sequence[str]:
        """The versions that were taken out of service and still hold a call, by number."""
        return self._draining.of(name)

    def prepare(self, name: str, token: int, versions: ModelVersions, agreed: Callable[[], int]) -> None:
        """Have versions ready that take over at the moment at which `agreed` gives their token.

        Every later look at the model asks it, so that no call is led by what held before that moment.
        """
        with self._lock:
            known = self._prepared.get(name)
            values = {**({} if known is None else known.values), token: versions}
            self._prepared = {**self._prepared, name: _Prepared(agreed, values)}

    def keep(self, name: str, token: int) -> None:
        """Forget what was prepared for a model and can be agreed on no more: all but what has this token."""
        with self._lock:
            self._settle(name)
            known = self._prepared.get(name)
            if known is None:
                return
            values = {one: value for one, value in known.values.items() if one == token}
            self._put_prepared(name, _Prepared(known.agreed, values))

    def _put_prepared(self, name: str, prepared: _Prepared) -> None:
        others = {known: value for known, value in self._prepared.items() if known != name}
        self._prepared = {**others, name: prepared} if prepared.values else others

    def _catch_up(self, name: str) -> None:
        """Let a model be what holds at this moment."""
        if self._prepared:
            self._settle(name)
        if self._derived and (follow := self._derived.get(name)) is not None:
            follow()

    def _settle(self, name: str) -> None:
        """Let take over what all workers have agreed on."""
        prepared = self._prepared.get(name)
        if prepared is None or prepared.agreed() not in prepared.values:
            return
        with self._lock:
            prepared = self._prepared.get(name)
            if prepared is None:
                return
            token = prepared.agreed()
            versions = prepared.values.get(token)
            if versions is None:
                return
            values = {one: value for one, value in prepared.values.items() if one != token}
            self._put_prepared(name, _Prepared(prepared.agreed, values))
            self.swap(name, versions)

    def swap(self, name: str, versions: ModelVersions) -> None:
        """Let a model have other versions, all of them warm; those that are no more among them drain."""
        self.change(name, lambda now: versions)

    def change(self, name: str, changed: Callable[[ModelVersions], ModelVersions]) -> None:
        """Let a model have what is made of its versions: whatever they are at that moment, none of theirs is lost."""
        with self._lock:
            before = self._models.get(name, _NONE)
            versions = changed(before)
            self._models = {**self._models, name: versions}
            for number, live in before.ready.items():
                if versions.ready.get(number) is not live:
                    self._draining.add(name, live)
        self._tell(name)

    def put(self, name: str, model: LiveModel) -> None:
        """Let a warm version take over."""
        self.change(name, lambda now: now.with_default(model))

    def remove(self, name: str) -> None:
        """Let a model answer no more."""
        with self._lock:
            for live in self._models.get(name, _NONE).ready.values():
                self._draining.add(name, live)
            self._models = {known: found for known, found in self._models.items() if known != name}
            self._prepared = {known: found for known, found in self._prepared.items() if known != name}
        self._tell(name)

    def _tell(self, name: str) -> None:
        for told in self._followers:
            told(name)

    def get(self, name: str) -> LiveModel | None:
        """The version that answers calls that name none, or None while there is none."""
        self._catch_up(name)
        found = self._models.get(name)
        return None if found is None else found.answering()

    def all(self) -> Mapping[str, LiveModel]:
        """All models with the version that answers calls that name none."""
        for name in (*self._prepared, *self._derived):
            self._catch_up(name)
        return {name: live for name, found in self._models.items() if (live := found.answering()) is not None}
