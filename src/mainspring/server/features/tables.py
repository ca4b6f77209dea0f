"""The tables of a project: who reads each, and removing what nothing does."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping

import msgspec

from mainspring.choose.services import Services
from mainspring.errors import ConfigError, RefusedError, UsageError
from mainspring.features.logs.log import PUSH_MARK, SourceTable, newest
from mainspring.features.logs.tidy import pinned_versions
from mainspring.features.view import View
from mainspring.features.wal.commit import commit_waiting, logs_there, retire
from mainspring.plan.graph import Plan
from mainspring.ports.tables import TableStore
from mainspring.server.features.sweeping import reads_answering

__all__ = ["KeptTable", "drop_tables", "tables_kept", "unread_tables"]

_OURS = ("source/", "feature_view/", "quarantine/")
"""What is made from what an app declares; other tables are answers on record, which no definition makes stale."""
_CARRIED = "carried"


class KeptTable(msgspec.Struct, frozen=True):
    """A table that is there.

    Attributes:
        name: its name, as `mainspring tables drop` takes it.
        rows: how many stand in it; in one of rows that were set aside, how many those are.
        files: of how many its newest version is made.
        bytes: how large those are; None in an object store.
        read_by: who reads it: ``app``, or ``model NAME``.
        training_sets: how many versions of it training sets were made from, which could not be made again without.
        pushed: whether rows were pushed to it that are in no other table.
    """

    name: str
    rows: int
    files: int
    bytes: int | None
    read_by: tuple[str, ...]
    training_sets: int
    pushed: bool

    @property
    def unread(self) -> bool:
        """Whether nothing that is declared or answers reads it."""
        return not self.read_by


def tables_kept(
    services: Services, plan: Plan, views: Mapping[str, View], sources: Mapping[str, SourceTable]
) -> list[KeptTable]:
    """All tables, by name; nothing is written.

    Args:
        services: the project's ports.
        plan: the app's graph.
        views: its views.
        sources: its sources.

    Raises:
        StoreError: as the table store raises.
    """
    tables, pins = services.tables, pinned_versions(services.catalog)
    readers = _readers(services, plan, views, sources)
    found = []
    for name in tables.tables():
        paths = tables.files(name)
        read_by = tuple(sorted(readers.get(name, ()))) if name.startswith(_OURS) else ("app",)
        pushed = _has_pushes(tables, sources, name)
        found.append(
            KeptTable(name, _rows(tables, name), len(paths), _size(paths), read_by, len(pins.get(name, ())), pushed)
        )
    return found


def unread_tables(
    services: Services, plan: Plan, views: Mapping[str, View], sources: Mapping[str, SourceTable]
) -> tuple[str, ...]:
    """The names of tables that nothing reads; quick, for none is opened. None where the profile has no tables."""
    try:
        tables = services.tables
    except ConfigError:
        return ()
    readers = _readers(services, plan, views, sources)
    return tuple(name for name in tables.tables() if name.startswith(_OURS) and name not in readers)


def drop_tables(
    services: Services,
    plan: Plan,
    views: Mapping[str, View],
    sources: Mapping[str, SourceTable],
    names: tuple[str, ...],
    *,
    force: bool = False,
) -> list[KeptTable]:
    """Remove tables that nothing reads, with their history; none of them when one must stay.

    Args:
        services: the project's ports.
        plan: the app's graph.
        views: its views.
        sources: its sources.
        names: of the tables; none for all that nothing reads, that no training set is made from, and that hold no
            pushed rows which are nowhere else.
        force: remove also what a training set was made from, and pushed rows that are nowhere else.

    Raises:
        UsageError: MS-2802, there is no such table.
        RefusedError: MS-2803, it is read; MS-2804, it cannot be made again.
        StoreError: as the table store raises.
    """
    tables = services.tables
    tables.claim()
    there = {one.name: one for one in tables_kept(services, plan, views, sources)}
    if names:
        wanted = [_known(there, name) for name in dict.fromkeys(names)]
        for one in wanted:
            _may_go(one, force)
    else:
        wanted = [one for one in there.values() if one.unread and not (one.training_sets or one.pushed)]
    # One whose name is the beginning of another's is the folder around it.
    for one in sorted(wanted, key=lambda one: one.name, reverse=True):
        inside = [name for name in tables.tables(one.name) if name != one.name]
        if inside:
            raise RefusedError(
                f"table {one.name} stays",
                code="MS-2803",
                why=f"{inside[0]} lies in its folder",
                fix="remove that one first, if nothing reads it",
            )
        _drop(tables, one.name)
    return wanted


# -- who reads --------------------------------------------------------------------------------------------------------


def _readers(
    services: Services, plan: Plan, views: Mapping[str, View], sources: Mapping[str, SourceTable]
) -> Mapping[str, set[str]]:
    """Who reads each table, by its name."""
    found: dict[str, set[str]] = defaultdict(set)
    declared: list[View | SourceTable] = [*views.values(), *sources.values()]
    for one in declared:
        found[one.log].add("app")
        found[one.quarantine].add("app")
    for node in plan.of_kind("model"):
        for reads in reads_answering(services.catalog, node.name):
            for pick in reads.selection.picks:
                found[pick.view.log].add(f"model {node.name}")
                found[pick.view.quarantine].add(f"model {node.name}")
    return found


def _has_pushes(tables: TableStore, sources: Mapping[str, SourceTable], name: str) -> bool:
    """Whether rows were pushed to a source's log that have not passed on to the log of the source as it is now."""
    through = tables.mark(name, PUSH_MARK) if name.startswith("source/") else None
    if through is None:
        return any(log.head is not None and log.head.log == name for log in logs_there(tables))
    now = sources.get(name.removeprefix("source/").rpartition("/")[0])
    if now is None or now.log == name:
        return True
    carried = tables.mark(now.log, f"{_CARRIED}/{name.rpartition('/')[2]}")
    return carried is None or carried < through


def _rows(tables: TableStore, name: str) -> int:
    known = newest(tables, name)
    return sum(commit.rows for commit in tables.commits(name)) if known is None else known.rows


def _size(paths: tuple[str, ...]) -> int | None:
    try:
        return sum(os.path.getsize(path) for path in paths)
    except OSError:  # URLs of an object store
        return None


# -- removing ---------------------------------------------------------------------------------------------------------


def _known(there: Mapping[str, KeptTable], name: str) -> KeptTable:
    if name not in there:
        raise UsageError(f"there is no table {name!r}", code="MS-2802", fix="mainspring tables lists them")
    return there[name]


def _may_go(one: KeptTable, force: bool) -> None:
    if one.read_by:
        raise RefusedError(
            f"table {one.name} stays",
            code="MS-2803",
            why=f"it is read by {', '.join(one.read_by)}",
            fix="remove what reads it first: from the app, or promote a version that does not read it",
        )
    why = []
    if one.training_sets:
        why.append(f"training sets were made from {one.training_sets:,} of its versions")
    if one.pushed:
        why.append("rows were pushed to it that are nowhere else")
    if why and not force:
        raise RefusedError(
            f"what table {one.name} holds cannot be made again",
            code="MS-2804",
            why=", and ".join(why),
            fix="if it may be lost, add --force",
        )


def _drop(tables: TableStore, name: str) -> None:
    """Remove a table, and what lies beside it; what waits for it in the log of pushes goes with it."""
    with tables.writing(name):
        for log in logs_there(tables):
            if log.head is not None and log.head.log == name:
                commit_waiting(tables, log)
                retire(tables, log)
        tables.drop(name)
        beside = [*tables.beside(f"_wal/{name}").glob("*"), tables.beside(f"_tidied/{name}")]
        for file in beside:  # folders are of other tables
            if file.is_file():
                file.unlink()
