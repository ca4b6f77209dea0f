"""Whether the server answers."""

from __future__ import annotations

from typing import Protocol

from mainspring.adapters.postgres.connections import Connections
from mainspring.adapters.postgres.database import Database
from mainspring.ports.online import OnlineStore

__all__ = ["health"]


class InPostgres(Protocol):
    """What is kept there."""

    @property
    def database(self) -> Database | Connections:
        """The connections."""


def health(opened: InPostgres | OnlineStore) -> dict[str, object]:
    """That it answers; raises as a read does when it cannot."""
    if isinstance(opened, OnlineStore):
        return {"answers": opened.get_many([b""]) == [None]}
    with opened.database.connection() as connection:
        connection.execute("select 1")
    return {"answers": True}
