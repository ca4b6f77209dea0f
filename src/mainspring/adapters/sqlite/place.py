"""Where a file is, with the folder made for it."""

from __future__ import annotations

from pathlib import Path

from mainspring.adapters.sqlite.settings import SqliteSettings
from mainspring.errors import StoreError

__all__ = ["place_of"]


def place_of(settings: SqliteSettings, default: Path) -> Path:
    """The file that the settings name, or the default one.

    Raises:
        StoreError: MS-4111, its folder cannot be made.
    """
    path = default if settings.url is None else Path("/" + settings.url.partition("://")[2].lstrip("/"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            "the state folder cannot be made",
            code="MS-4111",
            why=str(error.strerror),
            origin=path.parent.name,
            fix="make the project's folder writable",
        ) from error
    return path
