"""The catalog, the manifest of indexes and the threads of assistants, each in one SQLite file."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER", "MANIFEST", "THREADS"]

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

THREADS = Adapter(
    port="threads",
    name="sqlite",
    factory="mainspring.adapters.sqlite.threads:open_threads",
    settings="mainspring.adapters.sqlite.settings:SqliteSettings",
    embedded=True,
    schemes=("sqlite",),
    modules=("sqlite3", "langgraph.checkpoint.sqlite"),
    extra="assistants",
    capabilities={"replicas": 1, "network_disk": False},
)
