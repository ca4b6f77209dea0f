"""Secrets: handed to the steps that declare them, kept out of params, keys, logs and results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from mainspring.config.settings import Setting, Settings, reveal
from mainspring.engine.context import EngineServices
from mainspring.engine.reference import place_of
from mainspring.engine.task import TaskGraph
from mainspring.errors import ConfigError, RefusedError
from mainspring.ports.objects import Blob, BlobWriter, Objects

__all__ = ["Redactor", "Screened", "declared_secret", "refuse_secrets", "revealed"]

_SHORTEST = 6
_MASK = b"******"


def revealed(services: EngineServices, names: Iterable[str]) -> dict[str, str]:
    """The values of these settings; never to be printed.

    Raises:
        ConfigError: MS-3030, there is no such setting; MS-3031, it is a list; MS-3007, a reference leads nowhere.
    """
    return {name: reveal(declared_secret(name, services, ""), services.project) for name in names}


def declared_secret(name: str, services: EngineServices, origin: str) -> Setting:
    """The setting that a step, declared at `origin`, names as its secret.

    Raises:
        ConfigError: MS-3030, there is no such setting; MS-3031, it is no text.
    """
    setting = services.settings.setting(name)
    if setting is None or setting.value is None:
        own = name if name.startswith("values.") else f"values.{name.rpartition('.')[2]}"
        raise ConfigError(
            f"secret {name!r} is not set",
            code="MS-3030",
            why="a step declares it in secrets=",
            origin=origin,
            fix=f'write {own} = "env:{own.rpartition(".")[2].upper()}" into mainspring.toml, and secrets=[{own!r}]',
        )
    if not isinstance(setting.value, str):
        raise ConfigError(
            f"secret {name!r} is {type(setting.value).__name__}, not one text",
            code="MS-3031",
            why="a step is handed one text for each secret that it declares",
            origin=setting.origin,
            fix='write each secret below [values] as a text: token = "env:TOKEN"',
        )
    return setting


def _known_secrets(settings: Settings, services: EngineServices) -> dict[str, str]:
    """The values of all settings that refer to secrets and can be read now."""
    found = {}
    for setting in settings.values.values():
        items = setting.value if isinstance(setting.value, (list, tuple)) else [setting.value]
        for number, item in enumerate(items):
            one = Setting(setting.key, item, setting.origin)
            if one.secret:
                try:
                    found[f"{one.key}[{number}]" if len(items) > 1 else one.key] = reveal(one, services.project)
                except ConfigError:
                    continue  # it is not there, so nobody can have passed it
    return found


def refuse_secrets(graph: TaskGraph, services: EngineServices) -> None:
    """Refuse a graph whose params hold the value of a secret, which are recorded for everybody to see, and one whose
    tasks declare secrets that nobody has set.

    Raises:
        RefusedError: MS-5022.
        ConfigError: MS-3030, MS-3031.
    """
    for task in graph.tasks:
        for name in task.options.secrets:
            declared_secret(name, services, place_of(task))
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


class Screened:
    """An object store that takes nothing in which one of these secrets is written.

    A secret is found as UTF-8, also as JSON escapes it; one of under six characters only as a whole text of JSON,
    because it would be found by chance anywhere else.

    Args:
        objects: the store.
        secrets: the values by the name of their setting.
        title: whose result it is.
    """

    def __init__(self, objects: Objects, secrets: Mapping[str, str], title: str) -> None:
        self._objects = objects
        self._title = title
        self._forms: dict[bytes, str] = {}
        for name, secret in secrets.items():
            escaped = [json.dumps(secret, ensure_ascii=plain).encode() for plain in (True, False)]
            forms = escaped if len(secret) < _SHORTEST else [secret.encode(), *(form[1:-1] for form in escaped)]
            self._forms |= dict.fromkeys(forms if secret else [], name)
        self._longest = max(map(len, self._forms), default=1)

    def put(self, data: bytes | memoryview) -> Blob:
        """Store bytes.

        Raises:
            RefusedError: MS-5024, a secret is in them.
        """
        self._screen(bytes(data))
        return self._objects.put(data)

    def put_file(self, path: Path) -> Blob:
        """Store a file's content.

        Raises:
            RefusedError: MS-5024, a secret is in it.
        """
        kept = b""
        with open(path, "rb") as file:
            while data := file.read(1 << 20):
                kept = self._screen(kept + data)
        return self._objects.put_file(path)

    def writer(self) -> AbstractContextManager[BlobWriter]:
        """A stream to write a blob to; writing a secret raises MS-5024 and leaves nothing."""
        return self._writer()

    @contextmanager
    def _writer(self) -> Iterator[BlobWriter]:
        with self._objects.writer() as writer:
            yield cast(BlobWriter, _ScreenedWriter(writer, self._screen))

    def _screen(self, data: bytes) -> bytes:
        """Look through bytes; their end, in which a secret may have begun."""
        for form, name in self._forms.items():
            if form in data:
                raise RefusedError(
                    f"the result of {self._title} holds the secret {name}",
                    code="MS-5024",
                    why="results are stored as they are, and shown in the console",
                    fix="return what the step has done with the secret, not the secret",
                )
        return data[max(0, len(data) - self._longest + 1) :]

    def __getattr__(self, name: str) -> object:
        return getattr(self._objects, name)


class _ScreenedWriter:
    def __init__(self, writer: BlobWriter, screen: Callable[[bytes], bytes]) -> None:
        self._writer = writer
        self._screen = screen
        self._kept = b""

    @property
    def file(self) -> BinaryIO:
        return self._writer.file

    @property
    def blob(self) -> Blob | None:
        return self._writer.blob

    def write(self, data: bytes | memoryview) -> int:
        self._kept = self._screen(self._kept + bytes(data))
        return self._writer.write(data)


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
