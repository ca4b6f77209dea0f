"""Settings of a Ray cluster."""

from typing import Annotated

import msgspec

__all__ = ["RaySettings"]


class RaySettings(msgspec.Struct, frozen=True):
    """Which cluster, and how much of it.

    Attributes:
        url: ``ray://host:6379``, the cluster's own address; this machine is one of its nodes.
        cpus: cores that each part takes.
        memory: bytes of memory that each part is said to take, so that a node is not given too many; 0 is unknown.
        tries: how often a part is carried out when the machine that has it is lost.
        connect_timeout: seconds that the cluster's address may take to answer.
        waiting: parts that are handed out at a time, for each core of the cluster.
    """

    url: str
    cpus: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    memory: Annotated[int, msgspec.Meta(ge=0)] = 0
    tries: Annotated[int, msgspec.Meta(ge=1, le=20)] = 4
    connect_timeout: Annotated[float, msgspec.Meta(gt=0)] = 10.0
    waiting: Annotated[int, msgspec.Meta(ge=1, le=16)] = 2
