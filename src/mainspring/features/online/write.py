"""Log rows into the online store: the newest row of each entity, or the rows that its windows can reach."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from mainspring.declare.record import FieldSpec, Kind
from mainspring.features.duck import connection, quoted
from mainspring.features.logs.log import standing
from mainspring.features.online.chunks import latest_of, merge_into, replace_rows
from mainspring.features.online.keys import key_packer, packed_columns
from mainspring.features.online.rows import (
    PLAIN,
    TOMBSTONE,
    MarkedRows,
    PlainRow,
    WindowRows,
    head,
    heads_of,
    order_of,
    read_plain,
    write_plain,
)
from mainspring.features.online.windows import (
    WindowLayout,
    empty_windows,
    layout_of,
    merge_windows,
    version_hash,
)
from mainspring.features.view import DELETED, EVENT, INGEST, SEQ, VALID_TO, VERSION_ID, View
from mainspring.features.windows.sketch import text_hashes
from mainspring.lazy import lazy
from mainspring.ports.online import OnlineStore

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    np, pa, pc = lazy("numpy"), lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = ["rewrite", "upsert"]

_BATCH = 20_000
_NEVER = -(1 << 62)
"""Before all events: an entity of which nothing is left, so that whatever comes is newer."""
_pack = msgspec.msgpack.Encoder().encode
_WIRE: Mapping[Kind, Callable[[Any], object]] = {Kind.DATE: lambda value: value.toordinal(), Kind.DECIMAL: str}


def upsert(view: View, store: OnlineStore, rows: pa.Table, now_us: int) -> int:
    """Bring the online store up to some rows of a view's log; rows that are there already change nothing.

    A row of the future lies beside the one that answers until it is due. Rows that take others away are left to
    `materialise`, which has the log to see what remains.

    Args:
        view: the view.
        store: the online store.
        rows: of the view's log, with the system columns, in any order.
        now_us: the present, in microseconds since 1970.

    Returns:
        How many entities were written.
    """
    rows = standing(rows)
    if not len(rows):
        return 0
    if view.windowed:
        return _upsert_windows(view, store, rows, now_us)
    return _upsert_plain(view, store, rows, now_us)


def rewrite(view: View, store: OnlineStore, log: Callable[[], pa.Table], entities: pa.Table, now_us: int) -> int:
    """Write some entities anew from a view's log, because rows of theirs were taken away.

    Args:
        view: the view.
        store: the online store.
        log: reads the rows of the newest version of the view's log; asked again when another writer was at an
            entity meanwhile, for that one's rows are in the log before they are online.
        entities: the keys, one row an entity.
        now_us: the present, in microseconds since 1970.

    Returns:
        How many entities were written.
    """
    pack = key_packer(view.id, view.keys)
    layout = layout_of(view)
    waiting = {pack(keys) for keys in entities.to_pylist()}
    written = 0
    while waiting:
        keys = sorted(waiting)
        there = dict(zip(keys, store.get_many(keys), strict=True))
        rows = _of_entities(view, log(), entities)
        ordered = _ordered(view, standing(rows))
        if view.windowed:
            nothing: _Whole = (empty_windows(layout), None, (_NEVER, _NEVER, 0))
            left = dict.fromkeys(keys, nothing)
            left |= _windows_of(view, layout, ordered, now_us) if len(ordered) else {}
            done = {key for key in keys if replace_rows(store, key, there[key], *left[key], layout)}
        else:
            made = dict.fromkeys(keys, head(_NEVER, _NEVER, 0, TOMBSTONE) + _pack(()))
            made |= _plain_of(view, ordered, now_us) if len(ordered) else {}
            done = {key for key in keys if made[key] == there[key] or store.swap(key, there[key], made[key])}
        written += len(done)
        waiting -= done
    return written


def _of_entities(view: View, rows: pa.Table, entities: pa.Table) -> pa.Table:
    names = ", ".join(quoted(name) for name in view.key_names)
    with connection() as opened:
        opened.register("entities", entities)
        places = pa.array(np.arange(len(rows)))
        opened.register("log", rows.select(list(view.key_names)).append_column("place", places))
        found = opened.sql(f"select place from log semi join entities using ({names}) order by place").to_arrow_table()
    return rows.take(found.column("place"))


_Whole = tuple[WindowRows, MarkedRows | None, tuple[int, int, int]]
"""Of an entity the rows of its windows, those beside them, and the order of the newest."""


def _windows_of(view: View, layout: WindowLayout, ordered: pa.Table, now_us: int) -> dict[bytes, _Whole]:
    pack, arrays, made = key_packer(view.id, view.keys), _Arrays(view, layout, ordered), {}
    for start, stop in _groups(view, ordered):
        new, newest = arrays.slice(start, stop)
        latest = latest_of(now_us, [new.rows.events])
        merged = merge_windows(empty_windows(layout), None, new, layout, latest)
        made[pack(_keys_at(view, ordered, start))] = (*merged, newest)
    return made


def _plain_of(view: View, ordered: pa.Table, now_us: int) -> dict[bytes, bytes]:
    pack, rows = key_packer(view.id, view.keys), _plain_rows(view, ordered)
    return {
        pack(_keys_at(view, ordered, start)): write_plain(_answering(rows[start:stop], now_us))
        for start, stop in _groups(view, ordered)
    }


def _keys_at(view: View, rows: pa.Table, place: int) -> dict[str, Any]:
    return {name: rows.column(name)[place].as_py() for name in view.key_names}


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


def _upsert_plain(view: View, store: OnlineStore, rows: pa.Table, now_us: int) -> int:
    ordered = _ordered(view, rows)
    groups = list(_groups(view, ordered))
    alone = len(groups) == len(ordered)
    newest = ordered if alone else ordered.take(pa.array([stop - 1 for _, stop in groups]))
    written = 0
    for first in range(0, len(newest), _BATCH):
        part = newest.slice(first, _BATCH)
        packed = packed_columns(view.id, view.keys, [part.column(name).to_pylist() for name in view.key_names])
        ahead = np.flatnonzero(np.asarray(part.column(EVENT).cast(pa.int64())) > now_us).tolist()
        for place in ahead:
            start, stop = groups[first + place]
            written += _stack(store, packed[place], _plain_rows(view, ordered.slice(start, stop - start)), now_us)
        batch = list(zip(packed, _plain_bytes(view, part), strict=True))
        for place in reversed(ahead):
            del batch[place]
        written += _put(store, batch, now_us)
    return written


def _put(store: OnlineStore, batch: Sequence[tuple[bytes, bytes]], now_us: int) -> int:
    """Write rows that are due; where one ahead of time is in the way, beside it."""
    written = store.put_newer(batch)
    if written == len(batch):
        return written
    for (key, row), there in zip(batch, store.get_many([key for key, _ in batch]), strict=True):
        if there is not None and order_of(there)[0] > now_us:
            written += _stack(store, key, read_plain(row), now_us)
    return written


def _stack(store: OnlineStore, key: bytes, rows: Sequence[PlainRow], now_us: int) -> int:
    while True:
        (there,) = store.get_many([key])
        known = [] if there is None else read_plain(there)
        row = write_plain(_answering([*known, *rows], now_us))
        if row == there:
            return 0
        if store.swap(key, there, row):
            return 1


def _answering(rows: Sequence[PlainRow], now_us: int) -> list[PlainRow]:
    """Those that are ahead of time and the newest that is not, the newest first, each once."""
    ordered = sorted({row[:3]: row for row in rows}.values(), key=lambda row: row[:3], reverse=True)
    ahead = sum(row.event > now_us for row in ordered)
    return ordered[: ahead + 1]


def _plain_rows(view: View, rows: pa.Table) -> list[PlainRow]:
    flags = [TOMBSTONE if gone else PLAIN for gone in rows.column(DELETED).to_pylist()]
    events, ingests = (_micros(rows.column(name)) for name in (EVENT, INGEST))
    seqs = rows.column(SEQ).to_pylist()
    return [PlainRow(*row) for row in zip(events, ingests, seqs, flags, _bodies(view, rows), strict=True)]


def _plain_bytes(view: View, rows: pa.Table) -> list[bytes]:
    """As `write_plain` of each row alone."""
    events, ingests, seqs = (np.asarray(rows.column(name).cast(pa.int64())) for name in (EVENT, INGEST, SEQ))
    heads = heads_of(events, ingests, seqs, np.where(np.asarray(rows.column(DELETED)), TOMBSTONE, PLAIN))
    return [made + _pack(body) for made, body in zip(heads, _bodies(view, rows), strict=True)]


def _bodies(view: View, rows: pa.Table) -> Iterable[tuple[Any, ...]]:
    """The values of each row as the store has them."""
    values: list[list[Any]] = [_wire(rows.column(field.name), field) for field in view.columns]
    if view.has_valid_to:
        values.append(_micros(rows.column(VALID_TO)))
    return zip(*values, strict=True) if values else [()] * len(rows)


def _micros(column: pa.ChunkedArray) -> list[int]:
    return _listed(column.cast(pa.int64()))


def _listed(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column; through NumPy, which is quicker where none is null."""
    kind = column.type
    quick = (pa.types.is_float64(kind) or pa.types.is_int64(kind)) and not column.null_count
    found: list[Any] = column.to_numpy().tolist() if quick else column.to_pylist()
    return found


def _wire(column: pa.ChunkedArray, field: FieldSpec) -> list[object]:
    if field.type.kind is Kind.TIMESTAMP:
        return [*_micros(column)]
    values = _listed(column)
    convert = _WIRE.get(field.type.kind)
    return values if convert is None else [None if value is None else convert(value) for value in values]


def _upsert_windows(view: View, store: OnlineStore, rows: pa.Table, now_us: int) -> int:
    layout = layout_of(view)
    ordered = _ordered(view, rows)
    pack = key_packer(view.id, view.keys)
    arrays = _Arrays(view, layout, ordered)
    written = 0
    for start, stop in _groups(view, ordered):
        key = pack(_keys_at(view, ordered, start))
        written += merge_into(store, key, *arrays.slice(start, stop), layout, now_us)
    return written


class _Arrays:
    """The columns of sorted log rows as arrays, sliced by entity."""

    def __init__(self, view: View, layout: WindowLayout, rows: pa.Table) -> None:
        self._layout = layout
        self._events = np.asarray(rows.column(EVENT).cast(pa.int64()))
        self._ingests = np.asarray(rows.column(INGEST).cast(pa.int64()))
        self._seqs = np.asarray(rows.column(SEQ))
        self._dead = np.asarray(rows.column(DELETED).combine_chunks().cast(pa.uint8()))
        ids = rows.column(VERSION_ID).to_pylist() if layout.identified else []
        # Rows without an id are events of their own.
        own = (("row", seq) if value is None else value for value, seq in zip(ids, self._seqs.tolist(), strict=False))
        self._ids = np.array([version_hash(value) for value in own], np.uint64)
        self._columns: list[Any] = []
        self._nulls: list[Any] = []
        self._texts = [_wire(rows.column(name), view.column(name)) for name in layout.texts]
        for name, kind in zip(layout.numbers, layout.kinds, strict=True):
            if kind == "<u8":
                texts = self._texts[layout.texts.index(name[1:])]
                self._nulls.append(np.array([text is None for text in texts], np.uint8))
                self._columns.append(text_hashes("" if text is None else text for text in texts))
                continue
            column = rows.column(name).combine_chunks()
            self._nulls.append(np.asarray(pc.is_null(column).cast(pa.uint8())))
            plain = pa.float64() if kind == "<f8" else pa.int64()
            column = column.cast(pa.int32()) if pa.types.is_date(column.type) else column
            self._columns.append(np.asarray(column.cast(plain).fill_null(0)))

    def slice(self, start: int, stop: int) -> tuple[MarkedRows, tuple[int, int, int]]:
        """The rows of one entity, and the order of the newest."""
        rows = WindowRows(
            self._events[start:stop],
            self._ingests[start:stop],
            self._seqs[start:stop],
            self._ids[start:stop] if self._layout.identified else self._ids,
            tuple(column[start:stop] for column in self._columns),
            tuple(null[start:stop] for null in self._nulls),
            tuple(text[start:stop] for text in self._texts),
        )
        dead = self._dead[start:stop]
        last = stop - 1
        return MarkedRows(rows, dead), (int(self._events[last]), int(self._ingests[last]), int(self._seqs[last]))
