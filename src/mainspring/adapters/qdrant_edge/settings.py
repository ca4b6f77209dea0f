"""Settings of the embedded Qdrant engine."""

from typing import Annotated

import msgspec

__all__ = ["QdrantEdgeSettings"]


class QdrantEdgeSettings(msgspec.Struct, frozen=True):
    """How much of the machine it may use; the indexes are in ``indexes`` of the app's state folder.

    Attributes:
        search_threads: threads of one index's searches; 0 is one a core.
        build_threads: threads that build the graph; 0 is one a core.
        build_timeout: seconds that one build may take.
        m: edges of a node of the graph.
        ef_construct: candidates looked at for each new node.
    """

    search_threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    build_threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    build_timeout: Annotated[float, msgspec.Meta(gt=0)] = 21_600.0
    m: Annotated[int, msgspec.Meta(ge=4, le=128)] = 16
    ef_construct: Annotated[int, msgspec.Meta(ge=8, le=2048)] = 100
