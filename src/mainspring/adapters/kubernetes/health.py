"""Whether the cluster answers."""

from __future__ import annotations

from mainspring.ports.cluster import Cluster

__all__ = ["health"]


def health(cluster: Cluster) -> dict[str, object]:
    """Its version, and the namespace that is worked in; raises as the cluster does when it cannot."""
    major, minor = cluster.version()
    return {"version": f"{major}.{minor}", "namespace": cluster.namespace}
