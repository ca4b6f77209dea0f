"""Features as they were known at the moments of a spine: what training reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from mainspring.declare.data import did_you_mean
from mainspring.declare.frame import Frame
from mainspring.declare.record import ColumnType, FieldSpec, Kind
from mainspring.errors import DataError
from mainspring.features.cast import Reading, UnfitError, cast_column, misfit
from mainspring.features.duck import connection, scan
from mainspring.features.logs.log import TableVersion, noted
from mainspring.features.offline.asof import SPINE, spine_keys
from mainspring.features.offline.joined import Asked, Joined, join
from mainspring.features.offline.parts import join_apart
from mainspring.features.view import FeatureDef, Pick, View, arrow_type, log_schema
from mainspring.lazy import lazy
from mainspring.ports.compute import Compute
from mainspring.ports.tables import HasTables, TableStore

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
else:
    duckdb, np, pa = lazy("duckdb"), lazy("numpy"), lazy("pyarrow")

__all__ = ["ARITHMETIC", "KERNELS", "TableVersion", "history", "history_of"]

KERNELS = b"mainspring.kernels"
"""The key of the result's schema metadata that says which kernel answered each view: JSON."""

ARITHMETIC = 2
"""How answers are calculated, as a number: it is raised whenever the same rows may answer the same questions in other
bytes, be it in the last bits of a sum. 2: an entity that asks much is cut in time, which adds its floats in another
order."""

_RECENT = 64
_MOMENT = FieldSpec("at", ColumnType(Kind.TIMESTAMP))


def history(
    services: HasTables,
    inputs: Sequence[Pick | View],
    spine: Frame,
    *,
    time: str = "at",
    as_known: bool = True,
    names: Literal["short", "full"] = "short",
    status: bool = False,
    versions: Mapping[str, int | TableVersion] | None = None,
    compute: Compute | None = None,
) -> Frame:
    """The spine with the features of each of its rows, as of the moment in its `time` column.

    Every row comes back once, in order, with its own columns untouched. What a feature is at a moment is defined in
    `mainspring.features.offline.asof` (``last``) and `mainspring.features.windows.question` (windows).

    Args:
        services: where the table store is.
        inputs: views, or picks of some of their features.
        spine: one row a question: the views' key columns, the moment, anything else.
        time: the column with the moments: timestamps with a zone, at most microseconds fine.
        as_known: whether a row counts only from the moment it became known.
        names: ``short`` calls a column as the feature, ``full`` ``view__feature``.
        status: add ``view__status`` (``PRESENT``, ``EXPIRED``, ``MISSING``) and ``view__event_time`` for each view.
        versions: pinned versions of the views' logs by the name of the view; the newest when left out.
        compute: other machines, for questions that are more than one of `mainspring.features.offline.parts`.

    Raises:
        DataError: MS-2115, the spine lacks a column or has one of the wrong type; MS-2116, two columns would have one
            name; MS-2117, a total does not fit int64.
        StoreError: MS-4131, a view was never computed, or the pinned version is gone.
    """
    return history_of(services.tables, inputs, spine, time, as_known, names, status, versions or {}, compute)


def history_of(
    tables: TableStore,
    inputs: Sequence[Pick | View],
    spine: Frame,
    time: str,
    as_known: bool,
    names: Literal["short", "full"],
    status: bool,
    versions: Mapping[str, int | TableVersion],
    compute: Compute | None = None,
) -> Frame:
    """`history` on a table store."""
    table = spine.arrow()
    moments = _spine_column(table, FieldSpec(time, _MOMENT.type)).cast(pa.int64())
    picks = [item if isinstance(item, Pick) else Pick(item, item.features) for item in inputs]
    _names_differ(table, picks, names)
    answers: dict[str, Joined] = {}
    with connection(tables.limits) as opened:
        for view, features in _by_view(picks).items():
            pinned = versions.get(view.name)
            version = pinned.version if isinstance(pinned, TableVersion) else pinned
            note = pinned if isinstance(pinned, TableVersion) else _note(tables, view, version)
            narrow, files = _narrow(table, view, moments), tables.files(view.log, version)
            tidy, held = (False, 0) if note is None else (note.tidy, note.rows)
            asked = Asked(view, tuple(features), "", as_known, status, tidy, held, len(table))
            apart = None if compute is None else join_apart(compute, asked, files, tables.limits, narrow)
            if apart is not None:
                answers[view.name] = apart
                continue
            opened.register(SPINE, narrow)
            log = scan(opened, files, log_schema(view), "empty_log")
            answers[view.name] = join(opened, msgspec.structs.replace(asked, log=log))
    for item in picks:
        for feature in item.features:
            name = feature.name if names == "short" else f"{item.view.name}__{feature.name}"
            table = table.append_column(
                pa.field(name, arrow_type(feature.type)), answers[item.view.name].columns[feature.name]
            )
    if status:
        for name, found in answers.items():
            table = table.append_column(f"{name}__status", found.status())
            table = table.append_column(f"{name}__event_time", found.event)
    kernels = json.dumps({name: found.kernel for name, found in answers.items()})
    return Frame(table.replace_schema_metadata({**(table.schema.metadata or {}), KERNELS: kernels}))


def _note(tables: TableStore, view: View, version: int | None) -> TableVersion | None:
    """What a version of a log says of itself; the newest note at or before it holds for it."""
    for commit in tables.commits(view.log, _RECENT):
        found = noted(view.log, commit) if version is None or commit.version <= version else None
        if found is not None:
            return found
    return None


def _by_view(picks: Sequence[Pick]) -> dict[View, list[FeatureDef]]:
    grouped: dict[View, list[FeatureDef]] = {}
    for item in picks:
        wanted = grouped.setdefault(item.view, [])
        wanted.extend(feature for feature in item.features if feature not in wanted)
    return grouped


def _narrow(table: pa.Table, view: View, moments: pa.ChunkedArray) -> pa.Table:
    keys = [_spine_column(table, key, f"feature view {view.name!r} joins on it") for key in view.keys]
    names = ["rid", *spine_keys(len(keys)), "t"]
    return pa.table([pa.array(np.arange(len(table))), *keys, moments], names=names)


def _spine_column(table: pa.Table, field: FieldSpec, why: str = "it holds the moments") -> pa.ChunkedArray:
    if table.column_names.count(field.name) != 1:
        raise DataError(
            f"the spine has no column {field.name!r}",
            code="MS-2115",
            why=why,
            fix=did_you_mean(field.name, table.column_names),
        )
    column = table.column(field.name)
    try:
        return cast_column(column, field.type, Reading())
    except UnfitError as error:
        raise DataError(
            f"the spine's column {field.name!r} is no {field.type.kind.value}",
            code="MS-2115",
            why=misfit(column, field.type, error),
            fix="cast it before; times need a zone and at most microseconds",
        ) from error


def _names_differ(table: pa.Table, picks: Sequence[Pick], names: str) -> None:
    taken = dict.fromkeys(table.column_names, "the spine")
    for item in picks:
        for feature in item.features:
            name = feature.name if names == "short" else f"{item.view.name}__{feature.name}"
            if name in taken:
                raise DataError(
                    f"two columns would be called {name!r}",
                    code="MS-2116",
                    why=f"one is of {taken[name]}, one of feature view {item.view.name!r}",
                    fix='pass names="full", or leave one out',
                )
            taken[name] = f"feature view {item.view.name!r}"
