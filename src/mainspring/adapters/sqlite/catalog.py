"""The catalog port on SQLite."""

from __future__ import annotations

from pathlib import Path

from mainspring.adapters.sqlite.connection import Connections, Fault
from mainspring.adapters.sqlite.entities import EntityTables
from mainspring.adapters.sqlite.events import EventTables
from mainspring.adapters.sqlite.monitoring import MonitoringTables
from mainspring.adapters.sqlite.place import place_of
from mainspring.adapters.sqlite.runs import RunTables
from mainspring.adapters.sqlite.schema import catalog_schema
from mainspring.adapters.sqlite.settings import SqliteSettings

__all__ = ["SqliteCatalog", "open_catalog"]


_DEFAULTS = SqliteSettings()


class SqliteCatalog(RunTables, EntityTables, EventTables, MonitoringTables):
    """The metadata store in one file. Threads and forked children each get their own connection."""

    def __init__(self, path: Path, settings: SqliteSettings = _DEFAULTS, fault: Fault = lambda point: None) -> None:
        self._db = Connections(path, settings, schema=catalog_schema(), fault=fault)
        self.path = path

    def close(self) -> None:
        """Close this process's connections."""
        self._db.close()


def open_catalog(settings: SqliteSettings, place: Path) -> SqliteCatalog:
    """The catalog that the settings name, or ``catalog.db`` in the state folder.

    Raises:
        StoreError: MS-4101 disk full, MS-4111 not writable, MS-4112 locked, MS-4113 damaged, MS-4114 newer schema,
            MS-4115 on a network disk.
    """
    return SqliteCatalog(place_of(settings, place / "catalog.db"), settings)
