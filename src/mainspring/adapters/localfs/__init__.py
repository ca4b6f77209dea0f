"""Blobs in a local folder, by content."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="objects",
    name="localfs",
    factory="mainspring.adapters.localfs.objects:open_objects",
    settings="mainspring.adapters.localfs.settings:LocalSettings",
    embedded=True,
    schemes=("file",),
    capabilities={"replicas": 1, "paths": True},
)
