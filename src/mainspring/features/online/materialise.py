"""Materialisation: what a view's log has and the online store has not, from a watermark on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from mainspring.catalog.ids import new_id
from mainspring.catalog.ids import now_us as present
from mainspring.features.duck import connection, scan
from mainspring.features.logs.log import MADE_MARK, SourceTable, counter_after, key_hashes, newest, read_log
from mainspring.features.logs.project import project
from mainspring.features.online.keys import view_prefix
from mainspring.features.online.stream import entities_in_order
from mainspring.features.online.watermark import FIRST, Progress, Watermark, mark_key, read_mark, write_mark
from mainspring.features.online.windows import layout_of
from mainspring.features.online.write import rewrite, upsert
from mainspring.features.view import HASH, RETRACTS, SEQ, View, log_schema
from mainspring.features.wal.commit import rows_waiting
from mainspring.lazy import lazy
from mainspring.ports.catalog import Catalog, Entity
from mainspring.ports.online import OnlineStore
from mainspring.ports.tables import TableStore

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    pa, pc = lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = ["Materialised", "follow", "materialise", "online_id", "reaches"]

_AT_ONCE = 20_000
"""Rows that are brought in one batch, without sorting."""


class Materialised(msgspec.Struct, frozen=True):
    """What a materialisation did.

    Attributes:
        view: the view's name.
        rows: log rows that were read.
        entities: entities that were written.
        through: the greatest `_seq` that the online store holds now.
    """

    view: str
    rows: int
    entities: int
    through: int


def online_id(catalog: Catalog, view: View) -> int:
    """The number under which a view's rows are kept online: one for what decides them, never reused.

    That is the log, how much of it a row keeps, and the sketches it has: a longer window, or a first `distinct` of a
    column, needs rows anew, and has them beside the old ones.
    """
    kept = _kept(view)
    offered = Entity(
        new_id(), "online_view", "all", 0, f"{view.log}/{kept}", {"view": view.name, "log": view.log}, present()
    )
    return catalog.add_entity(offered).version


def _kept(view: View) -> str:
    if not view.windowed:
        return "newest"
    layout = layout_of(view)
    sketches = "".join(f"/{function.value}:{column}" for function, column in layout.sketches)
    return f"beside/{layout.keep_us}{sketches}"


def materialise(
    view: View,
    tables: TableStore,
    store: OnlineStore,
    version: int | None = None,
    *,
    now_us: int,
    source: SourceTable | None = None,
    full: bool = False,
) -> Materialised:
    """Bring the online store up to a version of a view's log; doing it again changes nothing.

    Many rows come in batches of whole entities, in the order of their `_hash`, and the watermark is written after each:
    a run that was killed goes on with the entities that it had not reached. One process at a time is at a view; another
    waits, and finds the work done.

    Args:
        view: the view, with its online number as `View.id`.
        tables: where its log is.
        store: the online store.
        version: the log's version; the newest when left out.
        now_us: the present, in microseconds since 1970: what happens later is kept beside what answers until then.
        source: the source of a view of declared aggregates: its pushed rows may be online before they are in a log,
            and stay there when an entity is written anew.
        full: drop all rows of the view, and write them anew.

    Returns:
        What this run did; what one before it did, and was killed, is not counted again.

    Raises:
        StoreError: MS-4136, a batch does not fit in the memory that there may be; MS-4307, rows cannot be laid aside on
            the way, which takes as much of the disk as they do uncompressed.
    """
    with tables.writing(f"online/{view.id}"):
        return _materialised(view, tables, store, version, now_us, source, full)


def _materialised(
    view: View,
    tables: TableStore,
    store: OnlineStore,
    version: int | None,
    now_us: int,
    source: SourceTable | None,
    full: bool,
) -> Materialised:
    key, made = mark_key(view.id), tables.mark(view.log, MADE_MARK) or 0
    if full:  # so that what is dropped counts as gone from now on, whatever becomes of this process
        (stored,) = store.get_many([key])
        store.swap(key, stored, write_mark(Watermark(), made))
    read = entities = 0
    while True:
        (stored,) = store.get_many([key])
        mark = read_mark(stored, made)
        if stored is not None and mark == Watermark():
            store.drop(view_prefix(view.id))  # they were of a log that is gone, or are to be made anew
        work = _work(view, tables, version, mark)
        if work is None:
            return Materialised(view.name, read, entities, mark.through)
        for rows, position in work.batches(view, tables, version, mark.through, now_us):
            entities += _bring(view, tables, store, rows, now_us, source)
            read += len(rows)
            reached = Watermark(work.to) if position is None else Watermark(mark.through, Progress(work.to, position))
            told = write_mark(reached, made)
            if not store.swap(key, stored, told):
                break  # pushes brought it further meanwhile: look again
            stored = told


class _Work(msgspec.Struct, frozen=True):
    """Rows that are to be brought.

    Attributes:
        to: the greatest `_seq` of them.
        first: the least `_hash` of them.
        rows: all of them where they are few, or None.
    """

    to: int
    first: int
    rows: pa.Table | None

    def batches(
        self, view: View, tables: TableStore, version: int | None, after: int, now_us: int
    ) -> Iterator[tuple[pa.Table, int | None]]:
        """The rows, and where the next begin; at the end None, with no rows if there are none."""
        if self.rows is not None:
            yield self.rows, None
            return
        position: int | None = self.first
        for rows, position in entities_in_order(view, tables, version, after, self.to, self.first, now_us):
            yield rows, position
        if position is not None:
            yield log_schema(view).empty_table(), None


def _work(view: View, tables: TableStore, version: int | None, mark: Watermark) -> _Work | None:
    """What a version of the log has beyond a watermark, or None for nothing."""
    top = newest(tables, view.log)
    many = top is not None and counter_after(top.through) - counter_after(mark.through) > _AT_ONCE
    beyond = [(SEQ, ">", mark.through)] if mark.through >= 0 else []
    if not many:
        rows = read_log(tables, view.log, version, where=beyond)
        return _Work(max(rows.column(SEQ).to_pylist()), FIRST, rows) if len(rows) else None
    with connection(tables.limits) as opened:
        log = scan(opened, tables.files(view.log, version), log_schema(view), "empty_log")
        ((to,),) = opened.sql(f"select max({SEQ}) from {log} where {SEQ} > {mark.through}").fetchall()
    if to is None:
        return None
    begun = mark.progress
    return _Work(to, FIRST, None) if begun is None or begun.to > to else _Work(begun.to, begun.hash, None)


def follow(
    view: View,
    tables: TableStore,
    store: OnlineStore,
    before: int,
    rows: pa.Table,
    through: int,
    *,
    now_us: int,
    source: SourceTable | None = None,
) -> None:
    """Bring the online store up to rows that were just appended to a view's log; what is there changes nothing.

    Args:
        view: the view, with its online number as `View.id`.
        tables: where its log is.
        store: the online store.
        before: the greatest `_seq` that the log reached before.
        rows: what was appended; if the store does not reach `before`, the log is read from where it does.
        through: the greatest `_seq` that the log reaches now.
        now_us: the present, in microseconds since 1970.
        source: as in `materialise`.
    """
    key = mark_key(view.id)
    (stored,) = store.get_many([key])
    made = tables.mark(view.log, MADE_MARK) or 0
    through_now = read_mark(stored, made).through
    if through_now < 0 or through_now != before or rows.column(RETRACTS).null_count < len(rows):
        materialise(view, tables, store, now_us=now_us, source=source)
        return
    upsert(view, store, rows, now_us)
    store.swap(key, stored, write_mark(Watermark(through), made))


def _bring(
    view: View, tables: TableStore, store: OnlineStore, rows: pa.Table, now_us: int, source: SourceTable | None
) -> int:
    """Upsert what is new; entities that lost rows are written anew from the log."""
    taking = rows.filter(pc.is_valid(rows.column(RETRACTS)))
    if not len(taking):
        return upsert(view, store, rows, now_us)
    lost = taking.group_by(list(view.key_names)).aggregate([])
    hashes = pc.unique(key_hashes(lost, view.keys)).to_pylist()
    done = upsert(view, store, rows, now_us)
    return done + rewrite(view, store, lambda: _known(view, tables, source, hashes), lost, now_us)


def _known(view: View, tables: TableStore, source: SourceTable | None, hashes: list[int]) -> pa.Table:
    """The rows of entities in a view's log, and those that were acknowledged and are not in it yet."""
    # In this order: what goes into the log meanwhile is in both, and not in neither.
    waiting = None if source is None else project(view, source, rows_waiting(tables, source, -1))
    rows = read_log(tables, view.log, where=[(HASH, "in", hashes)])
    if waiting is not None and len(waiting):
        ahead = waiting.filter(pc.invert(pc.is_in(waiting.column(SEQ), rows.column(SEQ).combine_chunks())))
        rows = pa.concat_tables([rows.select(ahead.column_names), ahead.cast(rows.select(ahead.column_names).schema)])
    return rows


def reaches(view: View, tables: TableStore, store: OnlineStore, through: int) -> bool:
    """Whether the online store has a view's log up to a `_seq`, and that log is the one that is there."""
    (stored,) = store.get_many([mark_key(view.id)])
    return read_mark(stored, tables.mark(view.log, MADE_MARK) or 0).through >= through
