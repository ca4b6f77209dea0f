"""A bucket opened by its URL."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from obstore.store import AzureStore, GCSStore, S3Store

from mainspring.errors import ConfigError

__all__ = ["bucket_of", "opened"]

_STORES: Mapping[str, Any] = {"s3": S3Store, "s3a": S3Store, "gs": GCSStore, "az": AzureStore}


def bucket_of(url: str, section: str) -> str:
    """The bucket that a URL names, without the path, as errors call it.

    Args:
        url: ``s3://bucket/path``.
        section: the part of the settings that it is in.

    Raises:
        ConfigError: MS-3042, it names none.
    """
    parts = urlsplit(url)
    place = f"{parts.scheme}://{parts.hostname or ''}"
    if not parts.hostname or "@" in parts.netloc:
        raise ConfigError(
            f"{place} names no bucket",
            code="MS-3042",
            why="it is scheme://bucket/path, without credentials",
            origin=f"{section}.url",
            fix=f"correct it; credentials belong into {section}.options or the environment",
        )
    return place


def opened(
    url: str, options: Mapping[str, str], *, connect_seconds: float, seconds: float, prefix: str | None = None
) -> Any:
    """The driver's store; nothing is connected yet.

    Args:
        url: of the bucket.
        options: the driver's.
        connect_seconds: how long a connection may take.
        seconds: how long a request may take.
        prefix: what all names begin with.
    """
    parts, given = urlsplit(url), dict(options)
    plain = given.pop("allow_http", "").lower() == "true" or given.get("endpoint", "").startswith("http://")
    return _STORES[parts.scheme](
        parts.netloc,
        prefix=prefix,
        config=given,
        client_options={
            "allow_http": plain,
            "connect_timeout": timedelta(seconds=connect_seconds),
            "timeout": timedelta(seconds=seconds),
        },
        retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=3 * connect_seconds)},
    )
