"""The catalog and the manifest of indexes, each in one SQLite file, through the standard library."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER", "MANIFEST"]

ADAPTER = Adapter(
    port="catalog",
    name="sqlite",
    factory="mainspring.adapters.sqlite.catalog:open_catalog",
    settings="mainspring.adapters.sqlite.settings:SqliteSettings",
    embedded=True,
    schemes=("sqlite",),
    modules=("sqlite3",),
    extra="",
    capabilities={"replicas": 1, "network_disk": False},
)

MANIFEST = Adapter(
    port="manifest",
    name="sqlite",
    factory="mainspring.adapters.sqlite.manifest:open_manifest",
    settings="mainspring.adapters.sqlite.settings:SqliteSettings",
    embedded=True,
    schemes=("sqlite",),
    modules=("sqlite3",),
    extra="",
    capabilities={"replicas": 1, "network_disk": False},
)
