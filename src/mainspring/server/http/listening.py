"""What the listeners take from the settings: keys, tokens and pages, as ``serve`` and ``check`` see them."""

from __future__ import annotations

from collections.abc import Sequence

from mainspring.config.settings import Setting, Settings, reveal
from mainspring.errors import ConfigError
from mainspring.protocols.actuator.rest import PAGES

__all__ = [
    "PROTOCOLS",
    "api_keys",
    "default_model",
    "exposed_pages",
    "key_of_setting",
    "management_keys",
    "origin_of_setting",
    "served_protocols",
]

PROTOCOLS = ("oip", "kserve", "tfserving", "sagemaker", "vertex", "azureml", "torchserve")
"""The protocols that models can be served by."""

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def api_keys(settings: Settings) -> list[bytes]:
    """The API keys of the endpoints, their secret references replaced; empty leaves them open.

    Raises:
        ConfigError: MS-3007, a secret is not there; MS-3023, it is empty.
    """
    found = settings.values["server.keys"]
    return [key_of_setting(Setting(found.key, text, found.origin), settings) for text in settings.words("server.keys")]


def management_keys(settings: Settings) -> list[bytes]:
    """The token of the management listener, if there is one.

    Raises:
        ConfigError: MS-3007, the secret is not there; MS-3021, the listener would be open beyond loopback; MS-3023,
            the secret is empty.
    """
    token = settings.setting("management.token")
    host = settings.text("management.host") or "127.0.0.1"
    if token is not None and token.value is not None:
        return [key_of_setting(token, settings)]
    if host not in _LOOPBACK:
        raise ConfigError(
            f"the management listener would be open at {host}",
            code="MS-3021",
            why="beyond loopback it needs a token",
            origin=origin_of_setting(settings, "management.host"),
            fix='management.token = "env:MANAGEMENT_TOKEN"',
        )
    return []


def served_protocols(settings: Settings) -> frozenset[str]:
    """The protocols that models are served by.

    Raises:
        ConfigError: MS-3101, there is no such protocol.
    """
    found = settings.words("serving.protocols")
    if unknown := [name for name in found if name not in PROTOCOLS]:
        raise ConfigError(
            f"no protocol is called {unknown[0]!r}",
            code="MS-3101",
            origin=origin_of_setting(settings, "serving.protocols"),
            fix=f"serving.protocols takes {', '.join(PROTOCOLS)}",
        )
    return frozenset(found)


def default_model(settings: Settings, names: Sequence[str]) -> str | None:
    """The model of routes that name none; None leaves them to an app's only model.

    Raises:
        ConfigError: MS-3102, there is no such model.
    """
    found = settings.text("serving.model") or None
    if found is not None and found not in names:
        raise ConfigError(
            f"no model is called {found!r}",
            code="MS-3102",
            origin=origin_of_setting(settings, "serving.model"),
            fix=f"serving.model takes {', '.join(names) or 'a model of the app, and it has none'}",
        )
    return found


def key_of_setting(setting: Setting, settings: Settings) -> bytes:
    """A key with its secret reference replaced; an empty one would let everybody in."""
    key = reveal(setting, settings.project).encode()
    if not key:
        raise ConfigError(
            f"a key of {setting.key} is empty",
            code="MS-3023",
            why=f"{setting.shown()} holds no text, and everybody would be let in",
            origin=setting.origin,
            fix="put a secret there, or remove the setting",
        )
    return key


def exposed_pages(settings: Settings) -> tuple[str, ...]:
    """The actuator's pages that are shown over HTTP.

    Raises:
        ConfigError: MS-3022, a page is none of the actuator's.
    """
    pages = settings.words("management.expose")
    hidden = settings.words("management.hide")
    if unknown := [page for page in (*pages, *hidden) if page not in PAGES and page != "*"]:
        raise ConfigError(
            f"the actuator has no page {unknown[0]!r}",
            code="MS-3022",
            origin=origin_of_setting(settings, f"management.{'expose' if unknown[0] in pages else 'hide'}"),
            fix=f"management.expose takes *, {', '.join(PAGES)}",
        )
    every = PAGES if "*" in pages else pages
    return tuple(page for page in every if page not in hidden and "*" not in hidden)


def origin_of_setting(settings: Settings, key: str) -> str:
    """Where a setting was written; empty when it is not there."""
    found = settings.setting(key)
    return "" if found is None else found.origin
