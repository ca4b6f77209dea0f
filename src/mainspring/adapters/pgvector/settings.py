"""Settings of the vectors in Postgres."""

from typing import Annotated

import msgspec

__all__ = ["PgvectorSettings"]


class PgvectorSettings(msgspec.Struct, frozen=True):
    """Where the database is, and how much of it is used.

    Attributes:
        url: ``postgresql://user:password@host/database``; the password as a reference to a secret.
        schema: the schema of the tables, made when it is not there.
        connections: most connections of this process.
        timeout: seconds that a search or a write may take, and that a call waits for a free connection.
        connect_timeout: seconds that connecting may take.
        build_timeout: seconds that building the graph may take.
        m: edges of a node of the graph.
        ef_construct: candidates looked at for each new node.
    """

    url: str = "postgresql://"
    schema: Annotated[str, msgspec.Meta(pattern="^[a-z_][a-z0-9_]{0,40}$")] = "mainspring_vectors"
    connections: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 8
    timeout: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    connect_timeout: Annotated[int, msgspec.Meta(ge=1)] = 10
    build_timeout: Annotated[float, msgspec.Meta(gt=0)] = 21_600.0
    m: Annotated[int, msgspec.Meta(ge=2, le=100)] = 16
    ef_construct: Annotated[int, msgspec.Meta(ge=4, le=1000)] = 100
