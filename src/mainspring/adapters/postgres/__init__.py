"""Postgres: threads of assistants with their checkpoints, and the manifest of indexes."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER", "MANIFEST"]

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
