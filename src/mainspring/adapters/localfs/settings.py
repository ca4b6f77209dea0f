"""Settings of the local object store."""

import msgspec

__all__ = ["LocalSettings"]


class LocalSettings(msgspec.Struct, frozen=True):
    """Where the folder is: ``file:///absolute/path``; ``objects`` in the app's state folder when left out."""

    url: str | None = None
