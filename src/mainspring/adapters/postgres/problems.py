"""Postgres's errors turned into cause and remedy."""

from __future__ import annotations

import psycopg
from psycopg_pool import PoolTimeout

from mainspring.errors import ServiceError

__all__ = ["turned"]


def turned(error: psycopg.Error, place: str, port: str) -> ServiceError | psycopg.Error:
    """The error as people should see it; programming errors stay what they are."""
    text = str(error).strip()
    if isinstance(error, PoolTimeout):
        return ServiceError(
            "Postgres does not answer",
            code="MS-4201",
            why=text,
            origin=place,
            fix=f"start it, look at the address and the password, or raise {port}.connections",
        )
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return ServiceError(
            "Postgres does not let this user do that",
            code="MS-4202",
            why=text,
            origin=place,
            fix="grant the user create and write on its schema",
        )
    if isinstance(error, psycopg.errors.QueryCanceled):
        return ServiceError(
            "Postgres took too long", code="MS-4203", why=text, origin=place, fix=f"raise {port}.statement_seconds"
        )
    if isinstance(error, psycopg.OperationalError):
        return ServiceError(
            "Postgres cannot be reached, or has ended the connection",
            code="MS-4201",
            why=text,
            origin=place,
            fix="look whether it runs and has room, then try again",
        )
    return error
