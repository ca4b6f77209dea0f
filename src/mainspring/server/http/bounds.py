"""What one client may take of a listener: sizes, counts and times."""

from __future__ import annotations

import resource

import msgspec

__all__ = ["Bounds"]

_OWN_FILES = 128
"""Open files that are not connections: models, logs, stores, upstreams."""


class Bounds(msgspec.Struct, frozen=True):
    """What one client may take.

    Attributes:
        body: bytes of a body as it is sent, its chunks' heads included.
        head: bytes of a request's line and headers together.
        headers: how many headers a request has.
        chunks: of a request's body.
        stall: seconds that a head may take; and that a body, or an answer that is not read, may take longer than at
            `rate`.
        rate: bytes a second below which a client is taken for one that wants to hold the connection.
        idle: seconds without a request after which a connection is closed.
        lingering: seconds in which what a refused client still sends is thrown away, so that it sees why.
        pipeline: requests of a connection that wait for their turn.
        connections: at once; further ones are answered with 503.
    """

    body: int
    head: int = 65_536
    headers: int = 128
    chunks: int = 65_536
    stall: float = 20.0
    rate: float = 256.0
    idle: float = 75.0
    lingering: float = 2.0
    pipeline: int = 256
    connections: int = 8192

    def connections_at_most(self) -> int:
        """Connections at once, of which there are never more than this process may open files."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return self.connections if soft == resource.RLIM_INFINITY else max(min(self.connections, soft - _OWN_FILES), 1)
