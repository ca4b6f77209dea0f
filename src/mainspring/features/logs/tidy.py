"""Keeping logs quick to read: small files put together, and files deleted that nothing can ask for any more.

Neither changes a row. Putting together makes a new version of the same content; deleting spares the files of every
version that a training set is pinned to, of the newest, and what became old only lately.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path

import msgspec

from mainspring.features.logs.log import TableVersion, newest
from mainspring.ports.catalog import Catalog
from mainspring.ports.tables import TableStore

__all__ = ["KEEP_DAYS", "pinned_versions", "tidy"]

KEEP_DAYS = 7.0
"""For how many days files stay that only old versions use, which nothing has pinned."""

_FEW = 8
"""Files that a log may have without anybody minding."""
_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US
_PINNING = "training_set"
_EVERY = 1 << 30


def pinned_versions(catalog: Catalog) -> Mapping[str, Set[int]]:
    """The versions of tables that recorded training sets were made from, by the table's name."""
    found: dict[str, set[int]] = {}
    for entity in catalog.entities(_PINNING, limit=_EVERY):
        for version in msgspec.convert(entity.spec["tables"], dict[str, TableVersion]).values():
            found.setdefault(version.table, set()).add(version.version)
    return found


def tidy(
    tables: TableStore,
    table: str,
    pins: Callable[[], Mapping[str, Set[int]]],
    *,
    now_us: int,
    keep_days: float = KEEP_DAYS,
) -> bool:
    """Put a log's small files together when there are many; once a day, delete what nothing can ask for.

    Each day it is noted which version was the newest. When a note is older than `keep_days`, files go that were no
    part of the table at that moment any more, save those of the version noted and of pinned ones: whatever was the
    newest version since can be read, by a run that began with it too.

    Rows that come meanwhile are not held up: a commit that another one was quicker than is tried again.

    Args:
        tables: the table store.
        table: the log's name.
        pins: the versions that stay readable for ever, by table: `pinned_versions` of the catalog.
        now_us: the present, in microseconds since 1970.
        keep_days: as `KEEP_DAYS`.

    Returns:
        Whether anything was done.
    """
    if tables.version(table) is None or len(tables.files(table)) < _FEW:
        return False
    done = tables.compact(table) is not None
    with tables.writing(f"{table}/tidy"):
        place = tables.beside(f"_tidied/{table}")
        notes = _read(place)
        if notes and now_us - notes[-1][0] < _DAY_US:
            return done
        old = [note for note in notes if note[0] <= now_us - keep_days * _DAY_US]
        if old:
            moment, version = old[-1]
            keep = {version, *pins().get(table, ())}
            tables.vacuum(table, keep=keep, retention_hours=(now_us - moment) / _HOUR_US)
        latest = newest(tables, table)
        if latest is not None:
            _write(place, [*old[-1:], *(note for note in notes if note not in old), (now_us, latest.version)])
    return True


_Note = tuple[int, int]
"""A moment in microseconds since 1970, and the version that was the newest then."""


def _read(place: Path) -> list[_Note]:
    try:
        return msgspec.json.decode(place.read_bytes(), type=list[_Note])
    except (FileNotFoundError, msgspec.DecodeError):
        return []


def _write(place: Path, notes: Sequence[_Note]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_suffix(".new")
    part.write_bytes(msgspec.json.encode(notes))
    os.replace(part, place)
