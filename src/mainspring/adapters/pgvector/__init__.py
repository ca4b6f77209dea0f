"""Vectors in Postgres with pgvector: half-precision HNSW, its own full text, many readers and writers."""

from mainspring.ports.adapter import Adapter

__all__ = ["ADAPTER"]

ADAPTER = Adapter(
    port="vectors",
    name="pgvector",
    factory="mainspring.adapters.pgvector.vector_store:open_store",
    settings="mainspring.adapters.pgvector.settings:PgvectorSettings",
    schemes=("postgresql", "postgres"),
    modules=("psycopg", "psycopg_pool", "pgvector", "numpy"),
    extra="postgres",
    capabilities={"full_text": "rank", "sparse": False, "writers": "many", "durability": "power_loss"},
)
