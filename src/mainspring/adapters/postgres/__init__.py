"""Postgres: the catalog, sources, the online store, the manifest of indexes, threads, budgets."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER", "BUDGETS", "CATALOG", "MANIFEST", "ONLINE", "SOURCE"]

ADAPTER = Adapter(
    port="threads",
    name="postgres",
    factory="mainspring.adapters.postgres.threads:open_threads",
    settings="mainspring.adapters.postgres.settings:PostgresSettings",
    schemes=("postgresql", "postgres"),
    modules=("psycopg", "psycopg_pool", "langgraph.checkpoint.postgres"),
    extra="postgres",
    capabilities={"replicas": 64, "network_disk": True},
)

BUDGETS = Adapter(
    port="budgets",
    name="postgres",
    factory="mainspring.adapters.postgres.budgets:open_budgets",
    settings="mainspring.adapters.postgres.settings:PostgresSettings",
    schemes=("postgresql", "postgres"),
    modules=("psycopg",),
    extra="postgres",
    capabilities={"replicas": 64, "network_disk": True},
)

CATALOG = Adapter(
    port="catalog",
    name="postgres",
    factory="mainspring.adapters.postgres.catalog.store:open_catalog",
    settings="mainspring.adapters.postgres.settings:CatalogSettings",
    schemes=("postgresql", "postgres"),
    modules=("psycopg",),
    extra="postgres",
    capabilities={"replicas": 64, "network_disk": True},
)

MANIFEST = Adapter(
    port="manifest",
    name="postgres",
    factory="mainspring.adapters.postgres.manifest:open_manifest",
    settings="mainspring.adapters.postgres.settings:PostgresSettings",
    schemes=("postgresql", "postgres"),
    modules=("psycopg", "psycopg_pool"),
    extra="postgres",
    capabilities={"replicas": 64, "network_disk": True},
)

ONLINE = Adapter(
    port="online",
    name="postgres",
    factory="mainspring.adapters.postgres.online_store:open_store",
    settings="mainspring.adapters.postgres.settings:PostgresSettings",
    schemes=("postgresql", "postgres"),
    modules=("psycopg",),
    extra="postgres",
    capabilities={"max_key": 2000, "max_value": 1 << 30, "expiry": False, "replicas": 64, "network_disk": True},
)

SOURCE = Adapter(
    port="source",
    name="postgres",
    factory="mainspring.adapters.postgres.source:open_source",
    settings="mainspring.ports.source:SourceSettings",
    schemes=("postgresql", "postgres"),
    modules=("adbc_driver_postgresql", "psycopg", "pyarrow"),
    extra="postgres",
    capabilities={"reads": "relation"},
)
