"""Settings of what is kept in Redis."""

from typing import Annotated

import msgspec

__all__ = ["RedisSettings"]

_Seconds = Annotated[float, msgspec.Meta(gt=0)]


class RedisSettings(msgspec.Struct, frozen=True):
    """Where the server is, and how it is spoken to.

    Attributes:
        url: ``redis://user:password@host:6379/0``, ``rediss://`` with TLS, ``unix:///path/to.sock``; the password as a
            reference to a secret. One server or a primary with replicas, no cluster: a batch is one script over all
            its keys.
        prefix: what every key begins with, so that several projects may share a server.
        connections: most connections of this process.
        connect_timeout: seconds that connecting may take.
        timeout: seconds that an answer may take.
    """

    url: str
    prefix: Annotated[str, msgspec.Meta(min_length=1, max_length=100)] = "mainspring:"
    connections: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 64
    connect_timeout: _Seconds = 5.0
    timeout: _Seconds = 10.0
