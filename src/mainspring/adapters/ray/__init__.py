"""Parts of history on a Ray cluster."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="compute",
    name="ray",
    factory="mainspring.adapters.ray.compute:open_compute",
    settings="mainspring.adapters.ray.settings:RaySettings",
    schemes=("ray",),
    modules=("ray",),
    extra="ray",
    capabilities={},
)
