"""Whether the cluster answers, and what it has."""

from __future__ import annotations

from mainspring.adapters.ray.compute import RayCompute

__all__ = ["health"]


def health(compute: RayCompute) -> dict[str, object]:
    """Its nodes and cores; raises as `RayCompute.map` does when it cannot be reached."""
    return compute.size()
