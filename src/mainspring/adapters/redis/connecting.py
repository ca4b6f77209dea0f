"""A client of Redis by its settings."""

from __future__ import annotations

from urllib.parse import urlsplit

import redis

from mainspring.adapters.redis.settings import RedisSettings

__all__ = ["client_of", "place_of"]


def place_of(settings: RedisSettings) -> str:
    """What errors call the server; no user and no password is in it."""
    parts = urlsplit(settings.url)
    return f"{parts.hostname}:{parts.port or 6379}" if parts.hostname else parts.path


def client_of(settings: RedisSettings) -> redis.Redis:
    """A client whose connections are bounded, and whose answers are waited for no longer than is set."""
    pool = redis.BlockingConnectionPool.from_url(
        settings.url,
        max_connections=settings.connections,
        timeout=settings.timeout,
        socket_connect_timeout=settings.connect_timeout,
        socket_timeout=settings.timeout,
        health_check_interval=30,
    )
    return redis.Redis(connection_pool=pool)
