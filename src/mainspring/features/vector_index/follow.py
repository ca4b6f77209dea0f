"""Brings a vector index up to its view's log, by increments that can be repeated, broken off and gone on with.

Which entities changed is read from the log, from a watermark on; what they are now is read from the online store, which
has what the log had: so the index says what the online store says, whatever arrived late, was corrected, deleted or is
of the future. The watermark is written after the points, and only over the one that was read before them: of two that
work at once, the slower does its entities again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from mainspring.catalog.ids import new_id
from mainspring.features.logs.log import MADE_MARK, TableVersion, newest, read_log
from mainspring.features.online.keys import key_packer
from mainspring.features.online.materialise import materialise
from mainspring.features.vector_index.entries import EntryReader, point_id
from mainspring.features.vector_index.mark import Mark, forget_mark, read_mark, write_mark
from mainspring.features.vector_index.shape import EVENT_US, UNTIL_US, VectorIndexShape
from mainspring.features.view import EVENT, SEQ
from mainspring.lazy import lazy
from mainspring.ports.online import OnlineStore
from mainspring.ports.tables import TableStore
from mainspring.ports.vector_store import Or, Range, VectorStore

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    pa, pc = lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = ["Followed", "HasStores", "follow", "is_behind", "reaches"]

KEEP_US = 86_400_000_000
"""How long the collection of another definition is kept after it was followed last: a server may still answer from it,
and whoever goes back to it finds it built."""
TOUCH_US = 3_600_000_000
"""How often a mark is written anew although nothing has changed, and what is too old taken out."""

_ROWS = 50_000
_BATCH = 1_000
_UNINDEXED = 20_000
_AGAIN_US = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_US = 250_000_000_000_000_000
"""Events beyond it, in the year 9892, have no moment in Python."""


class HasStores(Protocol):
    """Anything that has the three stores: the project's `Services`."""

    @property
    def tables(self) -> TableStore:
        """The offline tables."""

    @property
    def online(self) -> OnlineStore:
        """The online store."""

    @property
    def vectors(self) -> VectorStore:
        """The vector store."""


class Followed(msgspec.Struct, frozen=True):
    """What following a log did.

    Attributes:
        index: the index's name.
        collection: where its points are.
        through: the greatest `_seq` of the view's log that it has seen.
        entities: entities that were looked at.
        written: points that were written.
        removed: entities that have no point, or none any more.
        skipped: how many of those have a row that answers but no vector that could be near to another, by why:
            ``null``, ``zero``, ``not_finite``, ``dims``.
        whole: whether it has come up to the log.
    """

    index: str
    collection: str
    through: int
    entities: int = 0
    written: int = 0
    removed: int = 0
    skipped: Mapping[str, int] = {}
    whole: bool = True


class _Counts(msgspec.Struct):
    entities: int = 0
    written: int = 0
    removed: int = 0
    skipped: Counter[str] = msgspec.field(default_factory=Counter)


def is_behind(shape: VectorIndexShape, stores: HasStores, top: TableVersion, now_us: int) -> bool:
    """Whether an index has something to do for a version of its view's log, as far as its mark tells."""
    _, mark = read_mark(stores.online, shape.prefix, shape.digest)
    if mark is None or mark.through < top.through or not mark.built:
        return True
    return now_us >= mark.at_us + TOUCH_US or (mark.next_us is not None and mark.next_us <= now_us)


def reaches(shape: VectorIndexShape, stores: HasStores, through: int) -> bool:
    """Whether an index is there and has seen its view's log up to a `_seq`."""
    _, mark = read_mark(stores.online, shape.prefix, shape.digest)
    if mark is None or not mark.built or mark.through < through:
        return False
    made = stores.tables.mark(shape.view.log, MADE_MARK) or 0
    return mark.made == made and mark.collection in stores.vectors.indexes()


def follow(
    shape: VectorIndexShape,
    stores: HasStores,
    clock: Callable[[], int],
    *,
    anew: bool = False,
    stopped: Callable[[], bool] = lambda: False,
) -> Followed | None:
    """Bring an index up to its view's log as it is now; doing it again changes nothing.

    Args:
        shape: the index.
        stores: where log, online rows and points are.
        clock: UTC microseconds.
        anew: build it beside, from nothing, as when its store was damaged.
        stopped: asked between batches; what is done until then stays.

    Returns:
        What was done; None when the view was never computed.

    Raises:
        StoreError, ServiceError: as the stores raise.
    """
    top = newest(stores.tables, shape.view.log)
    if top is None:
        return None
    materialise(shape.view, stores.tables, stores.online, top.version, now_us=clock(), source=shape.source)
    return _Follower(shape, stores, clock, stopped).run(top, anew)


class _Follower:
    def __init__(
        self, shape: VectorIndexShape, stores: HasStores, clock: Callable[[], int], stopped: Callable[[], bool]
    ) -> None:
        self._shape, self._tables, self._online = shape, stores.tables, stores.online
        self._vectors, self._clock, self._stopped = stores.vectors, clock, stopped
        self._reader = EntryReader(shape, stores.online)
        self._pack = key_packer(0, shape.view.keys)
        self._counts = _Counts()

    def run(self, top: TableVersion, anew: bool) -> Followed:
        stored, mark = self._begun(anew)
        while not self._stopped():
            started = self._clock()
            upto = max(mark.through, min(top.through, mark.through + (_ROWS << 15)))
            touched, next_us = self._touched(mark, upto, started, top)
            whole = self._take(mark.collection, touched)
            if not whole:
                break
            self._vectors.flush(mark.collection)
            reached = Mark(
                mark.collection,
                mark.made,
                upto,
                started,
                next_us,
                mark.built or upto >= top.through,
                started,
            )
            swept = started >= mark.at_us + TOUCH_US or not mark.built
            written = write_mark(self._online, self._shape.prefix, self._shape.digest, stored, reached)
            if written is None:  # another one has worked meanwhile: what it read may be older than what is written now
                stored, mark = self._taken_over(mark)
                continue
            stored, mark = written, reached
            if mark.through >= top.through:
                if swept:
                    self._sweep(mark, started)
                return self._followed(mark, whole=True)
        return self._followed(mark, whole=False)

    def _followed(self, mark: Mark, *, whole: bool) -> Followed:
        counts = self._counts
        return Followed(
            self._shape.name,
            mark.collection,
            mark.through,
            counts.entities,
            counts.written,
            counts.removed,
            dict(counts.skipped),
            whole,
        )

    def _begun(self, anew: bool) -> tuple[bytes | None, Mark]:
        """The mark to go on from; of a new collection when there is none, or what it speaks of is gone."""
        made = self._tables.mark(self._shape.view.log, MADE_MARK) or 0
        while True:
            stored, mark = read_mark(self._online, self._shape.prefix, self._shape.digest)
            if mark is not None and mark.made == made and not anew and mark.collection in self._vectors.indexes():
                return stored, mark
            now = self._clock()
            fresh = Mark(self._shape.collection(new_id()[-12:]), made, -1, now, None, False, now)
            written = write_mark(self._online, self._shape.prefix, self._shape.digest, stored, fresh)
            if written is not None:
                # Named before it is made: a collection that no mark names is nobody's, and is swept.
                self._vectors.create(fresh.collection, self._shape.schema)
                return written, fresh
            anew = False  # another one has begun, just now

    def _taken_over(self, mark: Mark) -> tuple[bytes | None, Mark]:
        """The mark that another one has written, back at where this one has begun."""
        stored, other = self._begun(anew=False)
        if other.collection != mark.collection:
            return stored, other
        back = msgspec.structs.replace(
            other,
            through=min(mark.through, other.through),
            due_us=min(mark.due_us, other.due_us),
            next_us=min(mark.due_us, other.due_us),
        )
        return stored, back

    def _touched(
        self, mark: Mark, upto: int, now_us: int, top: TableVersion
    ) -> tuple[dict[bytes, dict[str, Any]], int | None]:
        """The entities of rows that came, and of rows whose time came; and when to look at those ahead again."""
        names = list(self._shape.view.key_names)
        next_us = mark.next_us
        touched: dict[bytes, dict[str, Any]] = {}
        if upto > mark.through:
            where = [(SEQ, "<=", upto)] if mark.through < 0 else [(SEQ, ">", mark.through), (SEQ, "<=", upto)]
            rows = read_log(self._tables, self._shape.view.log, top.version, [*names, EVENT], where)
            self._add(touched, rows)
            next_us = _sooner(next_us, _first_after(rows, now_us))
        if mark.next_us is not None and mark.next_us <= now_us:
            due = self._between(mark.due_us, now_us, [*names, EVENT], top)
            self._add(touched, due)
            # Where rows come due all the time, look again soon; else find out when the next one does.
            ahead = now_us + _AGAIN_US if len(due) else _first_after(self._between(now_us, None, [EVENT], top), now_us)
            next_us = _sooner(ahead, next_us if next_us is not None and next_us > now_us else None)
        return touched, next_us

    def _between(self, after_us: int, until_us: int | None, columns: list[str], top: TableVersion) -> pa.Table:
        where: list[tuple[str, str, object]] = [(EVENT, ">", _moment(after_us))]
        if until_us is not None:
            where.append((EVENT, "<=", _moment(until_us)))
        return read_log(self._tables, self._shape.view.log, top.version, columns, where)

    def _add(self, touched: dict[bytes, dict[str, Any]], rows: pa.Table) -> None:
        names = list(self._shape.view.key_names)
        if len(rows):
            for entity in rows.select(names).group_by(names).aggregate([]).to_pylist():
                touched[self._pack(entity)] = entity

    def _take(self, collection: str, touched: Mapping[bytes, dict[str, Any]]) -> bool:
        """Write or remove the points of entities; False when stopped."""
        entities = list(touched.values())
        for start in range(0, len(entities), _BATCH):
            if self._stopped():
                return False
            self._take_batch(collection, entities[start : start + _BATCH])
        return True

    def _take_batch(self, collection: str, entities: list[dict[str, Any]]) -> None:
        now_us = self._clock()
        entries = self._reader.read(entities, now_us)
        points = self._reader.points(entries, now_us)
        gone = [point_id(self._shape, entry.entity) for entry in entries if entry.vector is None]
        if points:
            self._vectors.upsert(collection, points)
        if gone:
            self._vectors.delete(collection, gone)
        self._counts.entities += len(entities)
        self._counts.written += len(points)
        self._counts.removed += len(gone)
        self._counts.skipped.update(entry.lacking for entry in entries if entry.lacking)

    def _sweep(self, mark: Mark, now_us: int) -> None:
        """Take out what will never answer again, and the collections that nobody needs; make searches fast."""
        self._drop_others(mark, now_us)
        ages = []
        if self._shape.view.ttl_us is not None:
            ages.append(Range(EVENT_US, lt=now_us - self._shape.view.ttl_us))
        if self._shape.has_until:
            ages.append(Range(UNTIL_US, lte=now_us))
        if ages:
            self._vectors.delete(mark.collection, Or(tuple(ages)))
        stats = self._vectors.stats(mark.collection)
        if stats.unindexed > max(_UNINDEXED, stats.rows // 10):
            self._vectors.optimize(mark.collection)

    def _drop_others(self, mark: Mark, now_us: int) -> None:
        for name in self._vectors.indexes():
            if not name.startswith(self._shape.prefix) or name == mark.collection:
                continue
            digest = name.removeprefix(self._shape.prefix).partition("-")[0]
            _, other = read_mark(self._online, self._shape.prefix, digest)
            if other is not None and other.collection == name:
                if digest == self._shape.digest or now_us < other.at_us + KEEP_US:
                    continue
                forget_mark(self._online, self._shape.prefix, digest)
            self._vectors.drop(name)


def _first_after(rows: pa.Table, us: int) -> int | None:
    """The first event later than a moment."""
    events = rows.column(EVENT).cast(pa.int64())
    found: int | None = pc.min(events.filter(pc.greater(events, us))).as_py()
    return found


def _sooner(one: int | None, other: int | None) -> int | None:
    moments = [moment for moment in (one, other) if moment is not None]
    return min(moments, default=None)


def _moment(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=min(us, _LAST_US))
