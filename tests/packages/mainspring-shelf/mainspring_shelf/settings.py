"""Settings of the shelf."""

import msgspec

__all__ = ["ShelfSettings"]


class ShelfSettings(msgspec.Struct, frozen=True):
    """Where the file is.

    Attributes:
        url: ``shelf:///absolute/file``; ``shelf.db`` in the app's state folder when left out.
        patience: seconds that a write waits for another.
    """

    url: str | None = None
    patience: float = 30.0
