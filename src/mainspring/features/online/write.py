"""Log rows into the online store: the newest row of each entity, or the rows that its windows can reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.declare.record import FieldSpec, Kind
from mainspring.features.online.keys import key_packer
from mainspring.features.online.rows import (
    PLAIN,
    TOMBSTONE,
    WINDOWS,
    WindowRows,
    head,
    order_of,
    read_windows,
)
from mainspring.features.online.windows import (
    WindowLayout,
    empty_windows,
    layout_of,
    merge_windows,
    version_hash,
)
from mainspring.features.view import DELETED, EVENT, INGEST, SEQ, VALID_TO, VERSION_ID, View
from mainspring.lazy import lazy
from mainspring.ports.online import OnlineStore

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    np, pa, pc = lazy("numpy"), lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = ["upsert"]

_BATCH = 20_000
_pack = msgspec.msgpack.Encoder().encode
_WIRE: Mapping[Kind, Callable[[Any], object]] = {Kind.DATE: lambda value: value.toordinal(), Kind.DECIMAL: str}


def upsert(view: View, store: OnlineStore, rows: pa.Table) -> int:
    """Bring the online store up to some rows of a view's log; rows that are there already change nothing.

    Args:
        view: the view.
        store: the online store.
        rows: of the view's log, with the system columns, in any order.

    Returns:
        How many entities were written.
    """
    if not len(rows):
        return 0
    return _upsert_windows(view, store, rows) if view.windowed else _upsert_plain(view, store, rows)


def _ordered(view: View, rows: pa.Table) -> pa.Table:
    order = [(name, "ascending") for name in (*view.key_names, EVENT, INGEST, SEQ)]
    return rows.take(pc.sort_indices(rows, sort_keys=order))


def _groups(view: View, rows: pa.Table) -> Iterator[tuple[int, int]]:
    """The first row and one past the last of each entity, in rows sorted by key."""
    change = np.zeros(len(rows), bool)
    change[0] = True
    for name in view.key_names:
        codes = rows.column(name).combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
        change[1:] |= codes[1:] != codes[:-1]
    starts = np.flatnonzero(change).tolist()
    yield from zip(starts, [*starts[1:], len(rows)], strict=True)


def _upsert_plain(view: View, store: OnlineStore, rows: pa.Table) -> int:
    ordered = _ordered(view, rows)
    last = pa.array([stop - 1 for _, stop in _groups(view, ordered)])
    newest = ordered.take(last)
    pack = key_packer(view.id, view.keys)
    keys = newest.select(list(view.key_names)).to_pylist()
    events, ingests = (_micros(newest.column(name)) for name in (EVENT, INGEST))
    seqs, deleted = newest.column(SEQ).to_pylist(), newest.column(DELETED).to_pylist()
    names = [field.name for field in view.columns]
    values: list[list[Any]] = [_wire(newest.column(field.name), field) for field in view.columns]
    if view.has_valid_to:
        names.append(VALID_TO)
        values.append(_micros(newest.column(VALID_TO)))
    bodies = zip(*values, strict=True) if values else iter([()] * len(newest))
    written = 0
    batch: list[tuple[bytes, bytes]] = []
    for key, event, ingest, seq, gone, body in zip(keys, events, ingests, seqs, deleted, bodies, strict=True):
        batch.append((pack(key), head(event, ingest, seq, TOMBSTONE if gone else PLAIN) + _pack(body)))
        if len(batch) >= _BATCH:
            written += store.put_newer(batch)
            batch = []
    return written + store.put_newer(batch)


def _micros(column: pa.ChunkedArray) -> list[int]:
    found: list[int] = column.cast(pa.int64()).to_pylist()
    return found


def _wire(column: pa.ChunkedArray, field: FieldSpec) -> list[object]:
    if field.type.kind is Kind.TIMESTAMP:
        return [*_micros(column)]
    values: list[Any] = column.to_pylist()
    convert = _WIRE.get(field.type.kind)
    return values if convert is None else [None if value is None else convert(value) for value in values]


def _upsert_windows(view: View, store: OnlineStore, rows: pa.Table) -> int:
    layout = layout_of(view)
    ordered = _ordered(view, rows)
    pack = key_packer(view.id, view.keys)
    arrays = _Arrays(view, layout, ordered)
    written = 0
    for start, stop in _groups(view, ordered):
        key = pack({name: ordered.column(name)[start].as_py() for name in view.key_names})
        written += _merge_into(store, key, arrays, start, stop, layout)
    return written


def _merge_into(store: OnlineStore, key: bytes, arrays: _Arrays, start: int, stop: int, layout: WindowLayout) -> int:
    new, gone, newest = arrays.slice(start, stop)
    while True:
        (there,) = store.get_many([key])
        old = empty_windows(layout) if there is None else read_windows(there, layout.kinds)
        merged = merge_windows(old, new, gone, layout)
        order = newest if there is None else max(newest, order_of(there))
        row = head(*order, WINDOWS) + merged.body()
        if row == there:
            return 0
        if store.swap(key, there, row):
            return 1


class _Arrays:
    """The columns of sorted log rows as arrays, sliced by entity."""

    def __init__(self, view: View, layout: WindowLayout, rows: pa.Table) -> None:
        self._layout = layout
        self._events = np.asarray(rows.column(EVENT).cast(pa.int64()))
        self._ingests = np.asarray(rows.column(INGEST).cast(pa.int64()))
        self._seqs = np.asarray(rows.column(SEQ))
        self._deleted = np.asarray(rows.column(DELETED).combine_chunks().cast(pa.uint8()))
        ids = rows.column(VERSION_ID).to_pylist() if layout.identified else []
        self._ids = np.array([version_hash(value) for value in ids], np.uint64)
        self._columns: list[Any] = []
        self._nulls: list[Any] = []
        for name, kind in zip(layout.numbers, layout.kinds, strict=True):
            column = rows.column(name).combine_chunks()
            self._nulls.append(np.asarray(pc.is_null(column).cast(pa.uint8())))
            plain = pa.int64() if kind == "<i8" else pa.float64()
            self._columns.append(np.asarray(column.cast(plain).fill_null(0)))
        self._texts = [rows.column(name).to_pylist() for name in layout.texts]

    def slice(self, start: int, stop: int) -> tuple[WindowRows, list[int], tuple[int, int, int]]:
        """The rows of one entity, the version ids that were deleted, and the order of the newest row."""
        here = np.arange(start, stop)
        alive = here[self._deleted[start:stop] == 0]
        dead = here[self._deleted[start:stop] != 0]
        gone = self._ids[dead].tolist() if self._layout.identified else []
        rows = WindowRows(
            self._events[alive],
            self._seqs[alive],
            self._ids[alive] if self._layout.identified else self._ids,
            tuple(column[alive] for column in self._columns),
            tuple(null[alive] for null in self._nulls),
            tuple([text[i] for i in alive.tolist()] for text in self._texts),
        )
        last = stop - 1
        return rows, gone, (int(self._events[last]), int(self._ingests[last]), int(self._seqs[last]))
