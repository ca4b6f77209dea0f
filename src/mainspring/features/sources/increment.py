"""Increments by a cursor: what a database has that a source's log does not, appended part by part, each once.

The log itself says how far it has come: each commit notes the cursor's value up to which everything was read. An
increment begins an overlap before that, for rows that were committed late, and what the log holds already is left
out. It ends at the greatest value that was there when it began. The cursor is a column of the record, so rows are the
same exactly when all their columns are; parts end between two values of it, so that equal rows are never torn apart.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import msgspec

from mainspring.declare.record import Kind
from mainspring.errors import DataError
from mainspring.features.logs.ingest import Prepared, prepare, some_fit
from mainspring.features.logs.log import SourceTable, TableVersion, newest, record_schema
from mainspring.features.logs.write import Increment, append_increment, has_batches
from mainspring.features.quality.known import known_in
from mainspring.features.sources.files import RawFile
from mainspring.features.sources.place import Cursor
from mainspring.lazy import lazy
from mainspring.ports.source import NUMBER_AS_TEXT, Point, Range, Relation, Relations, column_called
from mainspring.ports.tables import TableStore

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
else:
    pa, pc = lazy("pyarrow"), lazy("pyarrow.compute")

__all__ = ["Told", "extract_increment", "raw_of", "wanted"]

_WRITER = "cursor"
"""The writer of what increments bring; it counts how often they brought something."""
_NOTE = "cursor"
_DAY_US = 86_400_000_000


class _State(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far the log has come, noted with its commits.

    Attributes:
        of: of which relation and cursor this speaks.
        at: the cursor's value up to which all was read, as text.
        kind: what `at` is: ``datetime``, ``date``, ``int``, ``Decimal``.
        history: the value that ends what was there before anything was read, as text.
    """

    of: str
    at: str
    kind: str
    history: str = ""


class Told(msgspec.Struct, frozen=True):
    """What was read and became of it.

    Attributes:
        read: rows that were read, those of the overlap too.
        added: rows that are new.
        aside: rows that were set aside and had not been before.
        reasons: how many of the rows that were read do not fit, for each reason.
    """

    read: int = 0
    added: int = 0
    aside: int = 0
    reasons: Mapping[str, int] = msgspec.field(default_factory=lambda: MappingProxyType({}))

    def and_then(self, rows: int, done: Increment, report: Mapping[str, int]) -> Told:
        """This and another part."""
        counts = Counter(self.reasons) + Counter(report)
        return Told(self.read + rows, self.added + done.added, self.aside + done.aside, dict(counts))


class _Span(msgspec.Struct, frozen=True):
    """A stretch of the cursor that is read in one go.

    Attributes:
        range: its bounds; None reads all, of a relation whose cursor is null everywhere, or that is empty.
        history: whether its rows were there before anything was read.
    """

    range: Range | None
    history: bool


def extract_increment(
    tables: TableStore,
    source: SourceTable,
    reader: Relations,
    relation: Relation,
    cursor: Cursor,
    *,
    now_us: Callable[[], int],
    commit_rows: int,
    truncate: bool = False,
    moved: Callable[[int], None] = lambda rows: None,
    judge: Callable[[Prepared, pa.Table], None] = lambda prepared, new: None,
) -> tuple[TableVersion, Told]:
    """Read what is new and append it; two calls in a row append nothing the second time.

    Args:
        tables: the table store.
        source: the source.
        reader: its database.
        relation: what is read of it.
        cursor: how new rows are told.
        now_us: the clock, in microseconds since 1970: when rows arrive, and beyond which no increment ends.
        commit_rows: rows of one commit; more where more have the same value of the cursor.
        truncate: whether nanoseconds are cut off times.
        moved: is told how many rows were read so far.
        judge: is shown each part as it was prepared, and those of its rows that are new, before they are appended; what
            it raises, refuses them.

    Raises:
        DataError: MS-2110, MS-2111, MS-2113 as for files; MS-2153, the cursor's values are neither times nor numbers.
        ServiceError: as the database raises; what was committed stays, and the next call goes on from there.
    """
    names, schema = wanted(source, reader, relation)
    log = _Log(tables, source, cursor, _digest(relation, cursor))
    told = Told()
    for span in log.spans(_point(reader.newest(relation, cursor.column), source, cursor)):
        batches = reader.rows(relation, schema, span.range)
        for part, last in _with_last(_parts(batches, cursor.column, commit_rows)):
            raw = raw_of(part, str(relation), names)
            prepared = prepare(source, [raw], truncate=truncate, known=known_in(tables))
            if newest(tables, source.log) is None:
                prepared = some_fit(source, prepared)
            done = append_increment(
                tables,
                source,
                prepared,
                writer=_WRITER,
                now_us=(now := now_us()),
                history=span.history,
                compared=True,
                notes=functools.partial(log.notes, part, span, last, now),
                judge=functools.partial(judge, prepared),
            )
            told = told.and_then(len(part), done, prepared.report)
            moved(told.read)
    found = newest(tables, source.log)
    assert found is not None  # the first increment makes the log, whatever it brings
    return found, told


def wanted(source: SourceTable, reader: Relations, relation: Relation) -> tuple[Sequence[str], pa.Schema]:
    """All columns of a relation, and those of the record that are read of it.

    Raises:
        DataError: MS-2111, one is not there.
    """
    names = list(reader.columns(relation))
    schema = record_schema([item for item in source.fields if column_called(item.name, names)])
    prepare(source, [raw_of(pa.table({name: pa.nulls(0) for name in schema.names}), str(relation), names)])
    return names, schema


def _digest(relation: Relation, cursor: Cursor) -> str:
    text = f"{relation.table}\0{relation.query}\0{cursor.column}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


# -- parts ------------------------------------------------------------------------------------------------------------


def _parts(batches: Iterable[pa.RecordBatch], column: str, rows: int) -> Iterator[pa.Table]:
    """Batches in parts of at most so many rows, cut where the cursor's value changes; more where it does not."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) <= rows:
            continue
        table = pa.Table.from_batches(held)
        while cut := _cut(table.column(column), rows):
            yield table.slice(0, cut)
            table = table.slice(cut)
        held = table.combine_chunks().to_batches()
    if held:
        yield pa.Table.from_batches(held)


def _cut(cursor: pa.ChunkedArray, rows: int) -> int:
    """Where an ordered column changes its value, at `rows` or as near before it as can be, else after; 0 is nowhere."""
    if len(cursor) <= rows:
        return 0
    begin = int(pc.index(_same(cursor, rows), True).as_py())
    if begin:
        return begin
    return max(0, int(pc.index(_same(cursor, 0), False).as_py()))


def _same(cursor: pa.ChunkedArray, place: int) -> pa.ChunkedArray:
    """Where a column has the value that it has at a place."""
    if not cursor[place].is_valid:
        return pc.is_null(cursor)
    return pc.fill_null(pc.equal(cursor, cursor[place]), False)


def _with_last(parts: Iterable[pa.Table]) -> Iterator[tuple[pa.Table, bool]]:
    """Each part, and whether it is the last."""
    before = None
    for part in parts:
        if before is not None:
            yield before, False
        before = part
    if before is not None:
        yield before, True


def raw_of(part: pa.Table, label: str, names: Sequence[str]) -> RawFile:
    """What was read of a database, as ingest takes it."""
    numbers = [item.name for item in part.schema if NUMBER_AS_TEXT.items() <= dict(item.metadata or {}).items()]
    return RawFile(Path(label), part, False, tuple(names), frozenset(numbers))


# -- the state --------------------------------------------------------------------------------------------------------


class _Log:
    """How far a source's log has come, in terms of a cursor.

    Args:
        tables: the table store.
        source: the source.
        cursor: the cursor.
        of: which relation and cursor; another one begins anew.
    """

    def __init__(self, tables: TableStore, source: SourceTable, cursor: Cursor, of: str) -> None:
        self._tables, self._source, self._cursor, self._of = tables, source, cursor, of

    def state(self) -> _State | None:
        """What the newest commit of an increment has noted."""
        number = self._tables.mark(self._source.log, _WRITER)
        commit = self._tables.commit_of(self._source.log, _WRITER, number) if number else None
        note = None if commit is None else commit.notes.get(_NOTE)
        state = None if note is None else msgspec.json.decode(note, type=_State)
        return state if state is not None and state.of == self._of else None

    def spans(self, top: Point | None) -> Iterator[_Span]:
        """What is to be read: what is left of the history if the first read did not end, then what came since."""
        state, column = self.state(), self._cursor.column
        begun = state is not None or has_batches(self._tables, self._source, _WRITER)
        if state is None or top is None:
            yield _Span(None if top is None else Range(column, None, top), not begun)
            return
        if state.history:
            end = _value(state.history, state.kind)
            yield _Span(Range(column, self._least(_value(state.at, state.kind)), end), True)
            yield _Span(Range(column, self._least(end), top), False)
        else:
            yield _Span(Range(column, self._least(_value(state.at, state.kind)), top), False)

    def notes(self, part: pa.Table, span: _Span, last: bool, now_us: int) -> dict[str, str]:
        """The state after a part; it never goes back, and never beyond now, as clocks may be wrong."""
        if span.range is None:
            return {}
        before = self.state()
        top = span.range.most if last else _greatest(part.column(self._cursor.column))
        at = top if top is None else _sooner(top, now_us, self._source.zone)
        if before is not None and (at is None or _before(at, _value(before.at, before.kind))):
            at = _value(before.at, before.kind)
        if at is None:
            return {}
        history = _text(span.range.most) if span.history and not last else ""
        state = _State(self._of, _text(at), type(at).__name__, history)
        return {_NOTE: msgspec.json.encode(state).decode()}

    def _least(self, at: Point) -> Point:
        """Where an increment begins: the overlap before the point that was reached."""
        overlap = self._cursor.overlap
        if isinstance(at, datetime):
            return at - timedelta(microseconds=overlap)
        if isinstance(at, date):
            return at - timedelta(days=-(-overlap // _DAY_US))
        return at - overlap


def _greatest(cursor: pa.ChunkedArray) -> Point | None:
    values = cursor.drop_null()
    if pa.types.is_string(values.type):
        return max(map(Decimal, values.to_pylist()), default=None)
    return pc.max(values).as_py()  # type: ignore[no-any-return]


def _sooner(top: Point, now_us: int, zone: str | None) -> Point:
    """A point, or now where it lies ahead; a row dated into the future does not hide those that come before it."""
    now = datetime.fromtimestamp(now_us / 1e6, UTC)
    if isinstance(top, datetime):
        own = now if top.tzinfo is not None else now.astimezone(ZoneInfo(zone or "UTC")).replace(tzinfo=None)
        return min(top, own)
    return min(top, now.date()) if isinstance(top, date) else top


def _before(one: Point, other: Point) -> bool:
    """Whether a point lies before another; of two kinds, which a changed column has, none does."""
    try:
        return bool(one < other)  # type: ignore[operator]
    except TypeError:
        return False


def _text(point: Point) -> str:
    return point.isoformat() if isinstance(point, date) else str(point)


def _value(text: str, kind: str) -> Point:
    match kind:
        case "datetime":
            return datetime.fromisoformat(text)
        case "date":
            return date.fromisoformat(text)
        case "Decimal":
            return Decimal(text)
        case _:
            return int(text)


def _point(found: object, source: SourceTable, cursor: Cursor) -> Point | None:
    """The greatest value as the database has it.

    Raises:
        DataError: MS-2153, it is no time where the record says one, or no number.
    """
    timed = cursor.kind in (Kind.TIMESTAMP, Kind.DATE)
    fits = isinstance(found, date) if timed else isinstance(found, int | Decimal) and not isinstance(found, bool)
    if found is None or fits:
        return found  # type: ignore[return-value]
    raise DataError(
        f"the cursor of source {source.name!r} is no {'time' if timed else 'number'} there",
        code="MS-2153",
        why=f"the greatest {cursor.column} is {type(found).__name__}",
        origin=f"sources.{source.name}.cursor",
        fix="name a column that only grows, of the type that the record says",
    )
