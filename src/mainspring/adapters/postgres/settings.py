"""Settings of Postgres."""

from typing import Annotated

import msgspec

__all__ = ["CatalogSettings", "PostgresSettings"]


class PostgresSettings(msgspec.Struct, frozen=True):
    """Where the server is, and how it is spoken to.

    Attributes:
        url: ``postgresql://user@host/database``, or a secret reference to it.
        connections: most that are open at once.
        connect_seconds: how long a connection may take.
        statement_seconds: how long a statement may take.
    """

    url: str
    connections: Annotated[int, msgspec.Meta(ge=1)] = 8
    connect_seconds: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    statement_seconds: Annotated[float, msgspec.Meta(gt=0)] = 30.0


class CatalogSettings(PostgresSettings, frozen=True):
    """Where the catalog is.

    Attributes:
        schema: the schema of the database that holds its tables; each app has its own.
    """

    schema: Annotated[str, msgspec.Meta(pattern="^[a-z_][a-z0-9_]{0,62}$")] = "mainspring"
