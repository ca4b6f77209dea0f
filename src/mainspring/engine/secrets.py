"""Secrets: handed to the steps that declare them, kept out of params, keys and logs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mainspring.config.settings import Settings, reveal
from mainspring.engine.context import EngineServices
from mainspring.engine.task import TaskGraph
from mainspring.errors import ConfigError, RefusedError

__all__ = ["Redactor", "refuse_secrets", "revealed"]

_SHORTEST = 6
_MASK = b"******"


def revealed(services: EngineServices, names: Iterable[str]) -> dict[str, str]:
    """The values of these settings; never to be printed.

    Raises:
        ConfigError: MS-3030, there is no such setting; MS-3007, a reference leads nowhere.
    """
    found = {}
    for name in names:
        setting = services.settings.setting(name)
        if setting is None:
            raise ConfigError(
                f"secret {name!r} is not set",
                code="MS-3030",
                why="a step declares it in secrets=",
                fix=f'write {name} = "env:{name.upper().replace(".", "_")}" into mainspring.toml',
            )
        found[name] = reveal(setting, services.project)
    return found


def _known_secrets(settings: Settings, services: EngineServices) -> dict[str, str]:
    """The values of all settings that refer to secrets and can be read now."""
    found = {}
    for setting in settings.values.values():
        if setting.secret:
            try:
                found[setting.key] = reveal(setting, services.project)
            except ConfigError:
                continue  # it is not there, so nobody can have passed it
    return found


def refuse_secrets(graph: TaskGraph, services: EngineServices) -> None:
    """Refuse a graph whose params hold the value of a secret: params are recorded for everybody to see.

    Raises:
        RefusedError: MS-5022.
    """
    secrets = {key: value for key, value in _known_secrets(services.settings, services).items() if value}
    if not secrets:
        return
    for task in graph.tasks:
        for name, value in task.params.items():
            for key, secret in secrets.items():
                if len(secret) >= _SHORTEST and any(secret in text for text in _texts(value)):
                    raise RefusedError(
                        f"param {name!r} of {task.name} holds the secret of {key}",
                        code="MS-5022",
                        why="params are part of the key, the run's record and the console",
                        fix=f"declare secrets=[{key!r}] and read it with current().secret({key!r})",
                    )


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for part in (*value.keys(), *value.values()):
            yield from _texts(part)
    elif isinstance(value, list | tuple | set | frozenset):
        for part in value:
            yield from _texts(part)


class Redactor:
    """Replaces secrets in a stream of bytes; a secret that is cut by a boundary of reads is found, too."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = sorted((secret.encode() for secret in secrets if secret), key=len, reverse=True)
        self._longest = max(map(len, self._secrets), default=1)
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Add what was written; what may be passed on."""
        text = self._replaced(self._held + data)
        passed = max(0, len(text) - self._longest + 1)
        self._held = text[passed:]
        return text[:passed]

    def end(self) -> bytes:
        """The rest."""
        text, self._held = self._replaced(self._held), b""
        return text

    def _replaced(self, text: bytes) -> bytes:
        for secret in self._secrets:
            text = text.replace(secret, _MASK)
        return text
