"""Settings of the SQLite catalog."""

from typing import Annotated

import msgspec

__all__ = ["SqliteSettings"]


class SqliteSettings(msgspec.Struct, frozen=True):
    """Where the file is, and how long to wait for another writer.

    Attributes:
        url: ``sqlite:///absolute/path``; ``catalog.db`` in the app's state folder when left out.
        busy_seconds: how long a write waits for another process.
        allow_network_disk: trust a network or synced folder with the file; its locks are known to fail.
    """

    url: str | None = None
    busy_seconds: Annotated[float, msgspec.Meta(ge=0)] = 15.0
    allow_network_disk: bool = False
