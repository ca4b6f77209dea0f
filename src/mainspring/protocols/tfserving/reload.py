"""TensorFlow Serving's change of what is served: which versions of which models, and their labels; by registry names.

``ModelService.HandleReloadConfigRequest`` carries this message; whoever speaks gRPC reads it and calls `reload_config`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from mainspring.serving.calls import Reason, Rejected
from mainspring.serving.inference import ServedModels
from mainspring.serving.versions import Policy

__all__ = ["ModelConfig", "reload_config"]

_PLATFORMS = frozenset({"", "tensorflow", "mainspring"})


class ModelConfig(msgspec.Struct, frozen=True):
    """One model of a ``model_config_list``.

    Attributes:
        name: the registry's name of it.
        base_path: where TensorFlow Serving would look for it; here nothing, or the name again.
        platform: nothing, or one of the words for whatever the registry says.
        latest: of the policy ``latest``, how many versions; None where the policy is another.
        every: whether the policy is ``all``.
        specific: the versions of the policy ``specific``.
        labels: the version that each label is to name.
    """

    name: str
    base_path: str = ""
    platform: str = ""
    latest: int | None = None
    every: bool = False
    specific: Sequence[int] = ()
    labels: Mapping[str, int] = msgspec.field(default_factory=dict)


def reload_config(models: ServedModels, configs: Sequence[ModelConfig]) -> None:
    """Serve these models and no others, in these versions; then move the labels.

    Everything is checked before anything changes. It takes disks and time: not for an event loop.

    Args:
        models: the models of this process.
        configs: what is wanted.

    Raises:
        Rejected: INVALID, a path or an address is given, a model twice, or a version of no positive number; NO_MODEL,
            NO_VERSION, the registry has it not; CONFLICT, a label's version is not READY, or a label was moved
            meanwhile.
    """
    names = [config.name for config in configs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise Rejected(Reason.INVALID, f"model {twice!r} is there twice")
    for config in configs:
        _check(models, config)
    registry = models.registry
    for config in configs:
        registry.keep(config.name, _policy(config))
    for name in models.known():
        if name in registry.names() and name not in names and models.get(name) is not None:
            registry.unload(name)
    for config in configs:
        for label, version in config.labels.items():
            registry.label(config.name, label, str(version))


def _policy(config: ModelConfig) -> Policy:
    return Policy(max(config.latest or 1, 1), config.every, tuple(sorted(set(config.specific))))


def _check(models: ServedModels, config: ModelConfig) -> None:
    if config.name not in models.registry.names():
        raise Rejected(Reason.NO_MODEL, f"no model of the registry is called {config.name[:80]!r}")
    if config.base_path not in ("", config.name):
        raise Rejected(
            Reason.INVALID,
            f"base_path {config.base_path[:80]!r} is refused: models come from the registry by name, from no path",
        )
    if config.platform not in _PLATFORMS:
        raise Rejected(Reason.INVALID, f"model_platform {config.platform[:40]!r} is not served")
    asked = {*config.specific, *config.labels.values()}
    if any(version < 1 for version in asked):
        raise Rejected(Reason.INVALID, "a version is a positive number")
    if strange := sorted(asked - set(models.registry.registered(config.name))):
        raise Rejected(Reason.NO_VERSION, f"model {config.name!r} has no version {strange[0]}")
