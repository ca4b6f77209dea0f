"""The catalog in one SQLite file, through the standard library."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

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
