"""Settings of zvec."""

from typing import Annotated

import msgspec

__all__ = ["ZvecSettings"]


class ZvecSettings(msgspec.Struct, frozen=True):
    """How much of the machine it may use; the threads are those of the first store that a process opens.

    Attributes:
        search_threads: threads of searches; 0 is one a core.
        build_threads: threads that build graphs; 0 is one a core.
        m: edges of a node of the graph.
        ef_construct: candidates looked at for each new node.
    """

    search_threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    build_threads: Annotated[int, msgspec.Meta(ge=0)] = 0
    m: Annotated[int, msgspec.Meta(ge=4, le=128)] = 16
    ef_construct: Annotated[int, msgspec.Meta(ge=8, le=2048)] = 100
