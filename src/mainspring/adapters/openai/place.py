"""Where an upstream is, from its settings."""

from __future__ import annotations

from collections.abc import Mapping

from mainspring.adapters.openai.problems import bad_header, no_url
from mainspring.adapters.openai.settings import OpenAISettings
from mainspring.upstream.chat_request import Limit
from mainspring.upstream.client import Place, place_of, sendable

__all__ = ["limit_of", "place_for"]

_NEWER = ("api.openai.com", ".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")


def place_for(settings: OpenAISettings) -> Place:
    """The place with its headers.

    Raises:
        ConfigError: MS-3054, no usable URL; MS-3055, a header that cannot be sent.
    """
    if not settings.url:
        raise no_url("llms.NAME.url is not set")
    query = f"api-version={settings.api_version}" if settings.api_version else ""
    try:
        return place_of(
            settings.url, headers=_headers(settings), query=query, connect=settings.connect, idle=settings.idle
        )
    except ValueError as error:
        raise no_url(str(error)) from error


def _headers(settings: OpenAISettings) -> Mapping[str, str]:
    headers = {name.lower(): value for name, value in settings.headers.items()}
    if settings.key:
        name = settings.key_header.lower() or ("api-key" if settings.api_version else "authorization")
        headers[name] = f"Bearer {settings.key.strip()}" if name == "authorization" else settings.key.strip()
    for name, value in headers.items():
        if not sendable(name) or not sendable(value):
            raise bad_header(name)
    return headers


def limit_of(settings: OpenAISettings, host: str) -> Limit:
    """How the most tokens of an answer are called there."""
    if settings.limit_field:
        return settings.limit_field
    return "max_completion_tokens" if host.endswith(_NEWER) else "max_tokens"
