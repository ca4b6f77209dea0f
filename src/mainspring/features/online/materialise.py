"""Materialisation: what a view's log has and the online store has not, from a watermark on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mainspring.catalog.ids import new_id
from mainspring.catalog.ids import now_us as present
from mainspring.features.log import MADE_MARK, SourceTable, read_log
from mainspring.features.online.keys import view_prefix
from mainspring.features.online.rows import BODY, head
from mainspring.features.online.windows import layout_of
from mainspring.features.online.write import rewrite, upsert
from mainspring.features.project import project
from mainspring.features.view import RETRACTS, SEQ, View
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

__all__ = ["Materialised", "follow", "mark_key", "materialise", "online_id", "reaches"]

_MARKS = b"\xff\xff\xff\xffmark"


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

    The watermark is written after the rows, so that a run that is killed is repeated, never skipped.

    Args:
        view: the view, with its online number as `View.id`.
        tables: where its log is.
        store: the online store.
        version: the log's version; the newest when left out.
        now_us: the present, in microseconds since 1970: what happens later is kept beside what answers until then.
        source: the source of a view of declared aggregates: its pushed rows may be online before they are in a log,
            and stay there when an entity is written anew.
        full: drop all rows of the view, and write them anew.
    """
    key = _mark_of(view)
    (mark,) = store.get_many([key])
    made = tables.mark(view.log, MADE_MARK) or 0
    through = -1 if full else _through(mark, made)
    if mark is not None and through < 0:
        store.drop(view_prefix(view.id))  # they were of a log that is gone, or are to be made anew
    rows = read_log(tables, view.log, version, where=[(SEQ, ">", through)] if through >= 0 else [])
    if not len(rows):
        return Materialised(view.name, 0, 0, through)
    entities = _bring(view, tables, store, rows, now_us, source)
    reached = max(rows.column(SEQ).to_pylist())
    store.swap(key, mark, head(0, 0, 0, 0) + _reached(reached, made))
    return Materialised(view.name, len(rows), entities, reached)


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
    key = _mark_of(view)
    (mark,) = store.get_many([key])
    made = tables.mark(view.log, MADE_MARK) or 0
    if mark is None or _through(mark, made) != before or rows.column(RETRACTS).null_count < len(rows):
        materialise(view, tables, store, now_us=now_us, source=source)
        return
    upsert(view, store, rows, now_us)
    store.swap(key, mark, head(0, 0, 0, 0) + _reached(through, made))


def _bring(
    view: View, tables: TableStore, store: OnlineStore, rows: pa.Table, now_us: int, source: SourceTable | None
) -> int:
    """Upsert what is new; entities that lost rows are written anew from the log."""
    taking = rows.filter(pc.is_valid(rows.column(RETRACTS)))
    if not len(taking):
        return upsert(view, store, rows, now_us)
    lost = taking.group_by(list(view.key_names)).aggregate([])
    return upsert(view, store, rows, now_us) + rewrite(view, store, lambda: _known(view, tables, source), lost, now_us)


def _known(view: View, tables: TableStore, source: SourceTable | None) -> pa.Table:
    """The rows of a view's log, and those that were acknowledged and are not in it yet."""
    # In this order: what goes into the log meanwhile is in both, and not in neither.
    waiting = None if source is None else project(view, source, rows_waiting(tables, source, -1))
    rows = read_log(tables, view.log)
    if waiting is not None and len(waiting):
        ahead = waiting.filter(pc.invert(pc.is_in(waiting.column(SEQ), rows.column(SEQ).combine_chunks())))
        rows = pa.concat_tables([rows.select(ahead.column_names), ahead.cast(rows.select(ahead.column_names).schema)])
    return rows


def reaches(view: View, tables: TableStore, store: OnlineStore, through: int) -> bool:
    """Whether the online store has a view's log up to a `_seq`, and that log is the one that is there."""
    (mark,) = store.get_many([_mark_of(view)])
    return _through(mark, tables.mark(view.log, MADE_MARK) or 0) >= through


def mark_key(number: int) -> bytes:
    """The key of the mark that says how far the rows under an online number have come."""
    return _MARKS + number.to_bytes(4, "big")


def _mark_of(view: View) -> bytes:
    return mark_key(view.id)


def _reached(through: int, made: int) -> bytes:
    return through.to_bytes(8, "big", signed=True) + made.to_bytes(8, "big", signed=True)


def _through(mark: bytes | None, made: int) -> int:
    if mark is None or mark[BODY + 8 :] != _reached(0, made)[8:]:
        return -1
    return int.from_bytes(mark[BODY : BODY + 8], "big", signed=True)
