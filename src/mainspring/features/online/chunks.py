"""The rows of an entity that has many: the newest in its own row, the others in chunks beside it.

A chunk is about `CHUNK` rows by column, never changed once it is written. The entity's row holds their directory: where
each begins and ends, and its sums and extremes, so that a question reads only the chunks that the ends of its windows
fall into. A row that comes late is put into the chunk of its time, which is written anew under another name; then the
entity's row is swapped for one that names it, and the chunk that no row names is removed. Who still reads by the row
before finds a chunk missing, and reads again.
"""

from __future__ import annotations

import hashlib
import secrets
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from mainspring.features.online.partials import (
    Numbers,
    Sketch,
    merged_sketches,
    numbers_of,
    read_sketches,
    sketches_of,
    values_of,
    write_sketches,
)
from mainspring.features.online.rows import (
    BESIDE,
    BODY,
    BUSY,
    WINDOWS,
    MarkedRows,
    WindowRows,
    head,
    order_of,
    read_beside,
    read_windows,
)
from mainspring.features.online.windows import (
    LONG_AGO,
    SLACK_US,
    WindowLayout,
    empty_windows,
    joined,
    merge_windows,
    taken,
)
from mainspring.lazy import lazy
from mainspring.ports.online import OnlineStore

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
else:
    np = lazy("numpy")

__all__ = [
    "CHUNK",
    "GROUP",
    "TAIL",
    "Directory",
    "chunk_key",
    "group_key",
    "ids_key",
    "latest_of",
    "merge_into",
    "read_busy",
    "replace_rows",
    "sketch_key",
]

CHUNK = 1024
"""Rows of a chunk; a late row may make it twice as many."""
TAIL = 2 * CHUNK
"""Rows that an entity's own row holds at most before the older half is cut off."""
GROUP = 32
"""Chunks of a group; twice as many are parted."""
_ROWS, _SKETCHES, _IDS, _GROUP = b"T", b"S", b"I", b"G"
_SIZE = struct.Struct("<I")
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode


class Directory(msgspec.Struct, frozen=True):
    """The chunks of an entity, the oldest first.

    Attributes:
        key: the entity's key.
        chunks: (chunks,) uint64, their names.
        groups: (chunks,) uint64, the names of the groups they are in; 0 for none. Those of a group are neighbours.
        counts: (chunks,) int64 rows.
        firsts: (chunks,) int64, the event of the first row.
        lasts: (3, chunks) int64, event, ingest and seq of the last row.
        filled: (texts, chunks) int64, how many values of each text column are not null.
        numbers: of each numeric column that is no hash.
    """

    key: bytes
    chunks: NDArray[np.uint64]
    groups: NDArray[np.uint64]
    counts: NDArray[np.int64]
    firsts: NDArray[np.int64]
    lasts: NDArray[np.int64]
    filled: NDArray[np.int64]
    numbers: tuple[Numbers, ...]


def chunk_key(key: bytes, name: int) -> bytes:
    """Where the rows of a chunk are."""
    return _beside(key, _ROWS, name)


def sketch_key(key: bytes, name: int) -> bytes:
    """Where the sketches of a chunk are; only if its layout has any."""
    return _beside(key, _SKETCHES, name)


def group_key(key: bytes, name: int) -> bytes:
    """Where the sketches of a group of chunks are."""
    return _beside(key, _GROUP, name)


def ids_key(key: bytes, name: int) -> bytes:
    """Where the hashes of a chunk's version ids are; only if rows have them."""
    return _beside(key, _IDS, name)


def _beside(key: bytes, tag: bytes, name: int) -> bytes:
    # In the view's range of keys; no key column's tag is one of these.
    return key[:4] + tag + hashlib.blake2b(key, digest_size=8).digest() + name.to_bytes(8, "big")


def read_busy(row: bytes, layout: WindowLayout) -> tuple[Directory | None, WindowRows, MarkedRows | None]:
    """Of a stored window row: the directory and the rows beside the windows, if any, and between them its own rows."""
    beside, at = read_beside(row, layout.kinds)
    if not row[BODY - 1] & BUSY:
        return None, read_windows(row, layout.kinds, at), beside
    (size,) = _SIZE.unpack_from(row, at)
    at += _SIZE.size
    key, chunks, groups, counts, firsts, lasts, filled, *parts = _unpack(memoryview(row)[at : at + size])
    numbers, kinds = [], [kind for kind in layout.kinds if kind != "<u8"]
    for kind, six in zip(kinds, (parts[i : i + 6] for i in range(0, len(parts), 6)), strict=True):
        types = ("<i8", kind, kind, kind, kind, "<f8")
        numbers.append(Numbers(*(np.frombuffer(part, of) for part, of in zip(six, types, strict=True))))
    directory = Directory(
        key,
        np.frombuffer(chunks, np.uint64),
        np.frombuffer(groups, np.uint64),
        np.frombuffer(counts, np.int64),
        np.frombuffer(firsts, np.int64),
        np.frombuffer(lasts, np.int64).reshape(3, -1),
        np.frombuffer(filled, np.int64).reshape(len(layout.texts), len(counts) // 8),
        tuple(numbers),
    )
    return directory, read_windows(row, layout.kinds, at + size), beside


def _write_busy(
    order: tuple[int, int, int], directory: Directory | None, tail: WindowRows, beside: MarkedRows | None
) -> bytes:
    flags, first = (WINDOWS, b"") if beside is None else (WINDOWS | BESIDE, beside.body())
    if directory is None or not len(directory.chunks):
        return head(*order, flags) + first + tail.body()
    arrays = (directory.chunks, directory.groups, directory.counts, directory.firsts, directory.lasts, directory.filled)
    numbers = (array for one in directory.numbers for array in one.arrays())
    packed = _pack([directory.key, *(array.tobytes() for array in (*arrays, *numbers))])
    return head(*order, flags | BUSY) + first + _SIZE.pack(len(packed)) + packed + tail.body()


def merge_into(
    store: OnlineStore,
    key: bytes,
    new: MarkedRows,
    newest: tuple[int, int, int],
    layout: WindowLayout,
    now_us: int,
) -> int:
    """Add rows to an entity's; those that are there already change nothing.

    Args:
        store: the online store.
        key: the entity's key.
        new: rows that arrived, of any time.
        newest: event, ingest and seq of the newest of them.
        layout: of the rows.
        now_us: the present, in microseconds since 1970.

    Returns:
        1, or 0 where nothing changed.
    """
    while True:
        (there,) = store.get_many([key])
        directory, tail, beside = (None, empty_windows(layout), None) if there is None else read_busy(there, layout)
        events = [new.rows.events, tail.events]
        events += [] if beside is None else [beside.rows.events]
        events += [] if directory is None else [directory.lasts[0]]
        latest = latest_of(now_us, events)
        order = newest if there is None else max(newest, order_of(there))
        if directory is None:
            merged, beside = merge_windows(tail, beside, new, layout, latest)
            slots, removed = {0: merged}, list[int]()
        else:
            changed = _changed(store, directory, tail, beside, new, layout, latest)
            if changed is None:  # another writer was here
                continue
            slots, removed, beside = changed
        made = _group(store, _cut(key, directory, slots, removed, layout), directory, layout)
        if made is None:
            continue
        row = _write_busy(order, made.directory, made.tail, beside)
        if row == there:
            return 0
        if _put(store, key, there, row, made, directory, layout):
            return 1


def replace_rows(
    store: OnlineStore,
    key: bytes,
    there: bytes | None,
    rows: WindowRows,
    beside: MarkedRows | None,
    order: tuple[int, int, int],
    layout: WindowLayout,
) -> bool:
    """Put rows in the place of all that an entity has; whether what was there was still `there`."""
    old = None if there is None else read_busy(there, layout)[0]
    made = _group(store, _cut(key, None, {0: rows}, (), layout), None, layout)
    assert made is not None  # all chunks are new
    return _put(store, key, there, _write_busy(order, made.directory, made.tail, beside), made, old, layout)


class _Made(msgspec.Struct, frozen=True):
    directory: Directory | None
    tail: WindowRows
    written: Mapping[int, WindowRows]
    sketches: Mapping[int, list[Sketch]]
    groups: Mapping[int, list[Sketch]]


def latest_of(now_us: int, events: Iterable[NDArray[np.int64]]) -> int | None:
    """The newest event that has happened, of some arrays in order."""
    due = ((array, int(array.searchsorted(now_us, "right"))) for array in events)
    return max((int(array[count - 1]) for array, count in due if count), default=None)


def _changed(
    store: OnlineStore,
    directory: Directory,
    tail: WindowRows,
    beside: MarkedRows | None,
    new: MarkedRows,
    layout: WindowLayout,
    latest: int | None,
) -> tuple[dict[int, WindowRows], list[int], MarkedRows | None] | None:
    """What changes: rows of chunks by their places, the tail as one more; chunks that are too old; rows beside."""
    size = len(directory.chunks)
    oldest = LONG_AGO if latest is None else latest - layout.keep_us
    removed = np.flatnonzero(directory.lasts[0] <= oldest).tolist()
    known = np.setdiff1d(directory.firsts, directory.firsts[removed])
    known = known[known <= (LONG_AGO if latest is None else latest - SLACK_US)]
    covered = int(known[-1]) if len(known) else LONG_AGO
    recent = taken(new.rows, np.flatnonzero(new.rows.events > oldest))
    touched = (set(_slots(directory, recent).tolist()) | _at_times(directory, recent.events)) - set(removed) - {size}
    if layout.identified:
        ids = np.unique(new.rows.ids)  # an event may move to a moment before all windows
        stored = store.get_many([ids_key(directory.key, int(name)) for name in directory.chunks])
        if None in stored:
            return None
        hits = (
            i for i, row in enumerate(stored) if row and np.isin(np.frombuffer(row, np.uint64, offset=BODY), ids).any()
        )
        touched |= set(hits) - set(removed)
    if removed and covered == LONG_AGO:
        touched.add(removed[-1])  # its last row may be the newest at a moment that may be asked about
    old, before = tail, {}
    for place, row in zip(
        sorted(touched),
        store.get_many([chunk_key(directory.key, int(directory.chunks[place])) for place in sorted(touched)]),
        strict=True,
    ):
        if row is None:
            return None
        before[place] = read_windows(row, layout.kinds)
        old = joined(old, before[place])
    merged, beside = merge_windows(old, beside, new, layout, latest, covered)
    where = _slots(directory, merged)
    slots = {place: taken(merged, np.flatnonzero(where == place)) for place in (*before, size)}
    same = [place for place, rows in before.items() if np.array_equal(rows.seqs, slots[place].seqs)]
    return {place: rows for place, rows in slots.items() if place not in same}, removed, beside


def _at_times(directory: Directory, events: NDArray[np.int64]) -> set[int]:
    """The chunks with rows of just these events, or on both sides of them."""
    times = np.unique(events)
    starts, stops = directory.lasts[0].searchsorted(times, "left"), directory.firsts.searchsorted(times, "right")
    return {place for a, b in zip(starts.tolist(), stops.tolist(), strict=True) for place in range(a, b)}


def _slots(directory: Directory, rows: WindowRows) -> NDArray[np.int64]:
    """Which chunk each row belongs to by its order; one past the last for the tail."""
    events, ingests, seqs = directory.lasts
    found = np.searchsorted(events, rows.events, "left")
    tied = events[np.minimum(found, len(events) - 1)] == rows.events
    for i in np.flatnonzero(tied & (found < len(events))).tolist():
        place, mine = int(found[i]), (int(rows.events[i]), int(rows.ingests[i]), int(rows.seqs[i]))
        while place < len(events) and (int(events[place]), int(ingests[place]), int(seqs[place])) < mine:
            place += 1
        found[i] = place
    return found


def _cut(
    key: bytes,
    directory: Directory | None,
    slots: Mapping[int, WindowRows],
    removed: Iterable[int],
    layout: WindowLayout,
) -> _Made:
    """A directory with the changed chunks anew, and what is to be written."""
    size = 0 if directory is None else len(directory.chunks)
    tail, gone = slots[size], set(removed)
    parts: list[tuple[int, int, WindowRows | None]] = []  # the place before, the group, and what is new
    for place in range(size):
        assert directory is not None
        group = int(directory.groups[place])
        if place not in slots:
            parts += [] if place in gone else [(place, group, None)]
        else:
            parts += [(place, group, part) for part in _split(slots[place], 2 * CHUNK)]
    if len(tail.events) > TAIL:
        *cut, tail = _split(tail, CHUNK)
        parts += [(size, 0, part) for part in cut]
    if not parts:
        return _Made(None, tail, {}, {}, {})
    kept = [place for place, _, part in parts if part is None]
    fresh = [(secrets.randbits(63) + 1, group, part) for _, group, part in parts if part is not None]
    entries = [] if directory is None or not kept else [_only(directory, kept)]
    every = _concatenated(key, entries + [_entry(key, *one, layout) for one in fresh])
    order, old, young = [], 0, len(kept)
    for *_, part in parts:
        order.append(old if part is None else young)
        old, young = old + (part is None), young + (part is not None)
    sketches = {name: sketches_of(layout, rows) for name, _, rows in fresh} if layout.sketches else {}
    return _Made(_only(every, order), tail, {name: rows for name, _, rows in fresh}, sketches, {})


def _group(store: OnlineStore, made: _Made, before: Directory | None, layout: WindowLayout) -> _Made | None:
    """With sketches of the groups that are new or changed; None where another writer was here."""
    directory = made.directory
    if directory is None or not layout.sketches:
        return made
    groups, found = directory.groups.copy(), {}
    for places in _regrouped(directory, before):
        names = directory.chunks[places].tolist()
        there = [name for name in names if name not in made.sketches]
        rows = store.get_many([sketch_key(directory.key, name) for name in there]) if there else []
        if None in rows:
            return None
        stored = {name: read_sketches(layout, row[BODY:]) for name, row in zip(there, rows, strict=True) if row}
        name = secrets.randbits(63) + 1
        groups[places] = name
        found[name] = merged_sketches(layout, [made.sketches.get(one) or stored[one] for one in names])
    return replace(made, directory=replace(directory, groups=groups), groups=found)


def _regrouped(directory: Directory, before: Directory | None) -> Iterator[NDArray[np.int64]]:
    """The places of the chunks of each group that is to be made, or made anew."""
    for name in np.unique(directory.groups).tolist():
        places = np.flatnonzero(directory.groups == name)
        if name == 0:
            yield from (places[start : start + GROUP] for start in range(0, len(places) - GROUP + 1, GROUP))
        elif before is None or not np.array_equal(directory.chunks[places], before.chunks[before.groups == name]):
            yield from np.array_split(places, 1 + len(places) // (2 * GROUP))


def _split(rows: WindowRows, most: int) -> list[WindowRows]:
    """Rows in parts of `CHUNK`, the last as long as needed, if they are more than `most`; nothing for none."""
    count = len(rows.events)
    if count <= most:
        return [rows] if count else []
    starts = [*range(0, count - CHUNK, CHUNK), count]
    return [taken(rows, np.arange(a, b)) for a, b in pairwise(starts)]


def _entry(key: bytes, name: int, group: int, rows: WindowRows, layout: WindowLayout) -> Directory:
    count = len(rows.events)
    numbers = [numbers_of(values_of(rows, i, 0, count)) for i, kind in enumerate(layout.kinds) if kind != "<u8"]
    return Directory(
        key,
        np.array([name], np.uint64),
        np.array([group], np.uint64),
        np.array([count]),
        rows.events[:1],
        np.array([[rows.events[-1]], [rows.ingests[-1]], [rows.seqs[-1]]]),
        np.array([[sum(text is not None for text in texts)] for texts in rows.texts], np.int64).reshape(-1, 1),
        tuple(numbers),
    )


def _only(directory: Directory, which: Sequence[int]) -> Directory:
    at = np.array(which, np.int64)
    return Directory(
        directory.key,
        directory.chunks[at],
        directory.groups[at],
        directory.counts[at],
        directory.firsts[at],
        directory.lasts[:, at],
        directory.filled[:, at],
        tuple(Numbers(*(array[at] for array in one.arrays())) for one in directory.numbers),
    )


def _concatenated(key: bytes, parts: Sequence[Directory]) -> Directory:
    def together(arrays: Iterable[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate(list(arrays))

    columns = zip(*(part.numbers for part in parts), strict=True)
    return Directory(
        key,
        together(part.chunks for part in parts),
        together(part.groups for part in parts),
        together(part.counts for part in parts),
        together(part.firsts for part in parts),
        np.concatenate([part.lasts for part in parts], axis=1),
        np.concatenate([part.filled for part in parts], axis=1),
        tuple(
            Numbers(*(together(arrays) for arrays in zip(*(one.arrays() for one in column), strict=True)))
            for column in columns
        ),
    )


def _put(
    store: OnlineStore,
    key: bytes,
    there: bytes | None,
    row: bytes,
    made: _Made,
    old: Directory | None,
    layout: WindowLayout,
) -> bool:
    """Write the new chunks, then the entity's row if it is still the one that was read, then remove what it left."""
    fresh = []
    for name, rows in made.written.items():
        first = head(0, 0, 0, WINDOWS)
        fresh.append((chunk_key(key, name), first + rows.body()))
        if layout.sketches:
            fresh.append((sketch_key(key, name), first + write_sketches(made.sketches[name])))
        if layout.identified:
            fresh.append((ids_key(key, name), first + rows.ids.tobytes()))
    for name, sketches in made.groups.items():
        fresh.append((group_key(key, name), head(0, 0, 0, WINDOWS) + write_sketches(sketches)))
    if fresh:
        store.put_newer(fresh)
    if not store.swap(key, there, row):
        store.delete(name for name, _ in fresh)
        return False
    left = [
        of(key, name)
        for of, names in (
            (chunk_key, _gone(old, made.directory, "chunks")),
            (sketch_key, _gone(old, made.directory, "chunks")),
            (ids_key, _gone(old, made.directory, "chunks")),
            (group_key, _gone(old, made.directory, "groups")),
        )
        for name in names
    ]
    if left:
        store.delete(left)
    return True


def _gone(before: Directory | None, after: Directory | None, what: str) -> set[int]:
    old = set() if before is None else set(getattr(before, what).tolist())
    return old - (set() if after is None else set(getattr(after, what).tolist())) - {0}
