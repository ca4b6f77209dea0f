"""A Kubernetes API server, as targets use it: server-side apply, and reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

__all__ = ["Applied", "Cluster", "Kind", "Object"]

Object = dict[str, Any]
"""An object of the API, as its JSON."""


class Kind(NamedTuple):
    """A kind as requests name it."""

    version: str
    """Group and version: ``apps/v1``, ``v1``."""
    kind: str
    """``Deployment``."""
    plural: str
    """``deployments``."""


class Applied(NamedTuple):
    """What a server-side apply came to."""

    object: Object | None
    """What the object is, or with a dry run would be; None when it was refused."""
    conflicts: Sequence[str] = ()
    """Why it was refused: ``spec.replicas is kubectl's``."""
    refused: str = ""
    """What the server says is wrong with the object."""


class Cluster(Protocol):
    """A namespace of a cluster; every call raises ServiceError MS-2730 to MS-2734 when the server does not do it."""

    @property
    def namespace(self) -> str:
        """The namespace that is worked in."""

    def version(self) -> tuple[int, int]:
        """The server's version: ``(1, 30)``."""

    def clock(self) -> float | None:
        """The server's time now, in seconds since 1970 and to a second; None when it does not say."""

    def groups(self) -> frozenset[str]:
        """The groups of kinds that the server knows: ``apps``, ``metrics.k8s.io``."""

    def kind(self, version: str, kind: str) -> Kind | None:
        """A kind, or None when the server does not know it."""

    def get(self, kind: Kind, name: str) -> Object | None:
        """An object, or None when there is none of that name."""

    def list(self, kind: Kind, labels: str = "") -> Sequence[Object]:
        """The objects with these labels, by name."""

    def apply(self, kind: Kind, item: Object, *, dry_run: bool = False, force: bool = False) -> Applied:
        """Server-side apply; a dry run writes nothing."""

    def create(self, kind: Kind, item: Object) -> Object | None:
        """Create an object; None when there is one already."""

    def replace(self, kind: Kind, item: Object) -> Object | None:
        """Write an object if it is still of its ``resourceVersion``; None when it is not."""

    def delete(self, kind: Kind, name: str, uid: str = "") -> bool:
        """Delete an object, and in the background what it owns; whether there was one (of that uid)."""

    def log(self, pod: str, container: str, lines: int) -> Sequence[str]:
        """The last lines that a container wrote; of the one before, if it has just been started again."""

    def may(self, verb: str, group: str, plural: str) -> bool:
        """Whether the user may do that in the namespace."""

    def close(self) -> None:
        """Close the connections."""
