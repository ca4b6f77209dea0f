"""Postgres: threads of assistants and their checkpoints."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

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
