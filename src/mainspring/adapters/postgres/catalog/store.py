"""The metadata store in one schema of a database."""

from __future__ import annotations

from pathlib import Path

import psycopg
from psycopg.sql import SQL, Identifier

from mainspring.adapters.postgres.catalog.entities import EntityTables
from mainspring.adapters.postgres.catalog.events import EventTables
from mainspring.adapters.postgres.catalog.monitoring import MonitoringTables
from mainspring.adapters.postgres.catalog.runs import RunTables
from mainspring.adapters.postgres.catalog.schema import TABLES, UPGRADES, VERSION
from mainspring.adapters.postgres.connections import Connections
from mainspring.adapters.postgres.problems import newer_schema
from mainspring.adapters.postgres.settings import CatalogSettings

__all__ = ["PostgresCatalog", "open_catalog"]

_LOCK = 0x636174616C6F67  # "catalog": one process makes the tables


class PostgresCatalog(RunTables, EntityTables, EventTables, MonitoringTables):
    """Implements `mainspring.ports.catalog.Catalog` for any number of replicas, threads and forked children.

    Args:
        settings: where it is.

    Attributes:
        database: the connections to it.

    Raises:
        ServiceError: MS-4201, it does not answer; MS-4202, it does not allow that.
        StoreError: MS-4204, a newer Mainspring has written it.
    """

    def __init__(self, settings: CatalogSettings) -> None:
        self.database = Connections(settings, "catalog", settings.schema)
        try:
            if self._version() != VERSION:
                self._prepare(settings.schema)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close this process's connections; the next use opens them again."""
        self.database.close()

    def _version(self) -> int:
        """The version of the tables; 0 where there are none.

        Raises:
            StoreError: MS-4204, it is newer than this program.
        """
        try:
            row = self.read("select version from catalog_schema")
        except psycopg.errors.UndefinedTable:
            return 0
        found = int(row[0][0]) if row else 0
        if found > VERSION:
            raise newer_schema(found, VERSION, self.database.place)
        return found

    def _prepare(self, schema: str) -> None:
        """Make the tables, or bring them up to date; one process at a time."""
        with self.write() as cursor:
            cursor.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
            cursor.execute(SQL("create schema if not exists {}").format(Identifier(schema)))
            cursor.execute("create table if not exists catalog_schema (version integer not null)")
            row = cursor.execute("select version from catalog_schema").fetchone()
            found = int(row[0]) if row else 0  # somebody may have been first while we waited for the lock
            upgrades = [step for version in range(found, VERSION) for step in UPGRADES.get(version, ())]
            for statement in upgrades if found else TABLES:
                cursor.execute(statement)
            cursor.execute("delete from catalog_schema")
            cursor.execute("insert into catalog_schema values (%s)", (VERSION,))


def open_catalog(settings: CatalogSettings, state: Path) -> PostgresCatalog:
    """The catalog in the database that ``catalog.url`` names; its tables are made when they are not there.

    Raises:
        ServiceError, StoreError: as `PostgresCatalog`.
    """
    return PostgresCatalog(settings)
