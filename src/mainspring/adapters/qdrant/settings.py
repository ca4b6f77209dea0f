"""Settings of a Qdrant server."""

from typing import Annotated

import msgspec

__all__ = ["QdrantSettings"]


class QdrantSettings(msgspec.Struct, frozen=True):
    """Where the server is.

    Attributes:
        url: ``qdrant://host:6333``, ``qdrants://host`` over TLS, or ``https://...``.
        api_key: the server's key, as a reference to a secret; beyond one machine only over ``qdrants://``.
        grpc_port: port of its gRPC interface, which is then used for points; 0 uses REST.
        timeout: seconds that a call may take.
        build_timeout: seconds that `optimize` waits for the server's own optimiser.
        m: edges of a node of the graph.
        ef_construct: candidates looked at for each new node.
    """

    url: str = "qdrant://127.0.0.1:6333"
    api_key: str | None = None
    grpc_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    timeout: Annotated[int, msgspec.Meta(ge=1)] = 30
    build_timeout: Annotated[float, msgspec.Meta(gt=0)] = 21_600.0
    m: Annotated[int, msgspec.Meta(ge=4, le=128)] = 16
    ef_construct: Annotated[int, msgspec.Meta(ge=8, le=2048)] = 100
