"""Settings of the LMDB online store."""

import msgspec

__all__ = ["LmdbSettings"]


class LmdbSettings(msgspec.Struct, frozen=True):
    """Where the file is, and how large it starts.

    Attributes:
        url: ``lmdb:///absolute/folder``; ``online`` in the app's state folder when left out.
        map_size: bytes of address space at first; it doubles when full.
    """

    url: str | None = None
    map_size: int = 1 << 28
