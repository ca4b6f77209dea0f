"""Settings of the LMDB online store."""

from typing import Annotated

import msgspec

__all__ = ["LmdbSettings"]


class LmdbSettings(msgspec.Struct, frozen=True):
    """Where the file is, and how large it starts.

    Attributes:
        url: ``lmdb:///absolute/folder``; ``online`` in the app's state folder when left out.
        map_size: bytes of address space at first, at least 1 MiB; it doubles when full.
    """

    url: str | None = None
    map_size: Annotated[int, msgspec.Meta(ge=1 << 20)] = 1 << 28
