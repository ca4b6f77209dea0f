"""The models of this process: a swap of a model's versions is one assignment, calls under way keep theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mainspring.serving.models import LiveModel
from mainspring.serving.versions import Draining, ModelVersions

__all__ = ["ModelTable"]

_NONE = ModelVersions()


class ModelTable:
    """The versions of each model."""

    def __init__(self) -> None:
        self._models: dict[str, ModelVersions] = {}
        self._draining = Draining()
        self._followers: list[Callable[[str], None]] = []

    def follow(self, told: Callable[[str], None]) -> None:
        """Tell somebody of each model whose versions have changed, from the thread that has changed them."""
        self._followers.append(told)

    def versions(self, name: str) -> ModelVersions:
        """A model's versions now; none for a model that is not here."""
        return self._models.get(name, _NONE)

    def draining(self, name: str) -> Sequence[str]:
        """The versions that were taken out of service and still hold a call, by number."""
        return self._draining.of(name)

    def swap(self, name: str, versions: ModelVersions) -> None:
        """Let a model have other versions, all of them warm; those that are no more among them drain."""
        before = self.versions(name)
        self._models = {**self._models, name: versions}
        for number, live in before.ready.items():
            if versions.ready.get(number) is not live:
                self._draining.add(name, live)
        self._tell(name)

    def put(self, name: str, model: LiveModel) -> None:
        """Let a warm version take over."""
        self.swap(name, self.versions(name).with_default(model))

    def remove(self, name: str) -> None:
        """Let a model answer no more."""
        for live in self.versions(name).ready.values():
            self._draining.add(name, live)
        self._models = {known: found for known, found in self._models.items() if known != name}
        self._tell(name)

    def _tell(self, name: str) -> None:
        for told in self._followers:
            told(name)

    def get(self, name: str) -> LiveModel | None:
        """The version that answers calls that name none, or None while there is none."""
        found = self._models.get(name)
        return None if found is None else found.answering()

    def all(self) -> Mapping[str, LiveModel]:
        """All models with the version that answers calls that name none."""
        return {name: live for name, found in self._models.items() if (live := found.answering()) is not None}
