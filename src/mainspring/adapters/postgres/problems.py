"""Postgres's errors turned into cause and remedy."""

from __future__ import annotations

import re

import psycopg
from psycopg_pool import PoolTimeout

from mainspring.errors import ConfigError, DataError, MainspringError, ServiceError, StoreError
from mainspring.ports.source import Relation

__all__ = ["busy", "newer_schema", "source_turned", "turned", "unfit"]

_SHUT = re.compile(r"authentication failed|no pg_hba.conf entry|no password supplied|(role|database) .* does not exist")
"""What a server says that lets nobody in; libpq tells no SQLSTATE then."""

_LAYERS = re.compile(r"^(NOT_FOUND: |Failed to prepare query: |\[libpq\] |Execution error \[\w+\]: )+")
"""What the layers between put before the server's words."""


def _midway(text: str) -> str:
    """The SQLSTATE of an error that broke off a stream of rows, where ADBC tells the server's words alone."""
    if "canceling statement" in text:
        return "57014"
    return "22000" if "PGRES_FATAL_ERROR]: ERROR:" in text else ""


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


def busy(place: str, port: str) -> ServiceError:
    """All connections are in use, and none came back in time."""
    return ServiceError(
        "Postgres has no connection free",
        code="MS-4205",
        why=f"all of {port}.connections are in use",
        origin=place,
        fix=f"raise {port}.connections, or ask less at once",
    )


def newer_schema(found: int, known: int, place: str) -> StoreError:
    """The tables were written by a newer Mainspring."""
    return StoreError(
        f"the catalog has schema {found}, and this Mainspring knows {known}",
        code="MS-4204",
        why="a newer version has written it",
        origin=place,
        fix="upgrade Mainspring, or name another schema: catalog.schema",
    )


def unfit(error: Exception) -> ConfigError:
    """A URL that is none, or an option that libpq does not have; libpq's words hold no value of it."""
    option = re.search(r'invalid (?:connection|URI query) (?:option|parameter):? "?([\w.]+)"?', str(error))
    return ConfigError(
        "the url or the options of a source in Postgres are none",
        code="MS-3042",
        why=f"libpq knows no {option[1]}" if option else "libpq cannot read them",
        origin="sources.NAME.url, sources.NAME.options",
        fix="write postgresql://user@host:5432/database, and libpq's own options",
    )


def source_turned(error: Exception, place: str, of: Relation | None) -> MainspringError:
    """What went wrong while a source was read, by the server's SQLSTATE."""
    text = str(error).strip().partition("\n")[0]
    state = str(getattr(error, "sqlstate", None) or _midway(text))
    text = _LAYERS.sub("", text)
    source = "a source" if of is None else f"source {of.source!r}"
    if state == "57014":
        return ServiceError(
            f"Postgres took too long to read {source}",
            code="MS-4222",
            why=text,
            origin=place,
            fix="raise sources.NAME.timeout, or give it a cursor that has an index",
        )
    if state[:2] in ("28", "3D") or state == "42501" or (not state and _SHUT.search(text)):
        return ServiceError(
            f"Postgres does not let this user read {source}",
            code="MS-4221",
            why=text,
            origin=place,
            fix="look at the user, the password and the database in sources.NAME.url, and grant select",
        )
    if of is not None and state[:2] in ("0A", "21", "22", "25", "3F", "42"):
        return DataError(
            f"{of} of source {of.source!r} cannot be read",
            code="MS-2150",
            why=text,
            origin=of.origin,
            fix="correct it; Postgres says why",
        )
    return ServiceError(
        f"Postgres does not answer for {source}",
        code="MS-4220",
        why=text or type(error).__name__,
        origin=place,
        fix="look whether it runs, and at the address in sources.NAME.url",
    )
