"""Whether the server answers."""

from __future__ import annotations

from typing import Protocol

from mainspring.adapters.postgres.database import Database

__all__ = ["health"]


class InPostgres(Protocol):
    """What is kept there."""

    @property
    def database(self) -> Database:
        """The connections."""


def health(opened: InPostgres) -> dict[str, object]:
    """That it answers; raises as a read does when it cannot."""
    with opened.database.connection() as connection:
        connection.execute("select 1")
    return {"answers": True}
