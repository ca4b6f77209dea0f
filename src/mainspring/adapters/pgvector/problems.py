"""Postgres' errors turned into cause and remedy; no URL and no password is in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainspring.errors import ServiceError
from mainspring.lazy import lazy

if TYPE_CHECKING:
    import psycopg
    import psycopg_pool
else:
    psycopg = lazy("psycopg")
    psycopg_pool = lazy("psycopg_pool")

__all__ = ["turned"]


def turned(error: Exception) -> Exception:
    """The error as people should see it; ours, and programming errors, stay what they are."""
    why = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    errors = psycopg.errors
    if isinstance(error, (errors.QueryCanceled, errors.LockNotAvailable)):
        return ServiceError(
            "Postgres took too long",
            code="MS-4266",
            why=why,
            origin="vectors.timeout",
            fix="raise vectors.timeout, or let mainspring build the index's graph: a table without it is read whole",
        )
    if isinstance(error, (errors.InsufficientPrivilege, errors.UndefinedFile, errors.FeatureNotSupported)):
        return ServiceError(
            "Postgres has no pgvector for this user",
            code="MS-4268",
            why=why,
            origin="vectors.url",
            fix="install pgvector 0.8 or newer, and run as its owner: CREATE EXTENSION vector",
        )
    if isinstance(error, errors.DiskFull):
        return ServiceError("the disk of Postgres is full", code="MS-4194", why=why, fix="free some space there")
    if isinstance(error, (psycopg_pool.PoolTimeout, psycopg_pool.PoolClosed, psycopg.OperationalError)):
        return ServiceError(
            "Postgres does not answer",
            code="MS-4265",
            why=why,
            origin="vectors.url",
            fix="start it, correct vectors.url, or allow more vectors.connections",
        )
    if isinstance(error, psycopg.Error):
        return ServiceError(
            "Postgres refuses", code="MS-4267", why=why, origin="vectors.url", fix="look at the log of Postgres"
        )
    return error
