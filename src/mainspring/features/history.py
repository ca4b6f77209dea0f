"""Features as they were known at the moments of a spine: what training reads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from mainspring.declare.data import did_you_mean
from mainspring.declare.frame import Frame
from mainspring.declare.record import ColumnType, FieldSpec, Kind
from mainspring.errors import DataError
from mainspring.features.asof import (
    HITS,
    MISSING,
    PRESENT,
    SPINE,
    STEPS,
    Shape,
    ask,
    gather_sql,
    hits_sql,
    retracted_sql,
    spine_keys,
)
from mainspring.features.cast import Reading, UnfitError, bad_rows, cast_column
from mainspring.features.duck import connection, scan
from mainspring.features.log import TableVersion, noted
from mainspring.features.retract import has_retractions, newest_steps
from mainspring.features.view import FeatureDef, Pick, View, arrow_type, log_schema
from mainspring.features.windows.pieces import answer_windows
from mainspring.lazy import lazy
from mainspring.ports.tables import TableStore

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
else:
    duckdb, np, pa = lazy("duckdb"), lazy("numpy"), lazy("pyarrow")

__all__ = ["KERNELS", "STATES", "HasTables", "TableVersion", "history", "history_of"]

KERNELS = b"mainspring.kernels"
"""The key of the result's schema metadata that says which kernel answered each view: JSON."""

STATES = ("MISSING", "EXPIRED", "PRESENT")
"""The states of an answer, by number."""

_RECENT = 64
_WIDE = {"string": "large_string", "binary": "large_binary"}
_MOST_BYTES = 1 << 31
_CHUNK = 1 << 16
_MOMENT = FieldSpec("at", ColumnType(Kind.TIMESTAMP))


class HasTables(Protocol):
    """Anything that has the table store: the project's `Services`."""

    @property
    def tables(self) -> TableStore:
        """The offline tables."""


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
) -> Frame:
    """The spine with the features of each of its rows, as of the moment in its `time` column.

    Every row comes back once, in order, with its own columns untouched. What a feature is at a moment is defined in
    `mainspring.features.asof` (``last``) and `mainspring.features.windows.question` (windows).

    Args:
        services: where the table store is.
        inputs: views, or picks of some of their features.
        spine: one row a question: the views' key columns, the moment, anything else.
        time: the column with the moments: timestamps with a zone, at most microseconds fine.
        as_known: whether a row counts only from the moment it became known.
        names: ``short`` calls a column as the feature, ``full`` ``view__feature``.
        status: add ``view__status`` (``PRESENT``, ``EXPIRED``, ``MISSING``) and ``view__event_time`` for each view.
        versions: pinned versions of the views' logs by the name of the view; the newest when left out.

    Raises:
        DataError: MS-2115, the spine lacks a column or has one of the wrong type; MS-2116, two columns would have one
            name; MS-2117, a total does not fit int64.
        StoreError: MS-4131, a view was never computed, or the pinned version is gone.
    """
    return history_of(services.tables, inputs, spine, time, as_known, names, status, versions or {})


def history_of(
    tables: TableStore,
    inputs: Sequence[Pick | View],
    spine: Frame,
    time: str,
    as_known: bool,
    names: Literal["short", "full"],
    status: bool,
    versions: Mapping[str, int | TableVersion],
) -> Frame:
    """`history` on a table store."""
    table = spine.arrow()
    moments = _spine_column(table, FieldSpec(time, _MOMENT.type)).cast(pa.int64())
    picks = [item if isinstance(item, Pick) else Pick(item, item.features) for item in inputs]
    _names_differ(table, picks, names)
    answers: dict[str, _Answer] = {}
    with connection(tables.limits) as opened:
        for view, features in _by_view(picks).items():
            pinned = versions.get(view.name)
            version = pinned.version if isinstance(pinned, TableVersion) else pinned
            note = pinned if isinstance(pinned, TableVersion) else _note(tables, view, version)
            opened.register(SPINE, _narrow(table, view, moments))
            log = scan(opened, tables.files(view.log, version), log_schema(view), "empty_log")
            tidy, held = (False, 0) if note is None else (note.tidy, note.rows)
            asked = _Asked(view, tuple(features), log, as_known, status, tidy, held, len(table))
            answers[view.name] = _answer(opened, asked)
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


@dataclass(frozen=True, slots=True)
class _Answer:
    columns: dict[str, pa.ChunkedArray]
    state: pa.ChunkedArray | None
    event: pa.ChunkedArray | None
    kernel: str

    def status(self) -> pa.ChunkedArray:
        assert self.state is not None
        return pa.chunked_array([pa.array(STATES)]).take(self.state.cast(pa.int64()))


@dataclass(frozen=True, slots=True)
class _Asked:
    view: View
    features: tuple[FeatureDef, ...]
    log: str
    as_known: bool
    status: bool
    tidy: bool
    held: int
    rows: int


def _note(tables: TableStore, view: View, version: int | None) -> TableVersion | None:
    """What a version of a log says of itself; the newest note at or before it holds for it."""
    for commit in tables.commits(view.log, _RECENT):
        found = noted(view.log, commit) if version is None or commit.version <= version else None
        if found is not None:
            return found
    return None


def _answer(opened: duckdb.DuckDBPyConnection, asked: _Asked) -> _Answer:
    view, log = asked.view, asked.log
    last = [feature for feature in asked.features if feature.window_us is None]
    windowed = [feature for feature in asked.features if feature.window_us is not None]
    columns: dict[str, pa.ChunkedArray] = {}
    state = event = None
    retracted = not asked.tidy and has_retractions(opened, log)
    ask(opened, len(view.keys))
    if last or asked.status:
        read = list(dict.fromkeys(str(feature.column) for feature in last))
        newest = _newest(opened, asked, retracted, read)
        state, event = newest.state, newest.event
        for feature in last:
            columns[feature.name] = newest.columns[str(feature.column)].cast(arrow_type(feature.type))
    kernel = ""
    if windowed:
        done = answer_windows(
            opened,
            view,
            windowed,
            log,
            held=asked.held,
            rows=asked.rows,
            as_known=asked.as_known,
            retracted=retracted,
        )
        columns, kernel = columns | done.columns, done.kernels
    return _Answer(columns, state, event, kernel)


@dataclass(frozen=True, slots=True)
class _Newest:
    """The newest rows known, in the spine's order."""

    state: pa.ChunkedArray
    event: pa.ChunkedArray
    columns: dict[str, pa.ChunkedArray]


def _newest(opened: duckdb.DuckDBPyConnection, asked: _Asked, retracted: bool, columns: Sequence[str]) -> _Newest:
    shape = Shape.of(asked.view, asked.as_known, asked.tidy, retracted)
    if retracted and asked.as_known:
        opened.register(STEPS, newest_steps(opened.sql(retracted_sql(shape, asked.log)).to_arrow_table()))
    hits = opened.sql(hits_sql(shape, asked.log)).to_arrow_table()
    rid, status = hits.column("rid").to_numpy(), hits.column("status").to_numpy()
    state = np.full(asked.rows, MISSING, np.int8)
    state[rid] = status
    event = _placed(hits.column("event"), _places(rid, asked.rows)).cast(arrow_type(_MOMENT.type))
    found: dict[str, pa.ChunkedArray] = {}
    if columns:
        opened.register(HITS, hits.select(["rid", "seq"]).filter(pa.array(status == PRESENT)))
        wide = opened.sql(gather_sql(columns, asked.log)).to_arrow_table()
        places = _places(wide.column("rid").to_numpy(), asked.rows)
        for index, name in enumerate(columns):  # one at a time: the order as they come may go when it is read
            found[name] = _placed(wide.column(f"c{index}"), places)
            wide = wide.drop_columns(f"c{index}")
    return _Newest(pa.chunked_array([pa.array(state)]), event, found)


def _places(rid: NDArray[np.int64], rows: int) -> pa.Array:
    """Where the answer to each row of the spine is; null where there is none."""
    places = np.full(rows, -1, np.int64)
    places[rid] = np.arange(len(rid))
    return pa.array(places, mask=places < 0)


def _placed(column: pa.ChunkedArray, places: pa.Array) -> pa.ChunkedArray:
    """A column in the order of `places`; texts beyond what 32-bit offsets reach come in several chunks."""
    wide = _WIDE.get(str(column.type)) if column.nbytes >= _MOST_BYTES else None
    if wide is None:
        return pa.chunked_array([column.combine_chunks().take(places)])
    source = column.cast(getattr(pa, wide)()).combine_chunks()
    starts = range(0, len(places), _CHUNK)
    return pa.chunked_array([source.take(places.slice(start, _CHUNK)).cast(column.type) for start in starts])


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
        rows = ", ".join(f"row {row}: {value!r}" for row, value, _ in bad_rows(column, field.type, Reading()))
        raise DataError(
            f"the spine's column {field.name!r} is no {field.type.kind.value}",
            code="MS-2115",
            why=f"{error} ({rows})",
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
